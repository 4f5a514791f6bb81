"""A run survives kills, signals, damaged states and numbers that overflow, and loses nothing."""

import copy
import os
import random
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import train as script
from checkpoints import checkpoint
from checkpoints.checkpoint import CheckpointError
from checkpoints.run_folder import find
from tests.support.run import ENV, command, end, flip, fork, hashes, on_small_disk, run, start
from tests.support.training import digest, flags, iteration_of, log_of, train
from training import loop, recovery
from training.config import model_config, train_config
from training.state import TrainState

Entries = dict[str, Any]


def process(lmdb: Path, out: Path, *more: object) -> list[str]:
    """Return the command of a tiny run."""
    return command("train.py", *flags(lmdb, out, *more))


# Damaged states


def rewritten(path: Path, change: Callable[[Entries], object]) -> None:
    """Change the entries of a checkpoint as another program may, without the checks of save."""
    entries = torch.load(path, weights_only=True)
    change(entries)
    with warnings.catch_warnings(action="ignore"):
        torch.save(entries, path)


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def make_nan(path: Path) -> None:
    rewritten(path, lambda entries: entries["G"]["synthesis.const"].fill_(float("nan")))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "damaged (checksum of": flip,
    "G.synthesis.const is not finite": make_nan,
    "not a checkpoint": lambda path: replaced(path, os.mkfifo),
    "No such file": lambda path: replaced(path, lambda p: p.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_latest_is_reported_and_the_run_goes_on_from_the_state_before(
    tiny_lmdb, tiny_run, own_run, damage
):
    DAMAGES[damage](own_run / "latest.pt")
    (told,) = train(tiny_lmdb, own_run, "--save_every", 3).succeeded().messages
    assert damage in told
    assert "using previous.pt" in told
    assert digest(own_run / "latest.pt") == digest(tiny_run / "latest.pt")
    previous = "previous.pt"
    assert (own_run / previous).read_bytes() == (tiny_run / previous).read_bytes()


def test_a_run_with_no_undamaged_state_is_one_line_and_stays_as_it_is(tiny_lmdb, own_run):
    for name in ("latest.pt", "previous.pt"):
        flip(own_run / name)
    before = hashes(own_run)
    assert "previous.pt: damaged" in train(tiny_lmdb, own_run, "--save_every", 3).failed()
    assert hashes(own_run) == before


def test_a_run_whose_states_are_gone_does_not_begin_anew(tiny_lmdb, own_run):
    """A new run would overwrite its snapshots and log."""
    for name in ("latest.pt", "previous.pt"):
        (own_run / name).unlink()
    before = hashes(own_run)
    error = fork("train.py", *flags(tiny_lmdb, own_run)).failed()
    assert "without latest.pt or previous.pt" in error
    assert hashes(own_run) == before


def group(**more: object) -> Callable[[Entries], object]:
    return lambda entries: entries["opt_G"]["param_groups"][0].update(more)


def moments(**more: object) -> Callable[[Entries], object]:
    return lambda entries: entries["opt_D"]["state"][0].update(more)


def entry(name: str, value: object) -> Callable[[Entries], object]:
    return lambda entries: entries.update({name: value})


UNFIT: list[Callable[[Entries], object]] = [
    *(group(lr=lr) for lr in (-1.0, 0.0, float("nan"), float("inf"), "x", None, torch.ones(3))),
    group(params=[]),
    *(moments(exp_avg=v) for v in (torch.zeros(0), torch.zeros(3), torch.zeros(9999), 5, "x")),
    moments(exp_avg_sq=torch.zeros(16, 16, dtype=torch.float64)),
    *(moments(step=step) for step in (torch.tensor(-3.0), torch.zeros(3), "x", None)),
    moments(more=torch.zeros(3)),
    lambda entries: entries["opt_D"]["state"].update({10**6: entries["opt_D"]["state"][0]}),
    lambda entries: entries["opt_D"]["state"].update(x={}),
    lambda entries: entries.pop("D"),  # a snapshot
    lambda entries: entries["G"].update({"synthesis.const": torch.zeros(1, 99, 4, 4)}),
    entry("scaler", {"scale": "x"}),
    entry("ada", {"p": torch.ones(9), "signs": torch.ones(()), "seen": 0}),
    *(
        entry(name, value)
        for name in ("iteration", "nimg")
        for value in (-5, 3.5, "x", None, float("nan"), 10**30, [], True)
    ),
]


def state_of(lmdb: Path, out: Path) -> TrainState:
    """Return a new state of a tiny run."""
    args = script.parse_args(flags(lmdb, out))
    cpu = torch.device("cpu")
    return TrainState(model_config(args, {}), train_config(args, cpu, {}), cpu)


def test_a_state_that_does_not_fit_is_refused_in_one_line(tiny_lmdb, own_run):
    """With moments of another shape the fused Adam would die of SIGSEGV."""
    entries = torch.load(own_run / "latest.pt", weights_only=True)
    state = state_of(tiny_lmdb, own_run)
    assert recovery.resume(state, own_run, pytest.fail)
    (own_run / "previous.pt").unlink()
    for number, change in enumerate(UNFIT):
        odd = copy.deepcopy(entries)
        change(odd)
        with warnings.catch_warnings(action="ignore"):
            torch.save(odd, own_run / "latest.pt")
        with pytest.raises(CheckpointError, match=r"not a state of this run|not finite") as error:
            recovery.resume(state, own_run, pytest.fail)
        assert len(str(error.value)) < 600, number


def test_an_unfit_state_ends_train_in_one_line(tiny_lmdb, own_run):
    rewritten(own_run / "latest.pt", moments(exp_avg=torch.zeros(9999)))
    before = hashes(own_run)
    assert "not a state of this run" in train(tiny_lmdb, own_run, "--save_every", 3).failed()
    assert hashes(own_run) == before


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("G", []), ("G", None), ("G", torch.ones(1)), ("G", {"synthesis.const": 5}),
        ("G", {"synthesis.const": torch.ones(1, 7, 4, 4, dtype=torch.long)}), ("D", []),
        ("D", None),
    ],
)  # fmt: skip
def test_weights_to_start_from_that_are_no_network_are_refused(tiny_lmdb, own_run, name, weights):
    rewritten(own_run / "latest.pt", entry(name, weights))
    with pytest.raises(CheckpointError, match=r"^--init_from "):
        recovery.start_from(state_of(tiny_lmdb, own_run), own_run / "latest.pt", pytest.fail)


