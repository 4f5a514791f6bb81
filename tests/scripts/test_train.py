"""train.py as its user runs it: flags, run folder, going on, and odd surroundings."""

import os
import shutil
from contextlib import closing
from pathlib import Path

import lmdb
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dataset
import train as script
from checkpoints import checkpoint, run_folder
from tests.support.run import bound_by_modes, command, fork, hashes, on_read_only, on_small_disk
from tests.support.run import run as run_command
from tests.support.training import config_of, digest, flags, iteration_of, log_of, train
from training import loop
from training.config import TrainConfig, train_config
from training.growth import Growth
from training.progress import Meter, clock, seconds_left

CPU = torch.device("cpu")


def scalars(run: Path, name: str) -> list[int]:
    """Return the iterations at which TensorBoard shows a number."""
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    return [event.step for event in board.Scalars(name)]


# The run folder


def test_a_run_folder_holds_what_was_asked_seen_and_learned(tiny_lmdb, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    out = tmp_path / "new" / "run"
    given = ("--iterations", 5, "--sample_every", 2, "--save_every", 3, "--r1_every", 2)
    train(tiny_lmdb, out, *given).succeeded()
    config = config_of(out)
    assert config["iterations"] == 5
    assert config["recipe"] == {"quality": 95, "min_size": 32}
    assert config["lmdb"] == str(tiny_lmdb.absolute())
    samples = ["000000.png", "000002.png", "000004.png", "000005.png"]
    assert sorted(p.name for p in (out / "samples").iterdir()) == samples
    with Image.open(out / "samples" / "000000.png") as first:
        assert first.size == (8 * 10 + 2, 4 * 10 + 2)
    assert sorted(p.name for p in (out / "snapshots").iterdir()) == ["000003.pt", "000005.pt"]
    assert [line["iteration"] for line in log_of(out)] == [2, 4]
    wanted = "D_loss G_loss penalty real_logit fake_logit alpha lr images_per_second memory_gb"
    assert all(line.keys() >= set(wanted.split()) for line in log_of(out))
    assert scalars(out, "D_loss") == [2, 4]
    board = EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Images("samples")] == [0, 2, 4, 5]


def test_snapshots_are_smaller_checkpoints_of_the_same_format(tiny_run):
    whole = checkpoint.load(tiny_run / "latest.pt")
    few = checkpoint.load(tiny_run / "snapshots" / "000006.pt")
    assert few.keys() < whole.keys()
    assert "D" not in few
    torch.testing.assert_close(few["G_ema"], whole["G_ema"], rtol=0, atol=0)
    assert checkpoint.load(tiny_run / "previous.pt")["iteration"] == 3


def test_further_averages_are_files_of_their_own_and_the_same_after_a_stop(
    tiny_lmdb, tiny_run, tmp_path
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny_lmdb, whole, "--more_ema").succeeded()
    snapshot, names = "snapshots/000006.pt", ["ema_short.pt", "ema_long.pt"]
    assert digest(tiny_run / snapshot) == digest(whole / snapshot)
    assert not any((tiny_run / name).exists() for name in names)
    phase = ("--phase", config_of(whole)["phase"])
    train(tiny_lmdb, parts, "--more_ema", "--iterations", 4, *phase).succeeded()
    assert checkpoint.load(parts / "ema_long.pt")["iteration"] == 4
    train(tiny_lmdb, parts, "--more_ema").succeeded()
    for name in (*names, "latest.pt"):
        assert digest(parts / name) == digest(whole / name)
    kept = [checkpoint.load(whole / name)["G_ema"]["synthesis.const"] for name in names]
    assert not torch.equal(*kept)


def test_the_first_line_says_what_will_be_trained_on_what(tiny_lmdb, tmp_path):
    line = train(tiny_lmdb, tmp_path / "run", "--iterations", 1).succeeded().out.splitlines()[0]
    for word in ("cpu", "fp32", "G ", "D ", "24 images", "4-8 px", "1 iterations of 4"):
        assert word in line


