"""project.py: photos in, styles that show them out, and one line for what cannot be."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import project
from checkpoints import checkpoint
from common import cli
from common.images import to_float
from critic import Discriminator
from model import Generator, ModelConfig, Stage
from sampling import projector
from sampling.latents import load_latents, unique_names
from sampling.projector import Projector, as_trained, pyramid_error, rate
from sampling.sampler import Faces, load_faces
from tests.support.run import ENV, SECONDS, Ended, command, fork

CPU = torch.device("cpu")
CONFIG = ModelConfig(16, 0.03, z_dim=16, w_dim=16, mapping_layers=2)
QUICK = ("--steps", 3, "--precision", "fp32")


@pytest.fixture(autouse=True)
def _quick_and_quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(projector, "SAMPLES", 8)
    before = {number: signal.getsignal(number) for number in cli.EXIT_CODES}
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
    assert unique_names(paths) == ["me", "me_2", "me_3"]
    assert unique_names([Path("me_2.jpg"), *paths[:2]]) == ["me_2", "me", "me_3"]


def test_a_face_of_the_generator_is_found_again(faces: Faces) -> None:
    target = to_float(faces.render(faces.ws([20], 0.7), [0 * n for n in faces.noise([0])]))
    projector = Projector(faces, None, 60, torch.float32)
    counts = []
    found = projector.project(target, 0, counts.append)
    errors = [pyramid_error(to_float(step), target).item() for step in found.frames]
    assert counts == [1] * 60
    assert errors[-1] < 0.3 * errors[0]
    shown = faces.render(found.latents.ws, found.latents.noise)
    assert torch.equal(shown, found.frames[-1])


def test_it_begins_with_the_best_of_the_samples(faces: Faces) -> None:
    samples = faces.render(faces.ws(range(8), 0.7), faces.noise([0]))
    target = to_float(samples[5:6])
    found = Projector(faces, None, 1, torch.float32).project(target, 0)
    begun = faces.render(faces.ws([5], 0.7), [0 * n for n in faces.noise([0])])
    assert (found.frames[0].int() - begun.int()).abs().max() <= 1


def test_a_photo_is_projected_alike_whatever_is_projected_with_it(faces: Faces) -> None:
    D = Discriminator(CONFIG)
    targets = to_float(faces.render(faces.ws([20, 21, 22], 1.0), faces.noise([5])))
    projector = Projector(faces, D, 3, torch.float32)
    together = projector.project(targets, 0).frames[-1]
    alone = projector.project(targets[1:2], 0).frames[-1]
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
    assert "no discriminator; only pixels" in capsys.readouterr().err
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


def test_photos_are_prepared_by_the_recipe_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    make(run / "latest.pt")
    photo = tmp_path / "photo.png"
    Image.effect_noise((64, 64), 64).save(photo)
    kept = []
    for i, recipe in enumerate([{}, {"quality": 1}, {"min_size": 80}]):
        (run / "config.json").write_text(json.dumps({"phase": 80, "recipe": recipe}))
        out = tmp_path / str(i)
        if "min_size" in recipe:
            assert "too small: 64 x 64 px" in refused(capsys, 1, photo, run, *QUICK, "--out", out)
        else:
            call(photo, run, *QUICK, "--out", out)
            kept.append((out / "photo.npz").read_bytes())
    assert kept[0] != kept[1]


def test_usage_errors_and_wrong_checkpoints_are_one_line(
    run: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, 2, run)
    refused(capsys, 2, photos[0], run, "--steps", 0)
    refused(capsys, 1, run, photos[0])
    refused(capsys, 1, photos[0], tmp_path)
    broken = make(tmp_path / "broken.pt", D={"conv.weight": torch.zeros(1)})
    assert "in this model" in refused(capsys, 1, photos[0], broken, *QUICK)


def mix(run: Path, *sides: object) -> Ended:
    return fork("generate.py", run, "--mix", *sides)


def test_a_photo_is_mixed_as_the_styles_that_project_finds(
    run: Path, photos: list[Path], tmp_path: Path
) -> None:
    own, a, b = (tmp_path / name for name in ("own", "a", "b"))
    told = fork("project.py", photos[0], run, "--out", own).succeeded().out
    mixed = mix(run, 5, photos[0], "--out", a).succeeded()
    assert set(os.listdir(a)) == {"crossover.png", "one.npz"}
    assert (a / "one.npz").read_bytes() == (own / "one.npz").read_bytes()
    (line,) = [line for line in mixed.out.splitlines() if line.startswith(str(a / "one.npz"))]
    assert told.split("PSNR ")[1].split(" dB")[0] in line
    assert "--mix" in line  # that takes the file from now on
    again = mix(run, 5, a / "one.npz", "--out", b).succeeded()
    assert os.listdir(b) == ["crossover.png"]
    assert "PSNR" not in again.out
    assert (b / "crossover.png").read_bytes() == (a / "crossover.png").read_bytes()


def test_each_photo_is_projected_once_and_kept_under_a_name_of_its_own(
    run: Path, photos: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "one.png"
    Image.new("RGB", (40, 40), "red").save(other)
    again = photos[0].parent / "." / photos[0].name
    given = ("--give", "A:coarse B:middle", "--w_out", tmp_path / "third.npz")
    sides = (photos[0], 7, str(again), other, *given, "--out", tmp_path / "out")
    told = mix(run, *sides).succeeded().out
    assert set(os.listdir(tmp_path / "out")) == {"third.png", "one.npz", "one_2.npz"}
    assert told.count("PSNR") == 2
    kept = [(tmp_path / "out" / name).read_bytes() for name in ("one.npz", "one_2.npz")]
    assert kept[0] != kept[1]


def test_a_face_that_is_none_is_one_line_before_any_search(
    run: Path, photos: list[Path], tmp_path: Path
) -> None:
    text, styles, out = tmp_path / "text.jpg", tmp_path / "text.npz", tmp_path / "out"
    text.write_text("no photo")
    styles.write_text("no styles")
    for code, sides, reason in (
        (2, ["none.jpg"], "'none.jpg' is neither a seed nor a file"),
        (2, ["none.npz"], "'none.npz' is neither a seed nor a file"),
        (2, ["3.5"], "'3.5' is neither a seed nor a file"),
        (2, [photos[0], "--give", "A:8-9"], "--give 8-9: expected layers within 0-5"),
        (1, [text], f"--mix {text}: not an image"),
        (1, [text], "expected a photo such as a JPEG or PNG, or an .npz file"),
        (1, [tmp_path], f"--mix {tmp_path}: not a regular file"),
        (1, [styles], f"{styles}: damaged or not a file of styles"),
    ):
        ended = mix(run, photos[0], *sides, "--out", out)
        assert reason in ended.failed(code)
        assert len(ended.told) == 1
    assert not out.exists()


def test_photos_are_mixed_without_a_discriminator_too(photos: list[Path], tmp_path: Path) -> None:
    snapshot = make(tmp_path / "snapshot.pt", with_d=False)
    ended = mix(snapshot, 1, photos[0]).succeeded()
    assert "no discriminator; only pixels" in ended.err
    assert set(os.listdir(tmp_path / "generated")) == {"crossover.png", "one.npz"}


def test_a_bar_shows_how_far_the_search_is(run: Path, photos: list[Path], tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    argv = command("generate.py", run, "--mix", 1, photos[0], "--out", tmp_path / "out")
    with open(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=theirs, env=ENV)
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody writes any more
            while piece := terminal.read(4096):
                said += piece
        assert process.wait(SECONDS) == 0
    assert b"/100 [" in said
