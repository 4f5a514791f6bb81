"""generate.py --mix, --give, --directions, --w_in and --w_out as their user meets them."""

import contextlib
import os
import subprocess
import termios
from pathlib import Path

import pytest
import torch

import generate
import project
from common.device import dtype_of_pictures
from sampling import projector
from sampling.latents import load_latents
from sampling.sampler import Faces, load_faces
from tests.support.generators import CPU, call, error_of, photo, pixels, save_generator
from tests.support.run import ENV, SECONDS, command


@pytest.fixture(autouse=True)
def _quick_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "SAMPLES", 8)
    monkeypatch.setattr("outputs.pictures.STEPS", 3)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_generator(tmp_path_factory.mktemp("mixing") / "snapshot.pt")


@pytest.fixture(scope="module")
def faces(snapshot: Path) -> Faces:
    """The generator as generate.py uses it here."""
    faces = load_faces(snapshot, CPU, pytest.fail).faces
    faces.dtype = dtype_of_pictures("auto", CPU)
    return faces


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [photo(tmp_path / "photos" / name, seed) for seed, name in enumerate(("a.jpg", "b.jpg"))]


def draw(*args: object) -> None:
    call(generate.main, *args)


def refused(capsys: pytest.CaptureFixture[str], code: int, *args: object) -> str:
    return error_of(generate.main, capsys, code, *args)


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


def test_the_sheet_of_two_starts_and_ends_with_the_pure_faces(
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


def test_both_sheets_of_directions_are_drawn_alone(snapshot: Path, tmp_path: Path) -> None:
    draw(snapshot, "--directions", "--seeds", "4-5", "--out", tmp_path)
    draw(snapshot, "--direction", 3, "--strength=-1..1", "--seeds", 4, "--out", tmp_path)
    assert set(os.listdir(tmp_path)) == {"directions.png", "direction_3.png"}
    assert pixels(tmp_path / "directions.png").shape[1] > 10 * 96
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
    other = save_generator(tmp_path / "other.pt", seed=1)
    draw(other, "--seeds", 0, "--mix_seeds", 0, 1, "--w_out", tmp_path / "w.npz")
    capsys.readouterr()
    for flags in (("--w_in", tmp_path / "w.npz"), ("--mix", tmp_path / "w.npz", 2)):
        assert "another generator" in refused(capsys, 1, snapshot, *flags)
    assert "neither a seed nor" in refused(capsys, 2, snapshot, "--mix", 1, tmp_path / "none.npz")


def test_a_photo_is_mixed_with_the_styles_that_project_finds(
    snapshot: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, a, b = (tmp_path / name for name in ("own", "a", "b"))
    call(project.main, photos[0], snapshot, "--steps", 3, "--out", own)
    ratio = capsys.readouterr().out.split("PSNR ")[1].split(" dB")[0]
    draw(snapshot, "--mix", 5, photos[0], "--out", a)
    assert set(os.listdir(a)) == {"crossover.png", "a.npz"}
    assert (a / "a.npz").read_bytes() == (own / "a.npz").read_bytes()
    shown = capsys.readouterr()
    (line,) = [line for line in shown.out.splitlines() if line.startswith(str(a / "a.npz"))]
    assert ratio in line
    assert "--mix with this file" in line
    assert "no discriminator; only pixels" in shown.err
    draw(snapshot, "--mix", 5, a / "a.npz", "--out", b)
    assert os.listdir(b) == ["crossover.png"]
    assert "PSNR" not in capsys.readouterr().out
    assert (b / "crossover.png").read_bytes() == (a / "crossover.png").read_bytes()


def test_each_photo_is_projected_once_and_kept_under_a_name_of_its_own(
    snapshot: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = photo(tmp_path / "other" / "a.png", 2)
    again = f"{photos[0].parent}/./{photos[0].name}"
    given = ("--give", "A:coarse B:middle", "--w_out", tmp_path / "third.npz")
    draw(snapshot, "--mix", photos[0], 7, again, other, *given, "--out", tmp_path / "out")
    assert set(os.listdir(tmp_path / "out")) == {"third.png", "a.npz", "a_2.npz"}
    assert capsys.readouterr().out.count("PSNR") == 2
    kept = [(tmp_path / "out" / name).read_bytes() for name in ("a.npz", "a_2.npz")]
    assert kept[0] != kept[1]


def test_what_is_not_a_face_is_one_line_before_any_search(
    snapshot: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
        flags = ("--mix", photos[0], *sides, "--out", out)
        assert reason in refused(capsys, code, snapshot, *flags)
    assert not out.exists()


@pytest.mark.slow
def test_a_bar_shows_how_far_the_search_is(
    snapshot: Path, photos: list[Path], tmp_path: Path
) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    argv = command("generate.py", snapshot, "--mix", 1, photos[0], "--out", tmp_path / "out")
    with open(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=theirs, env=ENV)
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # how Linux says that nobody writes any more
            while piece := terminal.read(4096):
                said += piece
        assert process.wait(SECONDS) == 0
    assert b"/100 [" in said