@pytest.mark.parametrize("below", [".", "below"])
def test_an_out_that_is_a_file_or_in_one_is_refused(tiny_lmdb, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    assert "Give another --out" in train(tiny_lmdb, tmp_path / "file" / below).failed()
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_a_run_folder_that_may_not_be_written_to_is_refused(tiny_lmdb, own_run):
    before = hashes(own_run)
    argv = command("train.py", *flags(tiny_lmdb, own_run, "--save_every", 3))
    assert "Read-only" in run_command(on_read_only(own_run, argv)).failed()
    for path in (own_run / ".lock", own_run):
        path.chmod(0o555)
    assert "--out" in run_command(bound_by_modes(argv)).failed()
    own_run.chmod(0o755)
    assert hashes(own_run) == before


# Going on


def test_the_same_command_after_the_end_says_done_and_changes_nothing(tiny_lmdb, own_run):
    before = digest(own_run / "latest.pt")
    assert "done: " in train(tiny_lmdb, own_run, "--save_every", 3).succeeded().out
    assert digest(own_run / "latest.pt") == before


def test_a_longer_run_says_what_changed_and_keeps_its_growth(tiny_lmdb, own_run):
    phase = config_of(own_run)["phase"]
    longer = ("--save_every", 4, "--iterations", 9)
    (told,) = train(tiny_lmdb, own_run, *longer).succeeded().messages
    assert told.startswith("train.py: continuing with ")
    assert "iterations 9 (was 6)" in told
    assert "save_every 4 (was 3)" in told
    assert config_of(own_run)["phase"] == phase
    assert iteration_of(own_run) == 9
    moved = own_run.rename(own_run.with_name("moved"))
    assert train(tiny_lmdb, moved, *longer).succeeded().messages == []


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("batch", "5"), ("lr", "0.002"), ("d_lr", "0.003"), ("seed", "1"), ("width", "0.04"),
        ("init_size", "8"), ("max_size", "16"), ("phase", "7"), ("loss", "wgan-gp"),
        ("r1_gamma", "3"), ("r1_every", "2"), ("mixing", "0.1"), ("ema", "99"),
        ("precision", "fp16"), ("augment", "ada"), ("augment_p", "0.4"), ("w_dim", "9"),
        ("mapping_layers", "3"), ("no_mirror", None), ("more_ema", None),
    ],
)  # fmt: skip
def test_going_on_with_another_setting_is_refused_by_its_name(tiny_lmdb, tiny_run, flag, value):
    before = hashes(tiny_run)
    given = [f"--{flag}"] if value is None else [f"--{flag}", value]
    error = train(tiny_lmdb, tiny_run, "--save_every", 3, *given).failed()
    assert f"--{flag}" in error
    assert "was started with" in error
    assert hashes(tiny_run) == before


def test_going_on_with_other_photos_is_refused(red_lmdb, tiny_run):
    assert "other photos" in train(red_lmdb, tiny_run, "--save_every", 3).failed()


# Flags


def test_each_flag_reaches_the_setting_it_names(tmp_path):
    given = {
        "init_size": 8, "max_size": 32, "iterations": 7, "batch": 3, "phase": 11, "lr": 0.004,
        "d_lr": 0.005, "loss": "wgan-gp", "r1_gamma": 2.5, "r1_every": 4, "mixing": 0.25,
        "ema": 123, "precision": "fp16", "seed": 9, "augment": "fixed", "augment_p": 0.7,
        "freeze_d": 2,
    }  # fmt: skip
    flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    flags += ["--no_mirror", "--more_ema", "--init_from", "other"]
    args = script.parse_args([str(tmp_path), *flags])
    config = train_config(args, CPU, {})
    assert config == TrainConfig(mirror=False, more_ema=True, **given)  # type: ignore[arg-type]


