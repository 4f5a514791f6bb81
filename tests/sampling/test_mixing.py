"""Mixing and directions: what each face gives is exactly what was asked for."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import generate
from checkpoints import checkpoint
from common import cli
from common.cli import UserError
from common.device import dtype_of_pictures
from model import Generator, ModelConfig
from sampling.directions import factorise, move_along
from sampling.latents import load_latents
from sampling.mixing import blend, crossovers, layer_weights, read_face
from sampling.sampler import Faces, load_faces

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in cli.EXIT_CODES}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def make(path: Path, seed: int = 0) -> Path:
    """Save an untrained generator of 16 px that uses its noise and has a mean style."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        config = ModelConfig(16, 0.03, z_dim=16, w_dim=16, mapping_layers=2)
        G = Generator(config)
        G.w_avg.normal_()
        for layer in G.synthesis.layers:
            layer.noise_strength.normal_(0, 1 / layer.noise_scale)
    checkpoint.save(path, config, {"G_ema": G.state_dict()})
    return path


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("mixing") / "snapshot.pt")


@pytest.fixture(scope="module")
def faces(snapshot: Path) -> Faces:
    faces = load_faces(snapshot, CPU, print)[0]
    faces.dtype = dtype_of_pictures("auto", CPU)
    return faces


def draw(*args: object) -> None:
    generate.main([str(arg) for arg in args])


def refused(capsys: pytest.CaptureFixture[str], code: int, *args: object) -> str:
    with pytest.raises(SystemExit) as end:
        draw(*args)
    said = capsys.readouterr().err
    assert end.value.code == code, said
    assert said.startswith("generate.py: error: ")
    assert said.count("\n") == 1
    return said


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_crossovers_go_over_every_border_in_both_directions() -> None:
    weights = crossovers(6)
    assert weights.shape == (14, 2, 6)
    for border in range(7):
        first = [1.0] * border + [0.0] * (6 - border)
        assert weights[border].tolist() == [first, [1 - share for share in first]]
        assert weights[7 + border].tolist() == weights[border].flip(0).tolist()


def test_a_blend_of_whole_layers_is_the_mix_of_the_generator(faces: Faces) -> None:
    a, b = (read_face(text, faces, 0.7) for text in ("1", "2"))
    found = blend([a, b], crossovers(6))
    for border in range(7):
        assert torch.equal(found.ws[border], faces.G.mix(a.ws, b.ws, border)[0])
        assert torch.equal(found.ws[7 + border], faces.G.mix(b.ws, a.ws, border)[0])
    assert all(torch.equal(x[5:6], y) for x, y in zip(found.noise, a.noise, strict=True))


def test_noise_goes_where_its_style_goes(faces: Faces, tmp_path: Path, snapshot: Path) -> None:
    draw(snapshot, "--seeds", "8-9", "--mix_seeds", 0, 1, "--w_out", tmp_path / "w.npz")
    a, b = read_face(str(tmp_path / "w.npz"), faces, 0.7), read_face("2", faces, 0.7)
    assert all(torch.equal(x, y) for x, y in zip(a.noise, faces.noise([8]), strict=True))
    third = blend([a, b], crossovers(6)[2:3])
    for layer in range(6):
        giver = a if layer < 2 else b
        assert torch.equal(third.noise[layer], giver.noise[layer])
        assert torch.equal(third.ws[:, layer], giver.ws[:, layer])


