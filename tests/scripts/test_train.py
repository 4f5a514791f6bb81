"""train.py as its user runs it: flags, run folder, stopping, going on."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from checkpoints import checkpoint, run_folder
from training.config import TrainConfig, train_config
from training.growth import Growth
from training.progress import Meter, clock, seconds_left

ROOT = Path(__file__).parents[2]
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


def test_a_run_folder_holds_what_was_asked_seen_and_learned(
    tiny_lmdb: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert (
        run(tiny_lmdb, out, "--iterations", "100", "--sample_every", "40", "--save_every", "50")
        == 0
    )
    assert config_of(out)["iterations"] == 100
    assert config_of(out)["recipe"] == {"quality": 95, "min_size": 32}
    assert config_of(out)["lmdb"] == str(tiny_lmdb.absolute())
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


def test_further_averages_are_files_of_their_own_the_same_after_a_stop(
    tiny_lmdb: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(tiny_lmdb, whole, "--more_ema") == 0
    assert run(tiny_lmdb, parts, "--more_ema", "--iterations", "4", "--phase", "6") == 0
    assert run(tiny_lmdb, tmp_path / "plain") == 0
    assert digest(tmp_path / "plain" / "snapshots" / "000006.pt") == digest(
        whole / "snapshots" / "000006.pt"
    )
    names = ["ema_short.pt", "ema_long.pt"]
    assert not any((tmp_path / "plain" / name).exists() for name in names)
    assert checkpoint.load(parts / "ema_long.pt")["iteration"] == 4
    assert run(tiny_lmdb, parts, "--more_ema", "--phase", "6") == 0
    for name in (*names, "latest.pt"):
        assert digest(parts / name) == digest(whole / name)
    kept = [checkpoint.load(whole / name)["G_ema"]["synthesis.const"] for name in names]
    assert not torch.equal(*kept)


def test_the_first_line_says_what_will_be_trained_on_what(
    tiny_lmdb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tiny_lmdb, tmp_path / "run", "--precision", "fp32")
    line = capsys.readouterr().out.splitlines()[0]
    for word in ("cpu", "fp32", "G ", "D ", "24 images", "4-8 px", "6 iterations of 4"):
        assert word in line


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
        ("augment", "ada"), ("augment_p", "0.4"),
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
        "ema": 123, "precision": "fp16", "seed": 9, "augment": "fixed", "augment_p": 0.7,
        "freeze_d": 2,
    }  # fmt: skip
    flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    flags += ["--no_mirror", "--more_ema", "--init_from", "other"]
    args = train.parse_args([str(tmp_path), *flags])
    config = train_config(args, torch.device("cpu"), {})
    assert config == TrainConfig(mirror=False, more_ema=True, **given)  # type: ignore[arg-type]


def test_defaults_are_the_ones_promised(tmp_path: Path) -> None:
    args = train.parse_args([str(tmp_path / "faces.lmdb")])
    config = train_config(args, torch.device("cpu"), {})
    assert (config.iterations, config.batch, config.lr, config.d_lr) == (100_000, 16, 0.001, 0.001)
    assert (config.mixing, config.ema, config.mirror, config.loss) == (0.9, 10_000, True, "r1")
    assert (config.r1_every, args.save_every, args.sample_every) == (16, 10_000, 100)
    assert args.out == Path("runs") / "faces"
    args = train.parse_args([str(tmp_path / "faces.lmdb"), "--init_size", "8"])
    config = train_config(args, torch.device("cpu"), {})
    assert config.growth.images * 2 == pytest.approx(config.iterations * config.batch, rel=1e-3)


@pytest.mark.parametrize(("width", "lr"), [("1", 0.001), ("0.25", 0.002), ("0.0625", 0.004)])
def test_narrow_networks_take_longer_steps_unless_told(width: str, lr: float) -> None:
    def rates(*flags: str, **before: float) -> tuple[float, float]:
        args = train.parse_args(["faces.lmdb", "--width", width, *flags])
        config = train_config(args, torch.device("cpu"), before)
        return config.lr, config.d_lr

    assert rates() == (lr, lr)
    assert rates("--d_lr", "0.003") == (lr, 0.003)
    assert rates("--lr", "0.01") == (0.01, 0.01)
    assert rates(lr=0.5) == (0.5, 0.5)  # a run that goes on


@pytest.mark.parametrize(("last", "first"), [("4", 4), ("8", 8), ("64", 8)])
def test_growth_begins_at_8_px_unless_asked_or_begun_otherwise(last: str, first: int) -> None:
    def begun(*flags: str, **before: int) -> int:
        args = train.parse_args(["faces.lmdb", "--max_size", last, *flags])
        return train_config(args, torch.device("cpu"), before).init_size

    assert begun() == first
    assert begun("--init_size", "4") == 4
    assert begun(init_size=4) == 4  # a run that goes on


def test_a_longer_name_of_the_lmdb_and_a_slash_at_its_end_give_the_same_run(tmp_path: Path) -> None:
    assert train.parse_args([f"{tmp_path}/faces.lmdb/"]).out == Path("runs/faces")


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


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--freeze_d", "1"], "--freeze_d 1: needs a D that has learned. Give --init_from"),
        (["--freeze_d", "2", "--init_from", "x"], "--freeze_d 2: at --max_size 8 at most 1"),
        (["--augment_p", "0.9"], "--augment_p"),
    ],
)
def test_what_cannot_be_frozen_or_augmented_is_refused(
    tiny_lmdb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], line: str
) -> None:
    assert run(tiny_lmdb, tmp_path / "run", *flags) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_is_finetuned_with_a_frozen_d_and_goes_on(tiny_lmdb: Path, tmp_path: Path) -> None:
    flags = ["--augment", "ada", "--loss", "rpgan", "--precision", "fp32"]
    assert run(tiny_lmdb, tmp_path / "old", *flags) == 0
    flags += ["--init_from", str(tmp_path / "old"), "--freeze_d", "1", "--init_size", "8"]
    assert run(tiny_lmdb, tmp_path / "whole", *flags, "--iterations", "4") == 0
    assert run(tiny_lmdb, tmp_path / "parts", *flags, "--iterations", "2") == 0
    assert run(tiny_lmdb, tmp_path / "parts", *flags, "--iterations", "4") == 0
    assert digest(tmp_path / "parts" / "latest.pt") == digest(tmp_path / "whole" / "latest.pt")
    old, new = (checkpoint.load(tmp_path / n / "latest.pt")["D"] for n in ("old", "whole"))
    kept = {name for name in old if torch.equal(old[name], new[name])}
    assert {name for name in old if ".8." in name} <= kept < old.keys()


def test_a_run_begun_before_there_were_some_flags_goes_on(tiny_lmdb: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(tiny_lmdb, out, "--w_dim", "512", "--mapping_layers", "8") == 0
    config = {k: v for k, v in config_of(out).items() if k not in run_folder.EARLIER}
    (out / "config.json").write_text(json.dumps(config))
    entries = {k: v for k, v in checkpoint.load(out / "latest.pt").items() if k != "ada"}
    torch.save(entries, out / "latest.pt")
    assert run(tiny_lmdb, out, "--iterations", "8", "--augment", "ada") == 1
    assert run(tiny_lmdb, out, "--iterations", "8") == 0
    assert checkpoint.load(out / "latest.pt")["iteration"] == 8


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
    [(["--max_size", "4"], "8 px; they have 4"), ([], "24 training photos; expected at least 100")],
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


@pytest.mark.parametrize(("loss", "name"), [("r1", "R1"), ("rpgan", "R1"), ("wgan-gp", "GP")])
def test_the_bar_moves_before_the_first_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str, name: str
) -> None:
    args = train.parse_args([str(tmp_path), "--init_size", "64", "--loss", loss])
    config = train_config(args, torch.device("cpu"), {})
    stats = {key: torch.tensor(2.0) for key in ("D_loss", "G_loss", "penalty")}
    with closing(Meter(config, iterations=10, done=0)) as meter:
        meter.add(stats)
        assert not meter.bar.postfix  # nobody has waited yet
        monkeypatch.setattr("training.progress.SHOW_SECONDS", 0.0)
        meter.add(stats)
        told = str(meter.bar.postfix)
    assert told.startswith(f"64px a1.00 D 2.000 G 2.000 {name} 2 ")
    assert told.endswith(" left")


def test_help_is_quick_and_shows_runnable_examples() -> None:
    begin = time.monotonic()
    shown = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert time.monotonic() - begin < 2
    assert shown.stdout.count("python train.py faces.lmdb") == 3