def test_defaults_are_the_ones_promised(tmp_path):
    args = script.parse_args([str(tmp_path / "faces.lmdb")])
    config = train_config(args, CPU, {})
    assert (config.iterations, config.batch, config.lr, config.d_lr) == (100_000, 16, 0.001, 0.001)
    assert (config.mixing, config.ema, config.mirror, config.loss) == (0.9, 10_000, True, "r1")
    assert (config.r1_every, args.save_every, args.sample_every) == (16, 10_000, 100)
    assert args.out == Path("runs") / "faces"
    args = script.parse_args([str(tmp_path / "faces.lmdb"), "--init_size", "8"])
    config = train_config(args, CPU, {})
    assert config.growth.images * 2 == pytest.approx(config.iterations * config.batch, rel=1e-3)


@pytest.mark.parametrize(("width", "lr"), [("1", 0.001), ("0.25", 0.002), ("0.0625", 0.004)])
def test_narrow_networks_take_longer_steps_unless_lr_is_given(width, lr):
    def rates(*flags: str, **before: float) -> tuple[float, float]:
        args = script.parse_args(["faces.lmdb", "--width", width, *flags])
        config = train_config(args, CPU, before)
        return config.lr, config.d_lr

    assert rates() == (lr, lr)
    assert rates("--d_lr", "0.003") == (lr, 0.003)
    assert rates("--lr", "0.01") == (0.01, 0.01)
    assert rates(lr=0.5) == (0.5, 0.5)  # a run that goes on


@pytest.mark.parametrize(("last", "first"), [("4", 4), ("8", 8), ("64", 8)])
def test_growth_begins_at_8_px_unless_asked_or_begun_otherwise(last, first):
    def begun(*flags: str, **before: int) -> int:
        args = script.parse_args(["faces.lmdb", "--max_size", last, *flags])
        return train_config(args, CPU, before).init_size

    assert begun() == first
    assert begun("--init_size", "4") == 4
    assert begun(init_size=4) == 4  # a run that goes on


def test_a_slash_at_the_end_of_the_lmdb_does_not_change_the_run_folder(tmp_path):
    assert script.parse_args([f"{tmp_path}/faces.lmdb/"]).out == Path("runs/faces")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--freeze_d", 1], "--freeze_d 1: needs a D that has learned. Give --init_from"),
        (["--freeze_d", 2, "--init_from", "x"], "--freeze_d 2: at --max_size 8 at most 1"),
        (["--init_size", 16], "--init_size 16: above --max_size 8"),
        (["--nonsense"], "--nonsense"),
        (["--hours", 1], "--hours plans the number of --iterations"),
    ],
)
def test_flags_that_do_not_go_together_are_one_line_and_make_nothing(
    tiny_lmdb, tmp_path, given, words
):
    assert words in train(tiny_lmdb, tmp_path / "run", *given).failed(2)
    assert list(tmp_path.iterdir()) == []


def test_help_and_usage_errors_are_quick_and_help_shows_runnable_examples(tmp_path):
    shown = run_command(command("train.py", "--help")).succeeded()
    assert shown.out.count("python train.py faces.lmdb") == 3
    wrong = run_command(command("train.py", tmp_path, "--batch", 0))
    assert "in 1..4096" in wrong.failed(2)
    assert max(shown.seconds, wrong.seconds) < 1  # torch alone takes longer to import


# Starting from another run


