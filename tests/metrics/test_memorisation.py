"""memorisation.py: planted copies are found, new faces are not taken for copies."""

import math
from pathlib import Path

import pytest
import torch

from metrics.evaluation import CheckpointMetrics, Evaluator, read_reals
from metrics.memorisation import closer_than, find_copies, more_than_chance, write_pairs
from tests.support.networks import Pixels


def test_copies_are_looked_for_by_the_networks_that_decide_the_last_first(
    held_out_lmdb: Path, tmp_path: Path
) -> None:
    networks = [Pixels(), Pixels(), Pixels()]
    for label, network in zip("abc", networks, strict=True):
        network.label = label
    evaluator = Evaluator(read_reals(held_out_lmdb, 16), networks, tmp_path, 100)
    evaluator.prepare(lambda _: None)
    samples = evaluator.reals.training[:100]
    features = {label: Pixels()(samples) for label in "abc"}
    measured = CheckpointMetrics(tmp_path, 0, 0, {}, samples, features)

    def labels() -> list[str]:
        return [each.network for each in find_copies(evaluator, measured, lambda _: None)]

    assert labels() == ["c"]
    networks[0].frechet, networks[1].frechet = ("FID", 1), ("face distance", 1000)
    assert labels() == ["b", "a"]
    evaluator.networks = []
    assert labels() == []


@pytest.mark.parametrize("planted", [0, 20])
@pytest.mark.parametrize("mirrored", [False, True])
def test_copies_are_found_also_mirrored_and_new_faces_are_not_taken_for_them(
    held_out_lmdb: Path, tmp_path: Path, planted: int, mirrored: bool
) -> None:
    reals = read_reals(held_out_lmdb, 16)
    evaluator = Evaluator(reals, [Pixels()], tmp_path, 100)
    evaluator.prepare(lambda _: None)
    rng = torch.Generator().manual_seed(0)
    samples = torch.cat([reals.training[:planted], reals.unseen[: 100 - planted]])
    noise = torch.randint(0, 3, samples.shape, generator=rng, dtype=torch.uint8)
    samples = samples.clamp(3, 250) + noise
    samples = samples.flip(3) if mirrored else samples
    measured = CheckpointMetrics(tmp_path, 0, 0, {}, samples, {"Pixels": Pixels()(samples)})
    (copies,) = find_copies(evaluator, measured, lambda _: None)
    assert copies.nearest[:planted].tolist() == list(range(planted))
    if planted:
        assert copies.count >= planted
        assert copies.sentence.startswith(
            f"copies (Pixels): {copies.count} of 100 samples are closer"
        )
    else:
        assert copies.sentence.startswith("copies (Pixels): none seen; ")
    write_pairs(tmp_path / "pairs.png", samples, reals.training, copies)


def test_chance_is_that_of_the_binomial_distribution() -> None:
    # By the Poisson limit, 1,000 draws at 1 % exceed 18 in about 0.7 % of cases, 17 in 1.4 %.
    assert not more_than_chance(17, 1000)
    assert more_than_chance(19, 1000)
    assert not more_than_chance(0, 1000)
    assert math.isclose(closer_than(torch.ones(5), torch.full((9,), 2.0))[0], 2)
