"""The same seed is the same picture, and every face is made of the layers it should be."""

from pathlib import Path

import pytest
import torch

from checkpoints import checkpoint
from checkpoints.checkpoint import CheckpointError
from common.cli import UserError
from model import Generator, Stage
from sampling.sampler import Faces, check_variety, load_faces, replace_layers, walk
from tests.support.generators import CPU, Change, make_blank, make_deaf, save_generator


@pytest.fixture
def faces(tmp_path: Path) -> Faces:
    return load(save_generator(tmp_path / "a.pt"))


def load(path: Path) -> Faces:
    return load_faces(path, CPU, pytest.fail).faces


def test_a_seed_gives_the_same_picture_whatever_it_is_rendered_with(faces: Faces) -> None:
    def render(seeds: list[int]) -> torch.Tensor:
        return faces.render(faces.ws(seeds, 0.7), faces.noise(seeds))

    alone = render([5])[0]
    for seeds in (list(range(41)), [40, 7, 5], [5, 5], list(range(5, 22))):
        assert torch.equal(render(seeds)[seeds.index(5)], alone)


def test_replacing_all_layers_gives_the_other_and_none_gives_the_first(faces: Faces) -> None:
    a, b = faces.ws([1], 1.0), faces.ws([2], 1.0)
    assert torch.equal(replace_layers(faces.G, a, b, range(6)), b)
    assert torch.equal(replace_layers(faces.G, a, b, range(0)), a)


def test_psi_0_gives_one_face_and_psi_1_all_the_variety(faces: Faces) -> None:
    noise = faces.noise([0])
    one = faces.render(faces.ws([1, 2, 3], 0.0), noise)
    assert torch.equal(one[0], one[1])
    assert torch.equal(one[0], one[2])
    assert torch.equal(faces.ws([1], 0.0)[0, 0], faces.G.w_avg)
    assert torch.equal(faces.ws([1], 1.0), faces.G.broadcast(faces.ws([1], 1.0)[:, 0]))
    assert not torch.equal(*faces.render(faces.ws([1, 2], 1.0), noise))


def test_psi_pulls_each_style_to_the_mean(faces: Faces) -> None:
    half = faces.G.w_avg + 0.5 * (faces.ws([4], 1.0) - faces.G.w_avg)
    torch.testing.assert_close(faces.ws([4], 0.5), half)


def test_z_and_noise_of_a_seed_are_its_own_and_normal(faces: Faces) -> None:
    together = faces.noise([8, 9])
    assert [tuple(maps.shape) for maps in together] == [
        (2, 1, r, r) for r in (4, 8, 16) for _ in range(2)
    ]
    for maps, alone in zip(together, faces.noise([9]), strict=True):
        assert torch.equal(maps[1:], alone)
    values = torch.cat([maps.flatten() for maps in faces.noise(range(50))])
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02


def test_progress_counts_every_image_once(faces: Faces) -> None:
    counts: list[int] = []
    faces.render(faces.ws(range(20), 0.7), faces.noise([0]), counts.append)
    assert counts == [16, 4]


def test_the_size_and_the_fade_in_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    for stage in ([16, 0.25], [16, 1.0], [8, 1.0]):
        path = save_generator(tmp_path / f"{stage[0]}-{stage[1]}.pt", stage=stage)
        faces = load(path)
        assert faces.stage == Stage(*stage)
        images = faces.render(faces.ws([0], 0.7), faces.noise([0]))
        assert images.shape[-1] == stage[0]
        G = checkpoint.load_generator(path, CPU)[0]
        ws, noise = faces.ws([0] * 16, 0.7), faces.noise([0] * 16)
        direct = G.synthesis(ws, Stage(*stage), noise, faces.dtype)
        expected = ((direct + 1) * 127.5).clamp(0, 255).round().byte()
        assert (images[0].int() - expected[0].int()).abs().max() <= 1
    assert load(save_generator(tmp_path / "none.pt")).stage == Stage(16, 1.0)


def test_a_walk_passes_through_every_face_and_closes() -> None:
    ws = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0))
    path = walk(ws, 8)
    assert path.shape == (40, 6, 3)
    assert torch.equal(path[::8], ws)
    assert torch.equal(walk(ws.roll(1, 0), 8), path.roll(8, 0)), "it has a seam"
    torch.testing.assert_close(walk(ws.flip(0), 8).flip(0).roll(-7, 0), path)
    fine = walk(ws.double(), 1000)
    speed = fine.roll(-1, 0) - fine
    assert (speed - speed.roll(1, 0)).abs().max() < 0.05 * speed.abs().max(), "it turns a corner"


@pytest.mark.parametrize(
    "stage", [[32, 1.0], [5, 1.0], [16, 2.0], [4, 0.5], [16], 16, "16", [16, "1"], [16, 1, 1]]
)
def test_a_stage_that_the_model_does_not_have_is_refused(tmp_path: Path, stage: object) -> None:
    path = save_generator(tmp_path / "odd.pt", stage=stage)
    with pytest.raises(CheckpointError, match="unusable stage"):
        load(path)


def test_a_run_folder_gives_its_newest_sound_checkpoint(tmp_path: Path) -> None:
    names = ("latest.pt", "previous.pt", "snapshots/1000000.pt", "snapshots/990000.pt")
    for name in reversed(names):
        save_generator(tmp_path / name)
    for count, name in enumerate(names):
        warnings: list[str] = []
        assert load_faces(tmp_path, CPU, warnings.append).file == tmp_path / name
        assert [line.split(": ")[0] for line in warnings] == [
            str(tmp_path / damaged) for damaged in names[:count]
        ]
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="990000"):
        load_faces(tmp_path, CPU, warnings.append)


def make_huge(G: Generator) -> None:
    G.synthesis.to_rgb["16"].weight.fill_(3e38)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (make_huge, "the images are not finite"),
        (make_blank, "each image is of one colour"),
        (make_deaf, "all seeds give the same image"),
    ],
)
def test_a_generator_that_makes_no_pictures_is_refused(
    tmp_path: Path, change: Change, reason: str
) -> None:
    faces = load(save_generator(tmp_path / "bad.pt", change=change))
    with pytest.raises(UserError, match=reason):
        check_variety(faces.render(faces.ws([1, 2], 0.7), faces.noise([1, 2])), [1, 2], 0.7)


def test_pictures_that_may_be_alike_are_not_refused(faces: Faces) -> None:
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    check_variety(images, [3, 3], 0.7)
    check_variety(images, [3, 4], 0.0)


def test_a_checkpoint_whose_tensors_were_on_a_gpu_loads_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        path = save_generator(tmp_path / "gpu.pt")
    assert b"cuda:0" in path.read_bytes()
    faces = load(path)
    plain = load(save_generator(tmp_path / "cpu.pt"))
    assert torch.equal(faces.ws([1], 1.0), plain.ws([1], 1.0))