def test_starting_from_a_run_whose_latest_is_damaged_takes_the_state_before(tiny_lmdb, own_run):
    os.truncate(own_run / "latest.pt", 5000)
    told: list[str] = []
    recovery.start_from(state_of(tiny_lmdb, own_run), own_run, told.append)
    assert "truncated" in told[0]
    assert told[0].endswith("trying the next")
    assert told[1] == f"weights from {own_run / 'previous.pt'}"


# Numbers that are not finite


def rate(run: Path) -> float:
    """Return the learning rate of G that a run goes on with."""
    return float(checkpoint.load(run / "latest.pt")["opt_G"]["param_groups"][0]["lr"])


def spoil(state: TrainState) -> None:
    next(state.G.parameters()).data.fill_(float("nan"))


NAN = ("--iterations", 12, "--save_every", 5)


def test_a_run_that_overflows_goes_back_with_half_its_learning_rates(
    tiny_lmdb, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "LOG_EVERY", 10)
    out, do = tmp_path / "run", {7: lambda state: state.lr > 3e-4 and spoil(state)}
    told = train(tiny_lmdb, out, *NAN, do=do).succeeded().messages
    assert len(told) == 2  # at 0.001 and at 0.0005, not at 0.00025
    for line in told:
        assert (
            "by iteration 10 (3 steps had losses that are not finite): back at iteration 5" in line
        )
    assert rate(out) == 0.00025
    assert [(line["iteration"], line["lr"]) for line in log_of(out)] == [(10, 0.00025)]


def test_a_run_that_overflows_at_an_eighth_of_its_rates_ends_and_keeps_its_last_good_state(
    tiny_lmdb, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "LOG_EVERY", 10)
    out = tmp_path / "run"
    errors = []
    for tries in (4, 1):  # a run that has ended so has no more tries
        ended = train(tiny_lmdb, out, *NAN, do={7: spoil})
        errors.append(ended.failed())
        assert len(ended.messages) == tries
    assert errors[0] == errors[1]
    for word in ("--lr", "--out", "--init_from", "the state of iteration 5 is kept"):
        assert word in errors[0]
    assert (iteration_of(out), rate(out)) == (5, 0.000125)
    assert [path.name for path in (out / "snapshots").iterdir()] == ["000005.pt"]


