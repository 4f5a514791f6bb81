"""experiments.two_faces: the reader of drawn factors, and what is computed from its readings."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from checkpoints import checkpoint
from common.cli import UserError
from experiments import factors
from experiments.factors import (
    COLUMNS,
    DrawnFaces,
    Reader,
    ReaderScore,
    Shares,
    agreement,
    augment,
    columns_of,
    fit_shares,
    score_reader,
    span,
    train_reader,
)
from experiments.third_faces import FactorResult, cell, compare, read_faces, table
from experiments.two_faces import parse_args
from model import Generator, ModelConfig
from tests.support.faces import ROOT, draw_faces

FACTORS = (*COLUMNS, "picture")
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


def test_shares_are_what_the_third_faces_were_mixed_of() -> None:
    rng = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 4000, 3, generator=rng)
    from_a, from_b = torch.tensor([0.0, 0.1, 0.6, 0.9]), torch.tensor([1.0, 0.9, 0.2, 0.1])
    noise = 0.5 * torch.randn(4, 4000, 3, generator=rng)
    thirds = from_a[:, None, None] * a + from_b[:, None, None] * b + noise + 7
    found = fit_shares(a + 5, b - 2, thirds, samples=200, seed=0)
    torch.testing.assert_close(found.a, from_a.double(), atol=0.03, rtol=0)
    torch.testing.assert_close(found.b, from_b.double(), atol=0.03, rtol=0)
    expected = 1.96 * 0.5 / (3 * 4000) ** 0.5  # of a slope on 12,000 numbers with that noise
    torch.testing.assert_close(
        found.half_width, torch.full_like(found.half_width, expected), atol=0, rtol=0.3
    )


def test_shares_of_correlated_columns_have_wider_intervals() -> None:
    rng = torch.Generator().manual_seed(1)
    a, b, noise = torch.randn(3, 400, 1, generator=rng)
    thirds = (a + b + noise)[None]
    alone = fit_shares(a, b, thirds, samples=200, seed=0)
    a, b, thirds = (part.repeat_interleave(9, -1) for part in (a, b, thirds))
    repeated = fit_shares(a, b, thirds, samples=200, seed=0)
    torch.testing.assert_close(repeated, alone)  # nine copies of a number say no more than one


def test_agreement_is_the_correlation_about_each_mean() -> None:
    one = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0]])
    assert agreement(one, 3 * one + 4) == pytest.approx(1)
    assert agreement(one, -one) == pytest.approx(-1)
    assert agreement(one, torch.ones(3, 2)) == 0


def test_a_mirrored_face_looks_the_other_way_and_is_otherwise_the_same() -> None:
    torch.manual_seed(0)
    reader = Reader()
    reader.mean.fill_(0.3)
    reader.std.fill_(2.0)
    x = torch.linspace(-1, 1, 64).expand(64, 3, 64, 64)
    y = torch.full((64, len(reader.mean)), 0.35)  # 1.0 in its own unit
    images, targets = augment(x, y, reader)
    mirrored = images[:, :, :, 0].mean((1, 2)) > 0
    assert 10 < mirrored.sum() < 54
    pose = targets[:, span("pose")].flatten() * 2 + 0.3
    torch.testing.assert_close(pose, torch.where(mirrored, -1.0, 1.0))
    others = [column for column in range(len(reader.mean)) if column != span("pose").start]
    assert torch.equal(targets[:, others], y[:, others])


@pytest.mark.slow
def test_the_reader_learns_what_is_visible_and_scores_low_on_what_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(factors, "BATCH", 8)
    rng = torch.Generator().manual_seed(2)
    values = torch.rand(180, sum(COLUMNS.values()), generator=rng)
    colours = values[:, span("background"), None, None].expand(-1, -1, 64, 64)
    drawn = DrawnFaces((255 * colours).byte(), values)
    train_set, test_set = drawn.select(torch.arange(120)), drawn.select(torch.arange(120, 180))
    scores = score_reader(train_reader(train_set, 4, seed=0), test_set)
    assert scores["background"].r2 > 0.8
    assert scores["background"].std == pytest.approx(12**-0.5, rel=0.1)
    assert scores["background"].error < 0.45 * scores["background"].std
    assert scores["age"].r2 < 0.2


def test_a_factor_that_does_not_vary_has_no_r2() -> None:
    drawn = DrawnFaces(torch.zeros(8, 3, 64, 64).byte(), torch.ones(8, sum(COLUMNS.values())))
    torch.manual_seed(0)
    hat = score_reader(Reader(), drawn)["hat"]
    assert hat.std == 0
    assert math.isnan(hat.r2)


def test_a_factor_is_visible_if_it_varies_and_two_readers_agree() -> None:
    shares = Shares(*(torch.tensor([0.25]) for _ in range(3)))
    score = ReaderScore(r2=0.9, error=0.1, std=0.3)
    assert FactorResult(score, 0.11, 0.71, shares).is_visible
    assert not FactorResult(score, 0.09, 0.71, shares).is_visible
    assert not FactorResult(score, 0.11, 0.69, shares).is_visible
    assert cell(FactorResult(score, 0.09, 0.71, shares), 1) == "-"
    assert cell(FactorResult(score, 0.11, 0.71, shares), 1) == "25 ± 25, 25"


def test_a_table_has_a_row_for_each_factor_and_a_dash_for_what_is_not_known() -> None:
    shares = Shares(*(torch.full((9,), 0.25) for _ in range(3)))
    hat = FactorResult(ReaderScore(math.nan, 0.1, 0.0), 0.09, 0.2, shares)
    lines = table("run", {"hat": hat, "picture": FactorResult(None, 32.4, 1.0, shares)})
    head, _, *rows = lines.splitlines()
    assert head.endswith("| agreement | to 4 px | to 8 px | to 16 px | to 32 px |")
    assert rows[0] == "| hat | - | 0.1 | 0 | 0.09 | 0.20 | - | - | - | - |"
    assert rows[1] == "| picture | - | - | - | 32 | 1.00" + " | 25 ± 25, 25" * 4 + " |"


@pytest.mark.slow
def test_two_runs_get_a_table_each_measured_on_their_own_sets_and_a_heat_map_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ModelConfig(64, 0.03, z_dim=16, w_dim=16, mapping_layers=2)
    torch.manual_seed(0)
    for name in ("one", "other"):
        entries = {"G_ema": Generator(config).state_dict(), "iteration": 0}
        checkpoint.save(tmp_path / f"{name}.pt", config, entries)
    drawn = draw_faces(tmp_path / "faces", 40)
    runs = [f"young={tmp_path / 'one.pt'}", str(tmp_path / "other.pt")]
    flags = ["--pairs", "12", "--epochs", "1", "--out", str(tmp_path / "out")]
    compare(parse_args([str(drawn), *runs, *flags]))
    text = (tmp_path / "out" / "two_faces.md").read_text()
    assert text in capsys.readouterr().out + "\n"
    tables = text.split("| other.pt |")
    assert tables[0].startswith("| one.pt | R² | error | drawn spread | its spread | agreement |")
    for part in tables:
        rows = [line.split(" | ") for line in part.splitlines() if line[2:].startswith(FACTORS)]
        assert [row[0][2:] for row in rows] == list(FACTORS)
    spreads = [re.search(r"\| background \| \S+ \| \S+ \| (\S+) \|", part) for part in tables]
    young, mixed = (float(found[1]) for found in spreads if found)
    assert young == 0  # the background of all young faces is white
    assert mixed > 0
    with Image.open(tmp_path / "out" / "two_faces.png") as heat:
        assert heat.width > 2 * heat.height


def test_a_table_of_another_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text("file,age\n1.jpg,30\n")
    with pytest.raises(UserError, match=r"faces\.csv: no such table"):
        read_faces(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detect", "own_photos", "two_faces"])
def test_a_missing_checkpoint_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    paths = [str(tmp_path / "faces"), "none.pt"][:: 1 if name == "two_faces" else -1]
    command = [sys.executable, "-m", f"experiments.{name}", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(rf"{name}: error: .*\n", done.stderr)


def test_help_needs_no_torch() -> None:
    code = "import sys; from experiments import detect, own_photos, two_faces; "
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