@pytest.mark.parametrize(
    ("given", "count", "expected"),
    [
        ("A:coarse B:middle", 2, [[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]),
        ("A:coarse=0.25", 2, [[0.25] * 4 + [0.5] * 2, [0.75] * 4 + [0.5] * 2]),
        ("A:0-5=0.5", 3, [[0.5] * 6, [0.25] * 6, [0.25] * 6]),
        ("C:3,5 B:0=0.5", 3, None),
        ("", 2, [[0.5] * 6, [0.5] * 6]),
    ],
)
def test_what_nobody_was_told_to_give_comes_equally_from_the_silent(
    faces: Faces, given: str, count: int, expected: list[list[float]] | None
) -> None:
    weights = layer_weights(generate.gifts(given), count, faces)
    assert weights.shape == (1, count, 6)
    assert torch.allclose(weights.sum(dim=1), torch.ones(1, 6))
    if expected:
        assert torch.allclose(weights[0], torch.tensor(expected, dtype=torch.float32))
    else:
        assert weights[0, :, 3].tolist() == weights[0, :, 5].tolist() == [0, 0, 1]
        assert weights[0, :, 0].tolist() == [0.25, 0.5, 0.25]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("A:coarse=0.7 B:coarse=0.7", "layer 0 sum to 1.4"),
        ("A:0-5=0.5 B:3=0.2", "layer 3 sum to 0.7"),
        ("C:coarse", "--give C"),
        ("A:fine", "within 0-5"),
        ("A:5-6", "within 0-5"),
    ],
)
def test_weights_and_layers_that_cannot_be_are_refused(
    faces: Faces, given: str, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        layer_weights(generate.gifts(given), 2, faces)


def test_the_third_face_is_kept_and_shown_again(
    snapshot: Path, faces: Faces, tmp_path: Path
) -> None:
    kept = tmp_path / "third.npz"
    draw(snapshot, "--mix", 1, 2, "--give", "A:0-1", "--w_out", kept, "--out", tmp_path)
    assert set(os.listdir(tmp_path)) == {"third.png", "third.npz"}
    a, b = faces.ws([1], 0.7), faces.ws([2], 0.7)
    expected = torch.lerp(a, b, 0.5)
    expected[:, :2] = a[:, :2]
    assert torch.allclose(load_latents(kept, faces.G, 16).ws, expected, atol=1e-6)
    again = ("--w_in", kept, "--singles", "--mix_layers", "0", "--out", tmp_path / "again")
    draw(snapshot, *again, "--w_out", tmp_path / "copy.npz")
    assert (tmp_path / "copy.npz").read_bytes() == kept.read_bytes()
    third = load_latents(kept, faces.G, 16)
    shown = faces.render(third.ws, third.noise)[0].permute(1, 2, 0).numpy()
    assert (pixels(tmp_path / "again" / "face0000.png") == shown).all()


def test_the_sheet_of_two_begins_and_ends_with_the_pure_faces(
    snapshot: Path, faces: Faces, tmp_path: Path
) -> None:
    draw(snapshot, "--mix", 1, 1, "--out", tmp_path)
    same = pixels(tmp_path / "crossover.png")
    draw(snapshot, "--mix", 1, 2, "--out", tmp_path)
    mixed = pixels(tmp_path / "crossover.png")
    assert same.shape == mixed.shape
    assert os.listdir(tmp_path) == ["crossover.png"]
    differs = (same != mixed).any(axis=2)
    cells = differs[:, differs.shape[1] - 12 - 7 * 100 : -12]
    columns = [cells[:, i * 100 : i * 100 + 96].any() for i in range(7)]
    assert all(columns)
    black = (mixed[:-40] == (0, 0, 4)).all(axis=2)  # nothing has changed in the first column
    assert black[:, differs.shape[1] - 12 - 696 : differs.shape[1] - 12 - 600].sum() == 2 * 96**2


def test_directions_are_the_axes_along_which_styles_change_most(faces: Faces) -> None:
    found = factorise(faces).double()
    assert torch.allclose(found @ found.T, torch.eye(16, dtype=torch.float64), atol=1e-5)
    styles = [layer.style.effective_weight().double() for layer in faces.G.synthesis.layers]
    changes = torch.stack([torch.cat([s @ n for s in styles]).norm() for n in found])
    assert (changes[:-1] >= changes[1:] - 1e-6).all()
    rng = torch.Generator().manual_seed(0)
    for _ in range(50):
        other = torch.randn(16, generator=rng, dtype=torch.float64)
        change = torch.cat([s @ (other / other.norm()) for s in styles]).norm()
        assert changes[-1] - 1e-6 <= change <= changes[0] + 1e-6


def test_strength_counts_standard_deviations_and_none_changes_nothing(faces: Faces) -> None:
    ws, direction = faces.ws([3], 0.7), factorise(faces)[2]
    there = move_along(faces, ws, direction, [-2.0, 0.0, 1.0])
    assert torch.equal(there[1:2], ws)
    assert (there[2] - ws[0])[0].norm().item() == pytest.approx(faces.w_std().item(), rel=1e-3)
    assert torch.allclose(there[0] - ws[0], -2 * (there[2] - ws[0]), atol=1e-5)


def test_both_sheets_of_directions_are_drawn_alone(snapshot: Path, tmp_path: Path) -> None:
    draw(snapshot, "--directions", "--seeds", "4-9", "--out", tmp_path)
    draw(snapshot, "--direction", 3, "--strength=-1..1", "--seeds", 4, "--out", tmp_path)
    assert set(os.listdir(tmp_path)) == {"directions.png", "direction_3.png"}
    assert pixels(tmp_path / "directions.png").shape[1] > 15 * 96
    assert 9 * 96 < pixels(tmp_path / "direction_3.png").shape[1] < 11 * 100


@pytest.mark.parametrize(
    "flags",
    [
        ("--mix", "1"),
        ("--mix", "1", "photo.jpg"),
        ("--mix", "1", "2", "3"),
        ("--mix", "1", "2", "--directions"),
        ("--mix", "1", "2", "--give", "A-coarse"),
        ("--mix", "1", "2", "--give", "A:coarse=2"),
        ("--mix", "1", "2", "--give", "A:eyes"),
        ("--mix", "1", "2", "--give", "A:coarse=1 B:coarse=1"),
        ("--mix", "1", "2", "--give", "A:40"),
        ("--mix", "1", "2", "--w_out", "x.npz"),
        ("--give", "A:coarse"),
        ("--direction", "10"),
        ("--direction", "1", "--strength", "4"),
        ("--w_in", "a.npz", "--seeds", "3"),
        ("--w_out", "w.pt"),
    ],
)
def test_flags_that_make_no_sense_are_one_line(
    snapshot: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    refused(capsys, 2, snapshot, *flags)


def test_styles_of_another_generator_are_one_line(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make(tmp_path / "other.pt", seed=1)
    draw(other, "--seeds", 0, "--mix_seeds", 0, 1, "--w_out", tmp_path / "w.npz")
    capsys.readouterr()
    for flags in (("--w_in", tmp_path / "w.npz"), ("--mix", tmp_path / "w.npz", 2)):
        assert "another generator" in refused(capsys, 1, snapshot, *flags)
    assert "neither a seed nor" in refused(capsys, 2, snapshot, "--mix", 1, tmp_path / "none.npz")