def test_weights_come_from_a_smaller_run_when_asked(tiny_lmdb, tiny_run, tmp_path):
    larger = ("--init_from", tiny_run, "--max_size", 16, "--lr", 1e-12)
    train(tiny_lmdb, tmp_path / "large", *larger).succeeded()
    old = checkpoint.load(tiny_run / "latest.pt")
    new = checkpoint.load(tmp_path / "large" / "latest.pt")
    for name in ("G", "D"):
        common = old[name].keys() & new[name].keys() - {"w_avg"}
        assert len(common) > 10
        for key in common:
            torch.testing.assert_close(new[name][key], old[name][key], rtol=0, atol=1e-6)
    snapshot = ("--init_from", tiny_run / "snapshots" / "000003.pt", "--iterations", 1)
    assert "D is not in it" in train(tiny_lmdb, tmp_path / "third", *snapshot).succeeded().err
    assert "--width" in train(tiny_lmdb, tmp_path / "wide", *snapshot, "--width", 0.04).failed()
    assert not (tmp_path / "wide" / "latest.pt").exists()


def test_a_run_is_finetuned_with_a_frozen_d_and_goes_on(tiny_lmdb, tmp_path):
    learning = ("--augment", "ada", "--loss", "rpgan")
    old, whole, parts = (tmp_path / name for name in ("old", "whole", "parts"))
    train(tiny_lmdb, old, *learning).succeeded()
    learning += ("--init_from", str(old), "--freeze_d", "1", "--init_size", "8")
    train(tiny_lmdb, whole, *learning, "--iterations", 4).succeeded()
    for iterations in (2, 4):
        train(tiny_lmdb, parts, *learning, "--iterations", iterations).succeeded()
    assert digest(parts / "latest.pt") == digest(whole / "latest.pt")
    before, after = (checkpoint.load(run / "latest.pt")["D"] for run in (old, whole))
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if ".8." in name} <= kept < before.keys()


def test_a_run_begun_before_some_flags_existed_goes_on(tiny_lmdb, tmp_path):
    out = tmp_path / "run"
    train(tiny_lmdb, out, "--w_dim", 512, "--mapping_layers", 8, "--iterations", 1).succeeded()
    config = {k: v for k, v in config_of(out).items() if k not in run_folder.EARLIER}
    run_folder.write_config(out, config)
    entries = {k: v for k, v in checkpoint.load(out / "latest.pt").items() if k != "ada"}
    torch.save(entries, out / "latest.pt")
    assert "--augment" in train(tiny_lmdb, out, "--iterations", 2, "--augment", "ada").failed()
    train(tiny_lmdb, out, "--iterations", 2).succeeded()
    assert iteration_of(out) == 2


# Measuring and the progress bar


def distances_of(run: Path) -> dict[int, float]:
    return {line["iteration"]: line["swd"] for line in log_of(run) if "swd" in line}


def test_measuring_changes_no_number_of_the_training_and_keeps_the_best(held_out_lmdb, tmp_path):
    plain, whole, broken = (tmp_path / name for name in ("plain", "whole", "broken"))
    long = ("--iterations", 5, "--phase", 8)
    train(held_out_lmdb, plain, *long).succeeded()
    assert not (plain / "best.pt").exists()
    measuring = (*long, "--metric_every", 2)
    train(held_out_lmdb, whole, *measuring).succeeded()
    assert digest(whole / "latest.pt") == digest(plain / "latest.pt")
    measured = distances_of(whole)
    assert sorted(measured) == scalars(whole, "swd") == [2, 4]
    best = checkpoint.load(whole / "best.pt")
    assert best["swd"] == min(measured.values()) == measured[best["iteration"]]
    train(held_out_lmdb, broken, *measuring, "--iterations", 3).succeeded()
    train(held_out_lmdb, broken, *measuring).succeeded()
    assert distances_of(broken) == measured
    for name in ("best.pt", "latest.pt"):
        assert digest(broken / name) == digest(whole / name)


def test_the_time_left_counts_growth():
    growth = Growth(init_size=8, max_size=16, phase=250)
    # 250 images at 8 px, then 750 at 16 px, each of which takes twice as long
    assert seconds_left(growth, 1000, 0, rate=10.0) == pytest.approx((250 + 2 * 750) / 10)
    assert seconds_left(growth, 1000, 250, rate=10.0) == pytest.approx(75)
    assert seconds_left(growth, 1000, 1000, rate=10.0) == 0
    assert seconds_left(Growth(64, 64, 1), 1000, 0, rate=10.0) == pytest.approx(100)
    assert [clock(s) for s in (42, 420, 11_100)] == ["42s", "7m", "3h05m"]