class Killed(BaseException):
    """Ends a run without notice, as far as its folder shows."""


def kill(_: TrainState) -> None:
    raise Killed


def test_a_lowered_learning_rate_outlasts_a_kill(tiny_lmdb, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 10)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    do = {7: lambda state: state.lr > 3e-4 and spoil(state)}
    given = ("--iterations", 12, "--save_every", 20)  # what it goes back to is its beginning
    train(tiny_lmdb, whole, *given, do=do).succeeded()
    for at in (3, 9, 11):
        stop = {at: lambda state: state.lr < 6e-4 and kill(state)}
        with pytest.raises(Killed):
            train(tiny_lmdb, killed, *given, do={**do, **stop})
        assert rate(killed) < 6e-4
    train(tiny_lmdb, killed, *given, do=do).succeeded()
    for name in ("latest.pt", "snapshots/000012.pt"):
        assert digest(killed / name) == digest(whole / name)
    grids = [[*hashes(run / "samples").values()] for run in (killed, whole)]
    assert grids[0] == grids[1]


# Kills

KILL_AT_5 = """
import os
from training import step as training
step = training.train_step
def killed(state, *rest):
    return os.kill(os.getpid(), 9) if state.iteration == 5 else step(state, *rest)
training.train_step = killed
"""


def test_a_killed_run_goes_on_to_the_same_end(tiny_lmdb, tiny_run, tmp_path):
    out = tmp_path / "run"
    again = flags(tiny_lmdb, out, "--save_every", 3)
    assert fork("train.py", *again, patch=KILL_AT_5).code == -signal.SIGKILL
    assert iteration_of(out) == 3
    train(tiny_lmdb, out, "--save_every", 3).succeeded()
    assert digest(out / "latest.pt") == digest(tiny_run / "latest.pt")


PHASES = ("--max_size", 16, "--phase", 160, "--iterations", 200, "--save_every", 12)
PHASES = (*PHASES, "--sample_every", 40)  # a phase is of 40 iterations, the last ends the run


