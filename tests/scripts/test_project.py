"""project.py as its user meets it: photos in, styles out, or one line for what cannot be used."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

import project
from critic import Discriminator
from sampling import projector
from sampling.latents import load_latents
from sampling.sampler import load_faces
from tests.support.generators import CPU, SMALL, call, error_of, photo, save_generator

QUICK = ("--steps", 3, "--precision", "fp32")


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "SAMPLES", 8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a full state."""
    folder = tmp_path_factory.mktemp("run")
    save_generator(folder / "latest.pt", D=Discriminator(SMALL).state_dict())
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return [
        photo(tmp_path / "photos" / name, seed) for seed, name in enumerate(("a.jpg", "b.heic"))
    ]


def refused(capsys: pytest.CaptureFixture[str], code: int, *args: object) -> str:
    return error_of(project.main, capsys, code, *args)


def test_photos_become_styles_a_sheet_and_a_film(
    run: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    call(project.main, *photos, run, *QUICK)
    out = run / "projected"
    names = ["a.npz", "b.npz", "projection.png", "projection.webp"]
    assert sorted(os.listdir(out)) == names
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(out / name) for name in names]
    assert "dB" in printed.out
    G = load_faces(run, CPU, pytest.fail).faces.G
    assert load_latents(out / "a.npz", G, 16).ws.shape == (1, 6, 16)
    with Image.open(out / "projection.webp") as film:
        assert getattr(film, "n_frames", 1) == 4
    with Image.open(out / "projection.png") as sheet:
        assert sheet.width > 3 * 96


def test_the_same_seed_is_the_same_projection(
    run: Path, photos: list[Path], tmp_path: Path
) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 99)):
        call(project.main, photos[0], run, *QUICK, "--seed", seed, "--out", tmp_path / name)
    one, two, other = ((tmp_path / name / "a.npz").read_bytes() for name in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_without_a_discriminator_only_pixels_are_compared(
    tmp_path: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = save_generator(tmp_path / "run" / "snapshots" / "000001.pt")
    call(project.main, photos[0], snapshot, *QUICK)
    assert "no discriminator; only pixels" in capsys.readouterr().err
    assert (tmp_path / "run" / "projected" / "a.npz").exists()


def test_what_is_not_a_photo_is_one_line_and_nothing_is_written(
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
    save_generator(run / "latest.pt")
    picture = photo(tmp_path / "photo.jpg", size=(64, 64))
    kept = []
    for i, recipe in enumerate([{}, {"quality": 1}, {"min_size": 80}]):
        (run / "config.json").write_text(json.dumps({"phase": 80, "recipe": recipe}))
        out = tmp_path / str(i)
        if "min_size" in recipe:
            assert "too small: 64 x 64 px" in refused(capsys, 1, picture, run, *QUICK, "--out", out)
        else:
            call(project.main, picture, run, *QUICK, "--out", out)
            kept.append((out / "photo.npz").read_bytes())
    assert kept[0] != kept[1]


def test_usage_errors_and_wrong_checkpoints_are_one_line(
    run: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, 2, run)
    refused(capsys, 2, photos[0], run, "--steps", 0)
    refused(capsys, 1, run, photos[0])
    refused(capsys, 1, photos[0], tmp_path)
    broken = save_generator(tmp_path / "broken.pt", D={})
    assert "in this model" in refused(capsys, 1, photos[0], broken, *QUICK)