@pytest.mark.parametrize(("loss", "name"), [("r1", "R1"), ("rpgan", "R1"), ("wgan-gp", "GP")])
def test_the_bar_moves_before_the_first_record(tmp_path, monkeypatch, loss, name):
    args = script.parse_args([str(tmp_path), "--init_size", "64", "--loss", loss])
    config = train_config(args, CPU, {})
    stats = {key: torch.tensor(2.0) for key in ("D_loss", "G_loss", "penalty")}
    with closing(Meter(config, iterations=10, done=0)) as meter:
        meter.add(stats)
        assert not meter.bar.postfix  # nobody has waited yet
        monkeypatch.setattr("training.progress.SHOW_SECONDS", 0.0)
        meter.add(stats)
        told = str(meter.bar.postfix)
    assert told.startswith(f"64px a1.00 D 2.000 G 2.000 {name} 2 ")
    assert told.endswith(" left")


# Data and machines that do not suit


@pytest.mark.parametrize(
    ("data", "given", "words"),
    [
        ("missing.lmdb", [], "missing.lmdb: no such folder"),
        ("flipped.lmdb", [], "record 16-00007 is bad: its checksum differs"),
        ("truncated.lmdb", [], "truncated, 8,192 of "),
        ("tiny", ["--max_size", 64], "it stores 16 px"),
        ("tiny", ["--device", "cuda:9"], "--device cuda:9: not on this machine"),
        ("red", ["--batch", 9], "8 images; expected at least a batch of 9"),
        ("tiny", ["--metric_every", 2], "24 training photos; expected at least 100"),
        ("held_out", ["--metric_every", 2, "--max_size", 4], "8 px; they have 4"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    tiny_lmdb, red_lmdb, held_out_lmdb, tmp_path, data, given, words
):
    databases = {"tiny": tiny_lmdb, "red": red_lmdb, "held_out": held_out_lmdb}
    path = databases.get(data, tmp_path / data)
    if data.startswith(("flipped", "truncated")):
        spoil(Path(shutil.copytree(tiny_lmdb, path)), data)
    assert words in train(path, tmp_path / "run", *given).failed()
    assert not (tmp_path / "missing.lmdb").exists()
    assert "--metric_every" in given or not (tmp_path / "run").exists()


def spoil(data: Path, how: str) -> None:
    """Flip a bit of a photo, or cut a database off."""
    with lmdb.open(str(data), readonly=True, lock=False) as env, env.begin() as txn:
        record = bytes(txn.get(b"16-00007"))
    content = bytearray((data / "data.mdb").read_bytes())
    content[content.index(record[100:]) + 50] ^= 1
    (data / "data.mdb").write_bytes(content if how == "flipped.lmdb" else content[:8192])


def test_as_many_photos_as_a_batch_are_enough(red_lmdb, tmp_path):
    train(red_lmdb, tmp_path / "run", "--batch", 8, "--iterations", 2).succeeded()


def too_much(_: object) -> None:
    torch.empty(2**50)


def too_much_on_a_gpu(_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to\nallocate much")


@pytest.mark.parametrize("allocate", [too_much, too_much_on_a_gpu])
def test_too_little_memory_is_one_line_with_what_to_try(tiny_lmdb, tmp_path, allocate):
    error = train(tiny_lmdb, tmp_path / "run", do={0: allocate}).failed()
    for word in ("error: out of memory", "8 px", "batch of 4", "--width 0.015", "--batch"):
        assert word in error
    assert iteration_of(tmp_path / "run") == 0


@pytest.mark.slow
def test_too_little_memory_for_the_networks_is_one_line(tiny_lmdb, tmp_path):
    ended = fork("train.py", *flags(tiny_lmdb, tmp_path / "run", "--width", 4), memory=1000)
    assert "out of memory" in ended.failed()


def replace(data: Path) -> None:
    os.replace(data / "lock.mdb", data / "data.mdb")


def cut_off(data: Path) -> None:
    os.truncate(data / "data.mdb", 0)


@pytest.mark.parametrize(
    ("share", "action"), [(0.5, shutil.rmtree), (0, shutil.rmtree), (0, replace), (0.5, cut_off)]
)
def test_a_database_that_changes_while_it_is_learned_from_changes_nothing(
    tiny_lmdb, tiny_run, tmp_path, monkeypatch, share, action
):
    """Held in memory or, with a share of 0, read as needed."""
    monkeypatch.setattr(dataset, "MEMORY_SHARE", share)
    data = Path(shutil.copytree(tiny_lmdb, tmp_path / "data.lmdb"))
    (data / "lock.mdb").touch()
    train(data, tmp_path / "run", "--save_every", 3, do={2: lambda _: action(data)}).succeeded()
    assert digest(tmp_path / "run" / "latest.pt") == digest(tiny_run / "latest.pt")


# Odd surroundings

GONE = "import os\nos.mkdir({gone!r})\nos.chdir({gone!r})\nos.rmdir({gone!r})\n"
JUMPS = "import time\nnow, calls = time.time, iter(range(10**9))\n"
JUMPS += "time.time = lambda: now() + (-1) ** next(calls) * 1e8\n"


def test_neither_a_folder_that_is_gone_nor_a_clock_that_jumps_matters(
    tiny_lmdb, tiny_run, tmp_path
):
    given = flags(tiny_lmdb.absolute(), tmp_path / "run", "--save_every", 3)
    fork("train.py", *given, patch=JUMPS + GONE.format(gone=str(tmp_path / "gone"))).succeeded()
    assert digest(tmp_path / "run" / "latest.pt") == digest(tiny_run / "latest.pt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("streams", "said"),
    [
        ('"$@" >&- 2>&-', ""),
        ('"$@" >/dev/full 2>/dev/full', ""),
        ('{ "$@" 2>&1; echo $? >&3; } 3>&2 | true', "0\n"),
    ],
    ids=["closed", "full", "cut off"],
)
def test_streams_that_nobody_reads_do_not_end_a_run(tiny_lmdb, tiny_run, tmp_path, streams, said):
    """With the locale C and without HOME, too."""
    argv = command("train.py", *flags(tiny_lmdb, tmp_path / "run", "--save_every", 3))
    bare = {"LC_ALL": "C", "OMP_NUM_THREADS": "1"}
    ended = run_command(["/bin/sh", "-c", streams, "sh", *argv], env=bare)
    assert (ended.code, ended.out, ended.err) == (0, "", said)
    assert digest(tmp_path / "run" / "latest.pt") == digest(tiny_run / "latest.pt")


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["media", "modes", "no shared memory"])
def test_a_database_may_be_read_only_and_shared_memory_absent(tiny_lmdb, tiny_run, tmp_path, limit):
    data = Path(shutil.copytree(tiny_lmdb, tmp_path / "data.lmdb"))
    before = hashes(data)
    argv = command("train.py", *flags(data, tmp_path / "run", "--save_every", 3))
    if limit == "modes":
        for path in (*data.iterdir(), data):
            path.chmod(0o555 if path.is_dir() else 0o444)
    limited = {
        "media": lambda: on_read_only(data, argv),
        "modes": lambda: bound_by_modes(argv),
        "no shared memory": lambda: on_small_disk(Path("/dev/shm"), 0.02, argv),
    }
    run_command(limited[limit]()).succeeded()
    assert hashes(data) == before
    assert digest(tmp_path / "run" / "latest.pt") == digest(tiny_run / "latest.pt")
