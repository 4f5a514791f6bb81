"""train.py as its user runs it: flags, run folder, stopping, going on."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import checkpoint
import train
from growth import Growth
from meter import clock, seconds_left
from training import TrainConfig

ROOT = Path(__file__).parent.parent
SMALL = ["--init_size", "4", "--max_size", "8", "--width", "0.03", "--batch", "4"]


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(n) for n in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def run(lmdb: Path, out: Path, *flags: str) -> int:
    """Train in this process; later flags win over the small ones."""
    with pytest.raises(SystemExit) as end:
        train.main([str(lmdb), "--out", str(out), *SMALL, "--iterations", "6", *flags])
    return int(end.value.code or 0)


def command(lmdb: Path, out: Path, *flags: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), str(lmdb), "--out", str(out), *SMALL, *flags]


def start(args: list[str]) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(args, stdout=pipe, stderr=pipe, text=True, env=env)


def assert_done(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def config_of(out: Path) -> dict[str, object]:
    return dict(json.loads((out / "config.json").read_text()))


def digest(path: Path) -> str:
    """Return a hash of every number in a checkpoint."""
    found = hashlib.sha256()

    def walk(value: object) -> None:
        if isinstance(value, torch.Tensor):
            found.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in value:
                found.update(repr(key).encode())
                walk(value[key])
        elif isinstance(value, list | tuple):
            for each in value:
                walk(each)
        else:
            found.update(repr(value).encode())

    walk(checkpoint.load(path))
    return found.hexdigest()


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_run_folder_holds_what_was_asked_seen_and_learned(
    tiny_lmdb: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert (
        run(tiny_lmdb, out, "--iterations", "100", "--sample_every", "40", "--save_every", "50")
        == 0
    )
    assert config_of(out)["iterations"] == 100
    samples = ["000000.png", "000040.png", "000080.png", "000100.png"]
    assert sorted(p.name for p in (out / "samples").iterdir()) == samples
    with Image.open(out / "samples" / "000000.png") as first:
        assert first.size == (8 * 10 + 2, 4 * 10 + 2)
    assert sorted(p.name for p in (out / "snapshots").iterdir()) == ["000050.pt", "000100.pt"]
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [r["iteration"] for r in records] == [50, 100]
    wanted = "D_loss G_loss penalty real_logit fake_logit alpha lr images_per_second memory_gb"
    assert all(r.keys() >= set(wanted.split()) for r in records)
    board = EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    assert [e.step for e in board.Scalars("D_loss")] == [50, 100]
    assert [e.step for e in board.Images("samples")] == [0, 40, 80, 100]


def test_snapshots_are_smaller_checkpoints_of_the_same_format(
    tiny_lmdb: Path, tmp_path: Path
) -> None:
    run(tiny_lmdb, tmp_path / "run", "--save_every", "3")
    whole = checkpoint.load(tmp_path / "run" / "latest.pt")
    few = checkpoint.load(tmp_path / "run" / "snapshots" / "000006.pt")
    assert few.keys() < whole.keys()
    assert "D" not in few
    torch.testing.assert_close(few["G_ema"], whole["G_ema"], rtol=0, atol=0)
    assert checkpoint.load(tmp_path / "run" / "previous.pt")["iteration"] == 3


def test_the_first_line_says_what_will_be_trained_on_what(
    tiny_lmdb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_lmdb, tmp_path / "run", "--precision", "fp32")
    line = capsys.readouterr().out.splitlines()[0]
    for word in ("cpu", "fp32", "G ", "D ", "24 images", "4-8 px", "6 iterations of 4"):
        assert word in line


def test_a_run_killed_at_random_moments_ends_as_an_unbroken_one(
    tiny_lmdb: Path, tmp_path: Path
) -> None:
    flags = ["--iterations", "400", "--save_every", "20", "--phase", "300", "--sample_every", "150"]
    whole = start(command(tiny_lmdb, tmp_path / "whole", *flags))
    assert_done(whole)
    broken = command(tiny_lmdb, tmp_path / "broken", *flags)
    moments = random.Random(0)
    kills = 0
    for _ in range(5):
        process = start(broken)
        wait_for(tmp_path / "broken" / "samples" / "000000.png", process)
        try:
            process.wait(timeout=moments.uniform(0.1, 3.0))
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        process.communicate()
    assert kills >= 3
    last = start(broken)
    assert_done(last)
    for name in ("latest.pt", "snapshots/000400.pt", "snapshots/000200.pt"):
        assert digest(tmp_path / "broken" / name) == digest(tmp_path / "whole" / name)
    grids = [tmp_path / each / "samples" / "000400.png" for each in ("broken", "whole")]
    assert grids[0].read_bytes() == grids[1].read_bytes()
    iterations = [
        json.loads(line)["iteration"]
        for line in (tmp_path / "broken" / "log.jsonl").read_text().splitlines()
    ]
    assert iterations == sorted(set(iterations))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_ends_with_its_code(
    tiny_lmdb: Path, tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "run"
    process = start(command(tiny_lmdb, out, "--iterations", "100000"))
    wait_for(out / "samples" / "000100.png", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert "the same command continues" in errors
    assert checkpoint.load(out / "latest.pt")["iteration"] >= 100


def test_the_same_command_after_the_end_says_done_and_changes_nothing(
    tiny_lmdb: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run(tiny_lmdb, out) == 0
    before = digest(out / "latest.pt")
    assert run(tiny_lmdb, out) == 0
    assert digest(out / "latest.pt") == before


def test_a_longer_run_goes_on_and_keeps_its_growth(tiny_lmdb: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(tiny_lmdb, out)
    phase = config_of(out)["phase"]
    assert run(tiny_lmdb, out, "--iterations", "9") == 0
    assert config_of(out)["phase"] == phase
    assert checkpoint.load(out / "latest.pt")["iteration"] == 9


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("batch", "5"), ("lr", "0.002"), ("d_lr", "0.003"), ("seed", "1"), ("width", "0.04"),
        ("init_size", "8"), ("phase", "7"), ("loss", "wgan-gp"), ("r1_gamma", "3"),
        ("r1_every", "2"), ("mixing", "0.1"), ("ema", "99"), ("precision", "fp16"),
    ],
)  # fmt: skip
def test_going_on_with_another_setting_is_refused_by_its_name(
    tiny_lmdb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    out = tmp_path / "run"
    run(tiny_lmdb, out, "--iterations", "1", "--precision", "fp32")
    before = digest(out / "latest.pt")
    assert run(tiny_lmdb, out, "--iterations", "1", "--precision", "fp32", f"--{flag}", value) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"--{flag}" in error
    assert digest(out / "latest.pt") == before


def test_each_flag_reaches_the_setting_it_names(tmp_path: Path) -> None:
    given = {
        "init_size": 8, "max_size": 32, "iterations": 7, "batch": 3, "phase": 11, "lr": 0.004,
        "d_lr": 0.005, "loss": "wgan-gp", "r1_gamma": 2.5, "r1_every": 4, "mixing": 0.25,
        "ema": 123, "precision": "fp16", "seed": 9,
    }  # fmt: skip
    flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    args = train.parse_args([str(tmp_path), *flags, "--no_mirror"])
    config = train.train_config(args, torch.device("cpu"), {})
    assert config == TrainConfig(mirror=False, **given)  # type: ignore[arg-type]


def test_defaults_are_the_ones_promised(tmp_path: Path) -> None:
    args = train.parse_args([str(tmp_path / "faces.lmdb")])
    config = train.train_config(args, torch.device("cpu"), {})
    assert (config.iterations, config.batch, config.lr, config.d_lr) == (100_000, 16, 0.001, 0.001)
    assert (config.mixing, config.ema, config.mirror, config.loss) == (0.9, 10_000, True, "r1")
    assert (config.r1_every, args.save_every, args.sample_every) == (16, 10_000, 100)
    assert args.out == Path("runs") / "faces"
    assert config.growth.images * 2 == pytest.approx(config.iterations * config.batch, rel=1e-3)


def test_a_longer_name_of_the_lmdb_and_a_slash_at_its_end_give_the_same_run(tmp_path: Path) -> None:
    assert train.parse_args([f"{tmp_path}/faces.lmdb/"]).out == Path("runs/faces")


@pytest.mark.parametrize(
    "flags",
    [
        ["--init_size", "48"], ["--init_size", "16", "--max_size", "8"], ["--max_size", "2"],
        ["--batch", "0"], ["--batch", "x"], ["--lr", "-1"], ["--lr", "nan"], ["--lr", "inf"],
        ["--iterations", "0"], ["--seed", "-1"], ["--seed", str(2**70)], ["--width", "0"],
        ["--mixing", "1.1"], ["--loss", "hinge"], ["--precision", "int8"], ["--nonsense"],
        ["--phase", "0"], ["--r1_gamma", "-1"], ["--save_every", "0"],
    ],
)  # fmt: skip
def test_bad_usage_is_one_line_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as end:
        train.main([str(tmp_path), "--out", str(out), *flags])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert flags[0] in error
    assert not out.exists()


def test_what_is_no_database_of_faces_is_one_line(
    tiny_lmdb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("no database")
    (tmp_path / "empty").mkdir()
    for name in ("missing", "text", "empty"):
        assert run(tmp_path / name, tmp_path / "run") == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert name in error
        assert not (tmp_path / "run").exists()
    assert not (tmp_path / "missing").exists()
    for flags in (["--max_size", "64"], ["--batch", "25"]):
        assert run(tiny_lmdb, tmp_path / "run", *flags) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_a_device_that_is_not_there_is_one_line(
    tiny_lmdb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for device in ("cuda:9", "tpu", "meta", "nonsense"):
        assert run(tiny_lmdb, tmp_path / "run", "--device", device) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert device in error


def test_a_second_trainer_in_one_run_folder_is_refused(tiny_lmdb: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = start(command(tiny_lmdb, out, "--iterations", "100000"))
    wait_for(out / "samples" / "000000.png", first)
    second = start(command(tiny_lmdb, out, "--iterations", "100000"))
    _, error = second.communicate(timeout=60)
    first.kill()
    first.communicate()
    assert second.returncode == 1
    assert error.count("\n") == 1
    assert "another train.py" in error


def test_a_damaged_latest_is_told_and_the_one_before_used(
    tiny_lmdb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    run(tiny_lmdb, out, "--save_every", "3")
    expected = digest(out / "latest.pt")
    latest = out / "latest.pt"
    latest.write_bytes(latest.read_bytes()[:-1000])
    capsys.readouterr()
    assert run(tiny_lmdb, out, "--save_every", "3") == 0
    assert "using previous.pt" in capsys.readouterr().err
    assert digest(latest) == expected


def test_weights_come_from_a_smaller_run_when_asked(
    tiny_lmdb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_lmdb, tmp_path / "small", "--iterations", "3", "--save_every", "3")
    start_of = ["--init_from", str(tmp_path / "small"), "--max_size", "16", "--lr", "1e-12"]
    assert run(tiny_lmdb, tmp_path / "large", *start_of) == 0
    old = checkpoint.load(tmp_path / "small" / "latest.pt")
    new = checkpoint.load(tmp_path / "large" / "latest.pt")
    for name in ("G", "D"):
        common = old[name].keys() & new[name].keys() - {"w_avg"}
        assert len(common) > 10
        for key in common:
            torch.testing.assert_close(new[name][key], old[name][key], rtol=0, atol=1e-6)
    snapshot = tmp_path / "small" / "snapshots" / "000003.pt"
    assert run(tiny_lmdb, tmp_path / "third", "--init_from", str(snapshot)) == 0
    assert "D is not in it" in capsys.readouterr().err
    assert run(tiny_lmdb, tmp_path / "wide", "--init_from", str(snapshot), "--width", "0.04") == 1
    assert "--width" in capsys.readouterr().err


def swd_of(out: Path) -> dict[int, float]:
    records = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return {r["iteration"]: r["swd"] for r in records if "swd" in r}


def test_measuring_changes_no_number_of_the_training_and_keeps_the_best(
    held_out_lmdb: Path, tmp_path: Path
) -> None:
    long = ["--iterations", "9", "--phase", "8", "--batch", "4"]
    plain, whole, broken = (tmp_path / name for name in ("plain", "whole", "broken"))
    assert run(held_out_lmdb, plain, *long) == 0
    assert not (plain / "best.pt").exists()
    assert run(held_out_lmdb, whole, *long, "--metric_every", "2") == 0
    assert digest(whole / "latest.pt") == digest(plain / "latest.pt")
    measured = swd_of(whole)
    assert sorted(measured) == [2, 4, 6, 8]
    best = checkpoint.load(whole / "best.pt")
    assert best["swd"] == min(measured.values())
    assert measured[best["iteration"]] == best["swd"]
    board = EventAccumulator(str(whole / "tensorboard"))
    board.Reload()
    assert [e.step for e in board.Scalars("swd")] == [2, 4, 6, 8]
    assert run(held_out_lmdb, broken, *long, "--metric_every", "2", "--iterations", "5") == 0
    assert run(held_out_lmdb, broken, *long, "--metric_every", "2") == 0
    assert swd_of(broken) == measured
    assert digest(broken / "best.pt") == digest(whole / "best.pt")
    assert digest(broken / "latest.pt") == digest(whole / "latest.pt")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--max_size", "4"], "8 px; they have 4"),
        ([], "24 training photos; expected at least 100"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    tiny_lmdb: Path,
    held_out_lmdb: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    line: str,
) -> None:
    data = held_out_lmdb if flags else tiny_lmdb
    assert run(data, tmp_path / "run", "--metric_every", "2", *flags) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert line in errors


def test_the_time_left_counts_growth() -> None:
    growth = Growth(init_size=8, max_size=16, phase=250)
    # 250 images at 8 px, then 750 at 16 px, each of which takes twice as long
    assert seconds_left(growth, 1000, 0, rate=10.0) == pytest.approx((250 + 2 * 750) / 10)
    assert seconds_left(growth, 1000, 250, rate=10.0) == pytest.approx(75)
    assert seconds_left(growth, 1000, 1000, rate=10.0) == 0
    assert seconds_left(Growth(64, 64, 1), 1000, 0, rate=10.0) == pytest.approx(100)
    assert [clock(s) for s in (42, 420, 11_100)] == ["42s", "7m", "3h05m"]


def test_help_is_quick_and_shows_two_runnable_examples() -> None:
    begin = time.monotonic()
    shown = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert time.monotonic() - begin < 2
    assert shown.stdout.count("python train.py faces.lmdb") == 2