@pytest.fixture(scope="module")
def unbroken(tiny_lmdb: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run through every phase, and the seconds it took."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    begin = time.monotonic()
    fork("train.py", *flags(tiny_lmdb, out, *PHASES)).succeeded()
    return out, time.monotonic() - begin


def assert_same_run(out: Path, expected: Path) -> None:
    snapshots = [f"snapshots/{path.name}" for path in (expected / "snapshots").iterdir()]
    for name in ("latest.pt", *snapshots):
        assert digest(out / name) == digest(expected / name), name
    ours, theirs = (hashes(each / "samples") for each in (out, expected))
    assert list(ours.values()) == list(theirs.values())
    assert [line["iteration"] for line in log_of(out)] == [50, 100, 150, 200]
    assert {path.name for path in out.iterdir()} == {path.name for path in expected.iterdir()}


@pytest.mark.slow
def test_runs_killed_fifty_times_end_like_one_never_killed(tiny_lmdb, unbroken, tmp_path):
    expected, seconds = unbroken
    moments = random.Random(0)
    kills, reached = 0, set()
    while kills < 50:
        out = tmp_path / "run"
        code = -9
        while code == -9:
            wait = moments.uniform(0.02, 0.5) * seconds
            ended = fork("train.py", *flags(tiny_lmdb, out, *PHASES), kill_after=wait)
            code = ended.code
            kills += code == -9
            if (out / "latest.pt").exists():
                reached.add(checkpoint.load(find(out))["stage"][0])
        assert code == 0, ended.err
        assert_same_run(out, expected)
        shutil.rmtree(out)
    assert reached == {4, 8, 16}


KILL_IN_SAVE = """
import os, torch
calls = 0
def counting(real):
    def call(*args, **more):
        global calls
        calls += 1
        if calls == {n}:
            os.kill(os.getpid(), 9)
        return real(*args, **more)
    return call
from training import recovery
save = recovery.save_latest
def save_latest(run, config, entries):
    if entries["iteration"] and calls == 0:
        os.fsync, os.replace = counting(os.fsync), counting(os.replace)
        torch.save = counting(torch.save)
    return save(run, config, entries)
recovery.save_latest = save_latest
"""
KILL_IN_WRITE = """
import resource, signal
from training import step as training
step = training.train_step
def limited(*args):
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))
    return step(*args)
training.train_step = limited
"""


@pytest.mark.slow
def test_a_run_killed_before_each_write_and_rename_of_a_save_has_the_old_state_or_the_new(
    tiny_lmdb, unbroken, tmp_path
):
    out = tmp_path / "run"
    again = flags(tiny_lmdb, out, *PHASES)
    assert fork("train.py", *again, patch=KILL_IN_WRITE).code == -signal.SIGXFSZ
    last = 0
    for n in range(1, 12):  # by then every call of a save has been tried
        ended = fork("train.py", *again, patch=KILL_IN_SAVE.format(n=n))
        if ended.code == 0:
            break
        assert ended.code == -9, ended.err
        iteration = checkpoint.load(find(out))["iteration"]
        assert iteration >= last
        last = iteration
    assert n >= 9
    fork("train.py", *again).succeeded()
    assert_same_run(out, unbroken[0])


# Signals


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_saves_and_ends_the_run_and_the_same_command_goes_on(
    tiny_lmdb, tiny_run, tmp_path, number, code
):
    out = tmp_path / "run"
    do = {4: lambda _: signal.raise_signal(signal.Signals[number])}
    ended = train(tiny_lmdb, out, "--save_every", 3, do=do)
    assert ended.code == code
    said = "train.py: stopped at iteration 5, saved; the same command continues"
    assert ended.messages == [said]
    assert iteration_of(out) == 5
    train(tiny_lmdb, out, "--save_every", 3).succeeded()
    assert digest(out / "latest.pt") == digest(tiny_run / "latest.pt")


def terminate(_: TrainState) -> None:
    signal.raise_signal(signal.SIGTERM)


def test_a_run_stopped_at_every_change_of_phase_ends_like_one_never_stopped(tiny_lmdb, tmp_path):
    phases = ("--max_size", 16, "--phase", 16, "--iterations", 20)  # a phase is of 4 iterations
    whole, out = tmp_path / "whole", tmp_path / "run"
    train(tiny_lmdb, whole, *phases).succeeded()
    for at in (3, 4, 6, 8, 12, 14, 19):  # phases change at 4, 8, 12 and 16
        assert train(tiny_lmdb, out, *phases, do={at - 1: terminate}).code == 143
        assert iteration_of(out) == at
    ended = train(tiny_lmdb, out, *phases, do={19: terminate})
    assert "done: " in ended.succeeded().out  # all is done and saved
    assert digest(out / "latest.pt") == digest(whole / "latest.pt")
    grid = "samples/000020.png"
    assert (out / grid).read_bytes() == (whole / grid).read_bytes()


def test_under_nohup_a_closed_terminal_does_not_end_the_run(tiny_lmdb, tmp_path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    do = {2: lambda _: signal.raise_signal(signal.SIGHUP)}
    train(tiny_lmdb, tmp_path / "run", do=do).succeeded()


TWICE = """
import os
from training import step as training
training.train_step = lambda *_: [os.kill(os.getpid(), 2) for _ in range(2)]
"""


def test_a_second_signal_ends_the_run_at_once(tiny_lmdb, tmp_path):
    ended = fork("train.py", *flags(tiny_lmdb, tmp_path / "run"), patch=TWICE)
    assert ended.code == -signal.SIGINT
    assert iteration_of(tmp_path / "run") == 0


def catches(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


@pytest.mark.parametrize("delay", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_ctrl_c_while_the_program_starts_is_one_line(tiny_lmdb, tmp_path, delay):
    starting = start(process(tiny_lmdb, tmp_path / "run", "--iterations", 10**6))
    until = time.monotonic() + 60
    while not catches(starting.pid, signal.SIGHUP) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(delay)
    starting.send_signal(signal.SIGINT)
    ended = end(starting)
    assert (ended.code, len(ended.messages)) == (130, 1), ended


@pytest.mark.slow
def test_a_terminal_that_is_closed_saves_and_ends_the_run(tiny_lmdb, tmp_path):
    out = tmp_path / "run"
    argv = process(tiny_lmdb, out, "--iterations", 10**6)
    pid, terminal = os.forkpty()
    if not pid:
        os.execve(argv[0], argv, ENV)
    until = time.monotonic() + 300
    while not (out / "samples" / "000100.png").exists() and time.monotonic() < until:
        os.read(terminal, 10_000)
    os.close(terminal)
    ended, status = 0, 0
    while not ended and time.monotonic() < until:
        time.sleep(0.05)
        ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    assert ended, "hung"
    assert os.waitstatus_to_exitcode(status) == 129
    assert iteration_of(out) >= 100


# The run folder


def test_a_second_run_in_one_folder_is_refused(tiny_lmdb, own_run):
    before = hashes(own_run)
    with recovery.claim(own_run):
        error = train(tiny_lmdb, own_run, "--save_every", 3).failed()
    assert "another train.py is at work here" in error
    assert hashes(own_run) == before


def test_a_run_folder_that_is_moved_away_keeps_its_state_and_goes_on_there(
    tiny_lmdb, own_run, tmp_path
):
    long, away = ("--save_every", 3, "--iterations", 9), tmp_path / "away"
    ended = train(tiny_lmdb, own_run, *long, do={7: lambda _: own_run.rename(away)})
    assert "the state before is kept" in ended.failed()
    assert not own_run.exists()
    train(tiny_lmdb, away, *long).succeeded()
    assert iteration_of(away) == 9


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device", "somewhere")


def test_no_space_for_a_grid_is_reported_and_the_run_goes_on(tiny_lmdb, tmp_path, monkeypatch):
    monkeypatch.setattr("training.log.write_image", full)
    (told,) = train(tiny_lmdb, tmp_path / "run").succeeded().messages
    assert "No space left on device" in told
    assert iteration_of(tmp_path / "run") == 6


def test_no_space_for_a_state_ends_the_run_and_keeps_the_one_before(
    tiny_lmdb, tmp_path, monkeypatch
):
    do = {2: lambda _: monkeypatch.setattr(os, "fsync", full)}
    error = train(tiny_lmdb, tmp_path / "run", do=do).failed()
    assert "No space left on device; the state before is kept" in error
    assert iteration_of(tmp_path / "run") == 0
    assert not list(tmp_path.rglob("*.tmp"))


FILL = """
import pathlib, runpy, sys
sys.argv = sys.argv[1:]
sys.path.insert(0, str(pathlib.Path(sys.argv[0]).parent))
from training import step as training
step = training.train_step
def step_and_fill(state, *rest):
    if state.iteration == 15:
        try:
            pathlib.Path(r"{disk}", "full").write_bytes(bytes(2**27))
        except OSError:
            pass
    return step(state, *rest)
training.train_step = step_and_fill
runpy.run_path(sys.argv[0], run_name="__main__")
"""
LARGE = ("--w_dim", 512, "--mapping_layers", 8)
MB = 34  # of a checkpoint of a tiny run that is LARGE


@pytest.mark.slow
def test_a_disk_that_fills_up_while_training_leaves_the_state_before(tiny_lmdb, tmp_path):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    length = ("--iterations", 120, "--sample_every", 10)
    python, *argv = process(tiny_lmdb, disk / "run", *LARGE, *length)
    keep = ["sh", "-c", f'"$@"; code=$?; cp -r "$0"/run {kept}; exit $code', str(disk)]
    filling = [*keep, python, "-c", FILL.format(disk=disk), *argv]
    ended = run(on_small_disk(disk, 2.5 * MB, filling))
    assert "No space left" in ended.failed()
    assert len(ended.messages) == 2  # of log and grids, and of the state
    assert "training goes on" in ended.messages[0]
    assert iteration_of(kept) == 0
    assert not list(kept.rglob("*.tmp"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_goes_on_on_another_device(tiny_lmdb, tmp_path):
    out = tmp_path / "run"
    for n, device in enumerate(("cpu", "cuda", "cpu"), start=1):
        more = ("--device", device, "--iterations", 3 * n)
        ended = run(process(tiny_lmdb, out, *more), seconds=120).succeeded()
        assert n == 1 or f"device {device}" in ended.err
        assert iteration_of(out) == 3 * n
