"""The experiments: the reader of drawn factors, and what is computed from its readings."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import checkpoint
from experiments.factors import (
    COLUMNS,
    Drawn,
    Reader,
    columns_of,
    examine,
    half_interval,
    layer_shares,
    span,
    train_reader,
    worn,
)
from model import Generator, ModelConfig

ROOT = Path(__file__).parent.parent
ROW = {
    "file": "old/000001.jpg", "set": "old", "age": "61", "skin": "0.7", "hair": "#ff0033",
    "hair_style": "bob", "pose": "-0.4", "glasses": "1", "hat": "0", "smile": "0.25",
    "background": "#00ff00",
}  # fmt: skip


def test_a_row_of_the_table_becomes_columns() -> None:
    columns = torch.tensor(columns_of(ROW))
    assert len(columns) == sum(COLUMNS.values())
    found = {factor: columns[span(factor)].tolist() for factor in COLUMNS}
    assert found["background"] == [0, 1, 0]
    assert found["hair colour"] == pytest.approx([1, 0, 0.2])
    assert (found["age"], found["long hair"], found["glasses"]) == ([61], [1], [1])
    assert (found["pose"], found["smile"]) == (pytest.approx([-0.4]), [0.25])


def test_shares_are_what_the_third_faces_were_made_of() -> None:
    rng = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 4000, 3, generator=rng)
    given = torch.tensor([0.1, 0.0, 0.5, 0.3])  # by layer; what is left by the last one
    alphas = given.cumsum(0)
    noise = 0.5 * torch.randn(4, 4000, 3, generator=rng)
    thirds = alphas[:, None, None] * a + (1 - alphas)[:, None, None] * b + noise + 7
    thirds = torch.cat([thirds, a[None] + 7])  # the sixth layer's border
    shares = layer_shares(a, b, thirds)
    assert shares.sum().item() == pytest.approx(1)
    torch.testing.assert_close(shares[:4], given.double(), atol=0.03, rtol=0)
    half = half_interval(a, b, thirds, samples=100, seed=0)
    assert half.shape == (3,)
    assert 0.005 < half.max() < 0.04


def test_a_mirrored_face_looks_the_other_way_and_is_else_the_same() -> None:
    torch.manual_seed(0)
    reader = Reader()
    reader.mean.fill_(0.3)
    reader.spread.fill_(2.0)
    x = torch.linspace(-1, 1, 64).expand(64, 3, 64, 64)
    y = torch.full((64, len(reader.mean)), 0.35)  # 1.0 in its own unit
    seen, told = worn(x, y, reader)
    mirrored = seen[:, :, :, 0].mean((1, 2)) > 0
    assert 10 < mirrored.sum() < 54
    pose = told[:, span("pose")].flatten() * 2 + 0.3
    torch.testing.assert_close(pose, torch.where(mirrored, -1.0, 1.0))
    others = [column for column in range(len(reader.mean)) if column != span("pose").start]
    assert torch.equal(told[:, others], y[:, others])


def test_the_reader_learns_what_can_be_seen_and_owns_to_what_cannot() -> None:
    rng = torch.Generator().manual_seed(2)
    factors = torch.rand(400, sum(COLUMNS.values()), generator=rng)
    colours = factors[:, span("background"), None, None].expand(-1, -1, 64, 64)
    drawn = Drawn((255 * colours).byte(), factors)
    learned, unseen = (
        Drawn(*(part[rows] for part in drawn)) for rows in (range(320), range(320, 400))
    )
    found = examine(train_reader(learned, 6, seed=0), unseen)
    assert found["background"].explained > 0.9
    assert found["background"].error < 0.08
    assert found["age"].explained < 0.2


def test_the_command_writes_a_table_with_a_row_for_each_factor(tmp_path: Path) -> None:
    draw = [str(ROOT / "demo" / "draw_faces.py"), str(tmp_path / "faces")]
    subprocess.run([sys.executable, *draw, "--count", "40", "--size", "64"], check=True)
    config = ModelConfig(64, 0.03, z_dim=16, w_dim=16, mapping_layers=2)
    torch.manual_seed(0)
    for name in ("one", "other"):
        entries = {"G_ema": Generator(config).state_dict(), "iteration": 0}
        checkpoint.save(tmp_path / f"{name}.pt", config, entries)
    command = [sys.executable, "-m", "experiments.two_faces", str(tmp_path / "faces")]
    command += [str(tmp_path / "one.pt"), str(tmp_path / "other.pt"), "--pairs", "12"]
    command += ["--epochs", "1", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    text = (tmp_path / "out" / "two_faces.md").read_text()
    assert text in done.stdout + "\n"
    for name in ("one.pt", "other.pt"):
        assert f"| {name} | reader: R² | error | spread | 4 px | 8 px |" in text
    rows = [line for line in text.splitlines() if line.split(" | ")[0][2:] in COLUMNS]
    assert len(rows) == 2 * len(COLUMNS)
    missing = subprocess.run([*command[:4], "none.pt"], cwd=ROOT, capture_output=True, text=True)
    assert missing.returncode == 1
    assert missing.stderr.startswith("two_faces: error: none.pt")
    assert len(missing.stderr.splitlines()) == 1
