"""project.py: photos in, styles that show them out, and one line for what cannot be."""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import checkpoint
import command_line
import project
import projection
from growth import Stage
from images import to_float
from latents import load_latents
from model import Discriminator, Generator, ModelConfig
from projection import Projector, as_trained, pyramid_error, rate
from sampling import Faces, load_faces

CPU = torch.device("cpu")
CONFIG = ModelConfig(16, 0.03, z_dim=16, w_dim=16, mapping_layers=2)
QUICK = ("--steps", 3, "--precision", "fp32")


@pytest.fixture(autouse=True)
def _quick_and_quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(projection, "SAMPLES", 8)
    before = {number: signal.getsignal(number) for number in command_line.EXIT_CODES}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def make(path: Path, with_d: bool = True, **entries: object) -> Path:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        G, D = Generator(CONFIG), Discriminator(CONFIG)
        for layer in G.synthesis.layers:
            layer.noise_strength.normal_(0, 1 / layer.noise_scale)
    d = {"D": D.state_dict()} if with_d else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, CONFIG, {"G_ema": G.state_dict(), **d, **entries})
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a full state."""
    folder = tmp_path_factory.mktemp("run")
    make(folder / "latest.pt")
    return folder


@pytest.fixture
def faces(run: Path) -> Faces:
    return load_faces(run, CPU, print)[0]


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / "photos" / "one.jpg", tmp_path / "photos" / "two.heic"]
    paths[0].parent.mkdir()
    for path, kind in zip(paths, ("JPEG", "PNG"), strict=True):
        pixels = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((60, 40)).save(path, kind)
    return paths


def call(*args: object) -> None:
    project.main([str(arg) for arg in args])


def refused(capsys: pytest.CaptureFixture[str], code: int, *args: object) -> str:
    with pytest.raises(SystemExit) as end:
        call(*args)
    said = capsys.readouterr().err
    assert end.value.code == code, said
    assert said.startswith("project.py: error: ")
    assert said.count("\n") == 1
    return said


def test_photos_become_styles_a_sheet_and_a_film(
    run: Path, photos: list[Path], faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    call(*photos, run, *QUICK)
    out = run / "projected"
    names = {"one.npz", "two.npz", "projection.png", "projection.webp"}
    assert set(os.listdir(out)) == names
    told = capsys.readouterr()
    assert told.err == ""
    assert [line.split(": ")[0] for line in told.out.splitlines()] == [
        str(out / name) for name in ("one.npz", "two.npz", "projection.png", "projection.webp")
    ]
    assert "dB" in told.out
    assert load_latents(out / "one.npz", faces.G, 16).ws.shape == (1, 6, 16)
    with Image.open(out / "projection.webp") as film:
        assert getattr(film, "n_frames", 1) == 4
    with Image.open(out / "projection.png") as sheet:
        assert sheet.width > 3 * 96


def test_the_same_seed_is_the_same_projection(
    run: Path, photos: list[Path], tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 99)):
        call(photos[0], run, *QUICK, "--seed", seed, "--out", tmp_path / name)
    a, b, c = ((tmp_path / name / "one.npz").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_photos_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    paths = [Path(folder, "me.jpg") for folder in ("a", "b", "c")]
    assert project.unique_names(paths) == ["me", "me_2", "me_3"]
    assert project.unique_names([Path("me_2.jpg"), *paths[:2]]) == ["me_2", "me", "me_3"]


def test_a_face_of_the_generator_is_found_again(faces: Faces) -> None:
    target = to_float(faces.render(faces.ws([20], 0.7), [0 * n for n in faces.noise([0])]))
    projector = Projector(faces, None, 60, torch.float32)
    counts = []
    found = projector.project(target, 0, counts.append)
    errors = [pyramid_error(to_float(step), target).item() for step in found.way]
    assert counts == [1] * 60
    assert errors[-1] < 0.3 * errors[0]
    shown = faces.render(found.latents.ws, found.latents.noise)
    assert torch.equal(shown, found.way[-1])


def test_it_begins_with_the_best_of_the_samples(faces: Faces) -> None:
    samples = faces.render(faces.ws(range(8), 0.7), faces.noise([0]))
    target = to_float(samples[5:6])
    found = Projector(faces, None, 1, torch.float32).project(target, 0)
    begun = faces.render(faces.ws([5], 0.7), [0 * n for n in faces.noise([0])])
    assert (found.way[0].int() - begun.int()).abs().max() <= 1


def test_a_photo_is_projected_alike_whatever_is_projected_with_it(faces: Faces) -> None:
    D = Discriminator(CONFIG)
    targets = to_float(faces.render(faces.ws([20, 21, 22], 1.0), faces.noise([5])))
    projector = Projector(faces, D, 3, torch.float32)
    together = projector.project(targets, 0).way[-1]
    alone = projector.project(targets[1:2], 0).way[-1]
    assert (together[1:2].int() - alone.int()).abs().float().mean() < 1  # but for rounding
    assert (together[1:2].int() - together[:1].int()).abs().float().mean() > 5


def test_the_discriminator_has_a_say(faces: Faces) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        D = Discriminator(CONFIG)
    target = to_float(faces.render(faces.ws([20], 1.0), faces.noise([5])))
    seen, unseen = (Projector(faces, d, 3, torch.float32).project(target, 0) for d in (D, None))
    assert not torch.equal(seen.latents.ws, unseen.latents.ws)
    assert all(p.grad is None for p in [*D.parameters(), *faces.G.parameters()])


def test_the_pyramid_sums_the_errors_of_all_sizes() -> None:
    a = torch.zeros(1, 3, 8, 8)
    b = torch.ones(1, 3, 8, 8)
    assert pyramid_error(a, b).tolist() == [2]  # 8 and 4 px
    checks = torch.tensor([1.0, -1.0]).repeat(4)
    b = (checks[:, None] * checks).expand(1, 3, 8, 8)
    assert pyramid_error(a, b).tolist() == [1]  # its means are the same: only 8 px sees it


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [rate(step / 100) for step in range(100)]
    peak = rates.index(max(rates))
    assert 3 <= peak <= 6
    assert all(a < b for a, b in itertools.pairwise(rates[:peak]))
    assert all(a > b for a, b in itertools.pairwise(rates[peak:]))
    assert rates[-1] < 0.001


def test_while_a_resolution_fades_in_photos_are_faded_too(run: Path) -> None:
    faces = load_faces(run, CPU, print)[0]
    photos = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    faces.stage = Stage(8, 0.25)
    seen = as_trained(photos, faces)
    assert seen.shape == (1, 3, 8, 8)
    assert torch.allclose(seen.mean(), to_float(photos).mean(), atol=1e-5)
    assert seen.std() < to_float(photos).std() / 2


def test_without_a_discriminator_pixels_must_do(
    tmp_path: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = make(tmp_path / "run" / "snapshots" / "000001.pt", with_d=False)
    call(photos[0], snapshot, *QUICK)
    assert "no discriminator; pixels alone" in capsys.readouterr().err
    assert (tmp_path / "run" / "projected" / "one.npz").exists()


def test_what_is_no_photo_is_one_line_and_nothing_is_written(
    run: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (tmp_path / "text.jpg").write_text("no photo")
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    for name, reason in (
        ("text.jpg", "not an image"),
        ("small.png", "too small"),
        ("none.png", "cannot be read"),
        (".", "not a regular file"),
    ):
        said = refused(capsys, 1, photos[0], tmp_path / name, run, *QUICK, "--out", out)
        assert reason in said
        assert str(tmp_path / name) in said
    assert not out.exists()


def test_usage_errors_and_wrong_checkpoints_are_one_line(
    run: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, 2, run)
    refused(capsys, 2, photos[0], run, "--steps", 0)
    refused(capsys, 1, run, photos[0])
    refused(capsys, 1, photos[0], tmp_path)
    broken = make(tmp_path / "broken.pt", D={"conv.weight": torch.zeros(1)})
    assert "in this model" in refused(capsys, 1, photos[0], broken, *QUICK)
