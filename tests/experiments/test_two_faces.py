"""The experiments: the reader of drawn factors, and what is computed from its readings."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import checkpoint
from experiments import detect
from experiments.factors import (
    COLUMNS,
    Drawn,
    Origins,
    Reader,
    Reading,
    agreement,
    columns_of,
    examine,
    origins,
    span,
    train_reader,
    worn,
)
from experiments.two_faces import Found, cell
from model import Generator, ModelConfig

ROOT = Path(__file__).parents[2]
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


def test_shares_are_what_the_third_faces_were_made_of() -> None:
    rng = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 4000, 3, generator=rng)
    from_a, from_b = torch.tensor([0.0, 0.1, 0.6, 0.9]), torch.tensor([1.0, 0.9, 0.2, 0.1])
    noise = 0.5 * torch.randn(4, 4000, 3, generator=rng)
    thirds = from_a[:, None, None] * a + from_b[:, None, None] * b + noise + 7
    found = origins(a + 5, b - 2, thirds, samples=200, seed=0)
    torch.testing.assert_close(found.a, from_a.double(), atol=0.03, rtol=0)
    torch.testing.assert_close(found.b, from_b.double(), atol=0.03, rtol=0)
    expected = 1.96 * 0.5 / (3 * 4000) ** 0.5  # of a slope on 12,000 numbers with that noise
    torch.testing.assert_close(found.half, torch.full_like(found.half, expected), atol=0, rtol=0.3)


def test_shares_of_correlated_columns_have_wider_intervals() -> None:
    rng = torch.Generator().manual_seed(1)
    a, b, noise = torch.randn(3, 400, 1, generator=rng)
    thirds = (a + b + noise)[None]
    alone = origins(a, b, thirds, samples=200, seed=0)
    a, b, thirds = (part.repeat_interleave(9, -1) for part in (a, b, thirds))
    repeated = origins(a, b, thirds, samples=200, seed=0)
    torch.testing.assert_close(repeated, alone)  # nine copies of a number tell no more than one


def test_agreement_is_the_correlation_about_each_mean() -> None:
    one = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0]])
    assert agreement(one, 3 * one + 4) == pytest.approx(1)
    assert agreement(one, -one) == pytest.approx(-1)
    assert agreement(one, torch.ones(3, 2)) == 0


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
    assert found["background"].spread == pytest.approx(12**-0.5, rel=0.1)
    assert found["background"].error < 0.3 * found["background"].spread
    assert found["age"].explained < 0.2


def test_what_does_not_vary_has_no_share_that_is_read() -> None:
    drawn = Drawn(torch.zeros(8, 3, 64, 64).byte(), torch.ones(8, sum(COLUMNS.values())))
    torch.manual_seed(0)
    hat = examine(Reader(), drawn)["hat"]
    assert hat.spread == 0
    assert math.isnan(hat.explained)


def test_a_factor_is_seen_if_it_varies_and_two_readers_agree() -> None:
    shares = Origins(*(torch.tensor([0.25]) for _ in range(3)))
    reading = Reading(explained=0.9, error=0.1, spread=0.3)
    assert Found(reading, 0.11, 0.71, shares).is_seen
    assert not Found(reading, 0.09, 0.71, shares).is_seen
    assert not Found(reading, 0.11, 0.69, shares).is_seen
    assert cell(Found(reading, 0.09, 0.71, shares), 1) == "-"
    assert cell(Found(reading, 0.11, 0.71, shares), 1) == "25 ± 25, 25"


@pytest.fixture(scope="module")
def drawn_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "faces"
    draw = [sys.executable, str(ROOT / "demo" / "draw_faces.py"), str(folder)]
    subprocess.run([*draw, "--count", "40", "--size", "64"], check=True)
    return folder


def measure(folder: Path, *rest: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.two_faces", str(folder), *rest]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_writes_a_table_with_a_row_for_each_factor(
    tmp_path: Path, drawn_faces: Path
) -> None:
    config = ModelConfig(64, 0.03, z_dim=16, w_dim=16, mapping_layers=2)
    torch.manual_seed(0)
    for name in ("one", "other"):
        entries = {"G_ema": Generator(config).state_dict(), "iteration": 0}
        checkpoint.save(tmp_path / f"{name}.pt", config, entries)
    runs = [f"young={tmp_path / 'one.pt'}", str(tmp_path / "other.pt")]
    flags = ["--pairs", "12", "--epochs", "1", "--out", str(tmp_path / "out")]
    done = measure(drawn_faces, *runs, *flags)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "two_faces.md").read_text()
    assert text in done.stdout + "\n"
    tables = text.split("| other.pt |")
    assert tables[0].startswith("| one.pt | R² | error | drawn spread | its spread | agreement |")
    for part in tables:
        rows = [line.split(" | ") for line in part.splitlines() if line[2:].startswith(FACTORS)]
        assert [row[0][2:] for row in rows] == list(FACTORS)
    spreads = [re.search(r"\| background \| \S+ \| \S+ \| (\S+) \|", part) for part in tables]
    alone, mixed = (float(found[1]) for found in spreads if found)
    assert alone == 0  # all white behind young faces
    assert mixed > 0
    with Image.open(tmp_path / "out" / "two_faces.png") as heat:
        assert heat.width > 2 * heat.height


@pytest.mark.parametrize("what", ["checkpoint", "table"])
def test_what_is_missing_is_told_in_one_line(tmp_path: Path, drawn_faces: Path, what: str) -> None:
    if what == "checkpoint":
        done, named = measure(drawn_faces, "none.pt"), "none.pt"
    else:
        config = ModelConfig(64, 0.03, z_dim=16, w_dim=16, mapping_layers=2)
        checkpoint.save(tmp_path / "g.pt", config, {"G_ema": Generator(config).state_dict()})
        (tmp_path / "faces.csv").write_text("file,age\n1.jpg,30\n")
        flags = ["--out", str(tmp_path / "out")]
        done = measure(tmp_path, str(tmp_path / "g.pt"), *flags)
        named = str(tmp_path / "faces.csv")
    assert done.returncode == 1
    assert done.stderr.startswith(f"two_faces: error: {named}")
    assert len(done.stderr.splitlines()) == 1


def test_the_interval_of_a_rate_is_wilsons() -> None:
    assert detect.rate([True] * 8 + [False] * 2) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-3)
    share, low, high = detect.rate([True] * 50)
    assert (share, high) == pytest.approx((1, 1))
    assert low == pytest.approx(50 / (50 + 1.96**2))


def test_the_ratio_of_rates_has_the_interval_of_its_logarithm() -> None:
    photos, samples = [True] * 80 + [False] * 20, [True] * 60 + [False] * 40
    reach = math.exp(1.96 * math.sqrt(1 / 60 - 1 / 100 + 1 / 80 - 1 / 100))
    expected = f"0.750 ({0.75 / reach:.3f} to {0.75 * reach:.3f})"
    assert detect.ratio(photos, samples) == expected
    assert detect.ratio(photos, [False] * 9) == "0 of 9 to 80 of 100"


def test_the_detector_finds_drawn_faces_and_none_in_noise(drawn_faces: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "CascadeClassifier"):
        pytest.skip("OpenCV 5 has no cascades")
    files = sorted((drawn_faces / "young").glob("*.jpg"))[:20]
    drawn = [torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files]
    assert sum(detect.Detector()(torch.stack(drawn))) >= 10
    rng = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (8, 3, 64, 64), generator=rng, dtype=torch.uint8)
    assert sum(detect.Detector()(noise)) == 0


def test_a_detector_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(detect.UserError, match="pip install") as error:
        detect.Detector()
    assert "\n" not in str(error.value)
