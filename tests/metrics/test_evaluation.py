"""evaluation.py: which metrics there are and what they are called, and features kept in a file."""

from pathlib import Path

import pytest
import torch

from common.cli import UserError
from metrics.evaluation import Evaluator, feature_metrics, read_features, read_reals
from metrics.metrics import frechet_distance, kid, precision_recall, require
from tests.support.networks import Pixels


def evaluator(lmdb: Path, folder: Path, *networks: Pixels) -> Evaluator:
    made = Evaluator(read_reals(lmdb, 16), networks, folder, 100)
    made.prepare(lambda _: None)
    return made


@pytest.mark.parametrize("frechet", [None, ("FID", 1), ("face distance", 1000)])
@pytest.mark.parametrize("has_kid", [True, False])
def test_a_network_says_which_distances_on_its_features_are_measured(
    frechet: tuple[str, float] | None, has_kid: bool
) -> None:
    network = Pixels()
    network.frechet, network.has_kid = frechet, has_kid
    reals, fakes = torch.rand(2, 20, 3, generator=torch.Generator().manual_seed(0))
    values = feature_metrics(network)(reals, fakes)
    expected = {"KID (Pixels)": 1000 * kid(reals, fakes)} if has_kid else {}
    expected |= zip(
        ("precision (Pixels)", "recall (Pixels)"), precision_recall(reals, fakes), strict=True
    )
    if frechet:
        expected[frechet[0]] = frechet[1] * frechet_distance(reals, fakes)
    assert values == expected


def test_samples_and_floor_get_every_metric_and_training_photos_score_best(
    held_out_lmdb: Path, tmp_path: Path
) -> None:
    measured = evaluator(held_out_lmdb, tmp_path, Pixels())
    metrics, features = measured.measure(measured.reals.training[:100], lambda _: None)
    floor = measured.floor()
    names = [f"{metric} (Pixels)" for metric in ("KID", "precision", "recall")]
    assert list(metrics) == list(floor) == ["SWD", "SWD 16 px", *names]
    assert features["Pixels"].shape == (100, 48)
    assert metrics["SWD"].value < floor["SWD"].value
    assert metrics["KID (Pixels)"].value < floor["KID (Pixels)"].value


def test_features_are_computed_once_and_only_for_the_photos_they_are_of(
    held_out_lmdb: Path, many_lmdb: Path, tmp_path: Path
) -> None:
    first = evaluator(held_out_lmdb, tmp_path, Pixels())
    path = tmp_path / "features-pixels.pt"
    written = path.stat().st_mtime_ns
    again = evaluator(held_out_lmdb, tmp_path, Pixels())
    assert path.stat().st_mtime_ns == written
    for part, features in first.features["Pixels"].items():
        assert torch.equal(features, again.features["Pixels"][part])
    other_version = Pixels()
    other_version.name = "4 x 4 medians"
    for lmdb, network in ((many_lmdb, Pixels()), (held_out_lmdb, other_version)):
        with pytest.raises(UserError, match=r"features-pixels\.pt: features of other photos or"):
            evaluator(lmdb, tmp_path, network)


def test_parts_that_were_finished_are_kept_when_the_rest_is_interrupted(
    held_out_lmdb: Path, tmp_path: Path
) -> None:
    class Interrupted(Pixels):
        left = 1

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        evaluator(held_out_lmdb, tmp_path, Interrupted())
    network = Interrupted()
    network.left = 2  # of three parts
    whole = evaluator(held_out_lmdb, tmp_path, network).features["Pixels"]
    (tmp_path / "features-pixels.pt").unlink()
    expected = evaluator(held_out_lmdb, tmp_path, Pixels()).features["Pixels"]
    assert whole.keys() == expected.keys() == {"training", "unseen", "mirrored"}
    assert all(torch.equal(whole[part], expected[part]) for part in expected)


def test_a_damaged_file_of_features_is_named(held_out_lmdb: Path, tmp_path: Path) -> None:
    path = tmp_path / "features-pixels.pt"
    path.touch()
    with pytest.raises(UserError, match=r"features-pixels\.pt: damaged features; remove"):
        read_features(path, Pixels(), read_reals(held_out_lmdb, 16))


def test_too_few_photos_or_samples_are_refused(tiny_lmdb: Path) -> None:
    with pytest.raises(UserError, match=r"12 training photos in .*expected at least 100"):
        read_reals(tiny_lmdb, 16)
    with pytest.raises(UserError, match="99 samples; expected at least 100"):
        require(99, "samples")
    require(100, "samples")
