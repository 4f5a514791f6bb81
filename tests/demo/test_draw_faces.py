"""demo/draw_faces.py: the table, the pictures and how its factors show."""

import csv
import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

DEMO = Path(__file__).parents[2] / "demo"
COLUMNS = "file,set,age,skin,hair,hair_style,pose,glasses,hat,smile,background"
EYES, MOUTH = slice(27, 36), slice(42, 53)  # rows of a 64 px picture


def run(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO / "draw_faces.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("faces") / "one"
    done = run(out, "--count", 6, "--size", 64, "--workers", 1)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DEMO)
    return importlib.import_module("draw_faces")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def change(module: ModuleType, face: object, **factors: object) -> np.ndarray:
    """Return how much each pixel of a face changes when these factors do."""
    before, after = (
        np.asarray(module.draw(f, 64)).astype(int)
        for f in (face, replace(face, **factors))  # type: ignore[type-var]
    )
    return np.abs(after - before).max(2)


def test_the_table_lists_every_picture_and_its_factors(drawn: Path) -> None:
    lines = (drawn / "faces.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    assert lines[0] == COLUMNS
    assert [row["set"] for row in rows] == ["young"] * 6 + ["old"] * 6
    assert {row["file"] for row in rows} == {
        str(p.relative_to(drawn)) for p in drawn.glob("*/*.jpg")
    }
    for row in rows:
        low, high = (18, 24) if row["set"] == "young" else (56, 85)
        assert low <= int(row["age"]) <= high
        assert 0 <= float(row["skin"]) <= 1
        assert -1 <= float(row["pose"]) <= 1
        assert pixels(drawn / row["file"]).shape == (64, 64, 3)


def test_the_number_of_workers_changes_nothing(drawn: Path, tmp_path: Path) -> None:
    assert run(tmp_path, "--count", 6, "--size", 64, "--workers", 2).returncode == 0
    files = [p.relative_to(drawn) for p in drawn.rglob("*.*")]
    assert len(files) == 13
    assert all((drawn / f).read_bytes() == (tmp_path / f).read_bytes() for f in files)


def test_young_faces_have_a_white_background(drawn: Path) -> None:
    for path in (drawn / "young").iterdir():
        assert pixels(path)[:4, [0, 1, 2, -3, -2, -1]].min() > 250


def test_the_same_faces_are_kept_and_others_refused(drawn: Path) -> None:
    again = run(drawn, "--count", 6, "--size", 64)
    assert again.returncode == 0
    assert again.stdout.startswith("reused")
    other = run(drawn, "--count", 6, "--size", 64, "--seed", 1)
    assert other.returncode == 1
    assert other.stderr.startswith("draw_faces.py: error:")
    assert other.stderr.count("\n") == 1


def test_a_wrong_flag_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = run(tmp_path, "--count", 0)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--count" in done.stderr


def test_glasses_smile_and_hat_show_where_they_belong(module: ModuleType) -> None:
    face = replace(module.sample(0, "old", 0), pose=0.0, glasses=0, hat=0, smile=0.0)
    glasses = change(module, face, glasses=1)
    assert glasses[EYES].mean() > 5
    assert glasses[MOUTH].max() <= 2
    smile = change(module, face, smile=0.9)
    assert smile[MOUTH, 22:42].mean() > 5
    assert smile[:18].max() <= 2
    hat = change(module, face, hat=1)
    assert hat[:18, 20:44].mean() > 20
    assert hat[MOUTH].max() <= 2


@pytest.mark.parametrize(
    "factors",
    [
        {"age": 85},
        {"skin": 0.2},
        {"hair": "#101010"},
        {"hair_style": "bob"},
        {"pose": 0.8},
        {"background": "#4040f0"},
    ],
)
def test_every_other_factor_shows(module: ModuleType, factors: dict[str, object]) -> None:
    face = replace(
        module.sample(0, "old", 0),
        age=56,
        skin=0.9,
        hair="#e0e0e0",
        hair_style="short",
        pose=0.0,
        background="#80a040",
    )
    assert np.sort(change(module, face, **factors), axis=None)[-150:].min() > 10
