"""train.py under faults, T1 to T28: one line, the right exit code, nothing lost, no hang."""

import json
import os
import random
import shutil
import signal
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch

from checkpoints import checkpoint
from checkpoints.run_folder import find
from tests.support.run import (
    ENV,
    bound_by_modes,
    children,
    command,
    end,
    flip,
    fork,
    hashes,
    numbers,
    on_read_only,
    on_small_disk,
    run,
    start,
    wait_for,
)

TINY = ("--init_size", "4", "--max_size", "8", "--width", "0.015", "--batch", "4", "--precision")
TINY = (
    *TINY,
    "fp32",
    "--lr",
    "0.001",
    "--iterations",
    "6",
)  # of flags given twice, the last counts
LARGE = ("--w_dim", 512, "--mapping_layers", 8)
MB = 34  # of a checkpoint of a tiny run that is LARGE


def flags(lmdb_path: Path, out: Path, *more: object) -> list[str]:
    return [str(lmdb_path), "--out", str(out), *TINY, *map(str, more)]


def train(lmdb_path: Path, out: Path, *more: object) -> list[str]:
    return command("train.py", *flags(lmdb_path, out, *more))


@pytest.fixture
def data(tiny_lmdb: Path, tmp_path: Path) -> Path:
    """A database of one's own, to spoil."""
    return Path(shutil.copytree(tiny_lmdb, tmp_path / "data.lmdb"))


@pytest.fixture(scope="module")
def trained(tiny_lmdb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six iterations, saved at 0, 3 and 6."""
    out = tmp_path_factory.mktemp("trained") / "run"
    fork("train.py", *flags(tiny_lmdb, out, "--save_every", 3)).succeeded()
    return out


@pytest.fixture
def done(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run, to spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def change_records(path: Path, records: dict[bytes, bytes | None]) -> None:
    """Put or delete records of an LMDB."""
    with lmdb.open(str(path), map_size=2**26) as env, env.begin(write=True) as txn:
        for key, value in records.items():
            if value is None:
                txn.delete(key)
            else:
                txn.put(key, value)


class Malice:
    """Makes a folder where it is unpickled without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


# The data


def test_t01_no_database(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T1: missing, an empty folder, a plain file: a line, and a mistyped path stays free."""
    (tmp_path / "text").write_text("no database")
    (tmp_path / "empty").mkdir()
    before = hashes(tmp_path)
    for name, told in (("missing", "no such"), ("text", "a file"), ("empty", "without data.mdb")):
        ended = fork("train.py", *flags(tmp_path / name, tmp_path / "run"))
        assert told in ended.failed()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "text"]
    assert hashes(tmp_path) == before


def test_t02_truncated_database(data: Path, done: Path) -> None:
    """T2: a truncated data.mdb is a line with the bytes there and needed, never a SIGBUS."""
    file = data / "data.mdb"
    whole = file.stat().st_size
    before = hashes(done)
    for size in (whole - 4096, whole // 2, 8192):
        os.truncate(file, size)
        error = fork("train.py", *flags(data, done)).failed()
        assert f"truncated, {size:,} of {whole:,} bytes" in error
    assert hashes(done) == before


def test_t03_damaged_database(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T3: a flipped byte in a JPEG names the record; random pages are one line."""
    with lmdb.open(str(tiny_lmdb), readonly=True, lock=False) as env, env.begin() as txn:
        record = bytes(txn.get(b"16-00007"))
    for name in ("flipped", "random"):
        data = Path(shutil.copytree(tiny_lmdb, tmp_path / name))
        file = data / "data.mdb"
        content = file.read_bytes()
        if name == "flipped":
            at = content.index(record[100:]) + 50
            file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        else:
            noise = np.random.default_rng(0).bytes(len(content) - 8192)
            file.write_bytes(content[:8192] + noise)
        error = fork("train.py", *flags(data, tmp_path / "run")).failed()
        assert name == "random" or "16-00007" in error
        assert not (tmp_path / "run").exists()


T4: dict[str, tuple[dict[bytes, bytes | None], str]] = {
    "no length": ({b"length": None}, "'length'"),
    "length a text": ({b"length": b"many"}, "'length'"),
    "length negative": ({b"length": b"-3"}, "'length'"),
    "length huge": ({b"length": b"1000000000000"}, "'length'"),
    "a key missing": ({b"16-00003": None}, "16-00003"),
    "a record empty": ({b"16-00003": b""}, "16-00003"),
    "not a JPEG": ({b"16-00003": b"x" * 500, b"meta": None}, "16-00003"),
}


def test_t04_wrong_records(tiny_lmdb: Path, red_lmdb: Path, tmp_path: Path) -> None:
    """T4: length wrong, a record missing, empty, no JPEG or of another size: one line first."""
    with lmdb.open(str(red_lmdb), readonly=True, lock=False) as env, env.begin() as txn:
        smaller = bytes(txn.get(b"8-00000"))
    cases = {**T4, "of 8 px": ({b"16-00003": smaller, b"meta": None}, "8 x 8 px")}
    for name, (records, told) in cases.items():
        data = Path(shutil.copytree(tiny_lmdb, tmp_path / name))
        change_records(data, records)
        assert told in fork("train.py", *flags(data, tmp_path / "run")).failed(), name
    assert not (tmp_path / "run").exists()


def test_t05_foreign_database(tmp_path: Path) -> None:
    """T5: an LMDB of another program is told, and is as it was."""
    data = tmp_path / "other.lmdb"
    change_records(data, {b"a": b"1", b"b": b"2", b"c": b"3"})
    before = hashes(data / "data.mdb")
    assert "prepare_data.py" in fork("train.py", *flags(data, tmp_path / "run")).failed()
    assert hashes(data / "data.mdb") == before
    assert not (tmp_path / "run").exists()


def test_t06_few_images(red_lmdb: Path, tmp_path: Path) -> None:
    """T6: no image, one image, fewer than a batch: a line; as many as a batch: it trains."""
    short = ("--max_size", 8, "--iterations", 2)
    for count in (0, 1):
        data = Path(shutil.copytree(red_lmdb, tmp_path / str(count)))
        gone = {b"8-%05d" % i: None for i in range(count, 8)}
        change_records(data, {**gone, b"meta": None, b"length": str(count).encode()})
        fork("train.py", *flags(data, tmp_path / "run", *short)).failed()
    error = fork("train.py", *flags(red_lmdb, tmp_path / "run", *short, "--batch", 9)).failed()
    assert "8 images; expected at least a batch of 9" in error
    assert not (tmp_path / "run").exists()
    fork("train.py", *flags(red_lmdb, tmp_path / "run", *short, "--batch", 8)).succeeded()


@pytest.mark.slow
def test_t07_database_on_read_only_media(data: Path, tmp_path: Path) -> None:
    """T7: a database that may only be read, on such media or by its modes, trains."""
    before = hashes(data)
    run(on_read_only(data, train(data, tmp_path / "media"))).succeeded()
    for path in (*data.iterdir(), data):
        path.chmod(0o555 if path.is_dir() else 0o444)
    run(bound_by_modes(train(data, tmp_path / "modes"))).succeeded()
    assert hashes(data) == before


# Checkpoints that are there


def not_regular(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


T8: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: os.truncate(path, 0),
    "1 byte": lambda path: os.truncate(path, 1),
    "100 bytes": lambda path: os.truncate(path, 100),
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "but 1 byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "text": lambda path: path.write_text("no checkpoint\n" * 100),
    "a folder": lambda path: not_regular(path, Path.mkdir),
    "a FIFO": lambda path: not_regular(path, os.mkfifo),
}


def test_t08_truncated_checkpoint(tiny_lmdb: Path, trained: Path, tmp_path: Path) -> None:
    """T8: a spoiled latest.pt is told and previous.pt used, and kept; both spoiled: one line."""
    expected = numbers(trained / "latest.pt")
    sound = (trained / "previous.pt").read_bytes()
    for name, change in T8.items():
        out = Path(shutil.copytree(trained, tmp_path / name))
        change(out / "latest.pt")
        ended = fork("train.py", *flags(tiny_lmdb, out, "--save_every", 3)).succeeded()
        assert "using previous.pt" in ended.err, name
        assert numbers(out / "latest.pt") == expected, name
        assert (out / "previous.pt").read_bytes() == sound, "the sound one was lost"
    for each in ("latest.pt", "previous.pt"):
        T8["half"](out / each)
    before = hashes(out)
    assert "previous.pt" in fork("train.py", *flags(tiny_lmdb, out, "--save_every", 3)).failed()
    assert hashes(out) == before


def test_t09_flipped_byte_in_checkpoint(tiny_lmdb: Path, done: Path) -> None:
    """T9: a flipped byte is found by its checksum, told, and previous.pt used."""
    expected = numbers(done / "latest.pt")
    flip(done / "latest.pt")
    ended = fork("train.py", *flags(tiny_lmdb, done, "--save_every", 3)).succeeded()
    assert "damaged (checksum of" in ended.err
    assert numbers(done / "latest.pt") == expected
    for name in ("latest.pt", "previous.pt"):
        flip(done / name)
    assert "checksum" in fork("train.py", *flags(tiny_lmdb, done)).failed()


def test_t10_checkpoint_of_another_run(
    tiny_lmdb: Path, red_lmdb: Path, trained: Path, tmp_path: Path
) -> None:
    """T10: of another width, size or photos, or a snapshot: a line with the first difference."""
    other = tmp_path / "other"
    fork("train.py", *flags(tiny_lmdb, other, "--width", 0.02)).succeeded()
    shutil.copy(trained / "snapshots" / "000006.pt", tmp_path / "snapshot.pt")
    for source, told in (
        (other / "latest.pt", " in the file and "),
        (tmp_path / "snapshot.pt", "no tensor in the file"),
    ):
        out = Path(shutil.copytree(trained, tmp_path / "run"))
        shutil.copy(source, out / "latest.pt")
        before = hashes(out)
        error = fork("train.py", *flags(tiny_lmdb, out)).failed()
        assert told in error
        assert len(error) < 400
        assert hashes(out) == before
        shutil.rmtree(out)
    out = Path(shutil.copytree(trained, tmp_path / "run"))
    error = fork("train.py", *flags(tiny_lmdb, out, "--max_size", 16)).failed()
    assert "--max_size 16: the run in" in error
    error = fork("train.py", *flags(red_lmdb, out)).failed()
    assert "other photos" in error
    assert numbers(out / "latest.pt") == numbers(trained / "latest.pt")


def bomb(path: Path, members: dict[str, bytes]) -> None:
    """Write 300 MB of zeros as an archive of 300 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_t11_malicious_checkpoint(tiny_lmdb: Path, trained: Path, tmp_path: Path) -> None:
    """T11: code, zip bombs, tensors larger than their file, TorchScript: a line, little memory."""
    marker = tmp_path / "marker"
    entries = torch.load(trained / "latest.pt", weights_only=True)
    huge = torch.zeros(1).expand(2**40)
    makers: dict[str, Callable[[Path], object]] = {
        "code": lambda path: torch.save({**entries, "more": Malice(marker)}, path),
        "bomb": lambda path: bomb(path, {"a/data.pkl": b"", "a/data/0": bytes(300 << 20)}),
        "expanded": lambda path: torch.save({**entries, "more": huge}, path),
        "script": lambda path: torch.jit.save(
            torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), path
        ),
    }
    plain = fork("train.py", *flags(tiny_lmdb, tmp_path / "plain", "--iterations", 1)).peak
    for name, make in makers.items():
        bad = tmp_path / f"{name}.pt"
        with warnings.catch_warnings(action="ignore"):
            make(bad)
        for where in ("latest.pt", "--init_from"):
            out = tmp_path / f"run-{name}-{where}"
            more: list[object] = []
            if where == "latest.pt":
                shutil.copytree(trained, out)
                (out / "previous.pt").unlink()
                shutil.copy(bad, out / "latest.pt")
            else:
                more = ["--init_from", bad]
            ended = fork("train.py", *flags(tiny_lmdb, out, *more), memory=4096)
            assert "not a checkpoint" in ended.failed(), name
            assert "weights_only" not in ended.err
            assert ended.peak < plain + 200, name
    assert not marker.exists()


def test_t12_weights_not_finite_in_checkpoint(tiny_lmdb: Path, done: Path) -> None:
    """T12: NaN weights are told by name and previous.pt used; nowhere else to go: one line."""
    expected = numbers(done / "latest.pt")
    for name in ("latest.pt", "previous.pt"):
        entries = torch.load(done / name, weights_only=True)
        entries["G"]["synthesis.const"].fill_(float("nan"))
        torch.save(entries, done / f"nan-{name}")
    os.replace(done / "nan-latest.pt", done / "latest.pt")
    ended = fork("train.py", *flags(tiny_lmdb, done, "--save_every", 3)).succeeded()
    assert "G.synthesis.const is not finite" in ended.err
    assert numbers(done / "latest.pt") == expected
    shutil.copy(done / "nan-previous.pt", done / "latest.pt")
    (done / "previous.pt").unlink()
    assert "not finite" in fork("train.py", *flags(tiny_lmdb, done)).failed()


# Not a number

POISON = """
from training import step as training
step = training.generator_step
def poisoned(state, *given):
    figures = step(state, *given)
    if ({when}):
        next(state.G.parameters()).data.fill_(float("nan"))
    return figures
training.generator_step = poisoned
"""
LOUD = POISON.format(when="state.iteration == 35 and state.lr > 3e-4")
ALWAYS = POISON.format(when="state.iteration == 35")
LONG = ("--iterations", 60, "--save_every", 25, "--sample_every", 30)


def rate(path: Path) -> float:
    return float(checkpoint.load(path)["opt_G"]["param_groups"][0]["lr"])


@pytest.mark.slow
def test_t13_not_finite_in_training(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T13: NaN is counted and told, the run goes back at half the rate, three times, then stops."""
    out = tmp_path / "run"
    ended = fork("train.py", *flags(tiny_lmdb, out, *LONG), patch=LOUD).succeeded()
    assert len(ended.told) == 2, ended.err  # at 0.001 and at 0.0005, not at 0.00025
    for line in ended.told:
        assert "by iteration 50 14 steps had losses that are not finite" in line
        assert "back at iteration 25" in line
    assert rate(out / "latest.pt") == 0.00025
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(record["iteration"], record["lr"]) for record in records] == [(50, 0.00025)]

    stopped = tmp_path / "stopped"
    ended = fork("train.py", *flags(tiny_lmdb, stopped, *LONG), patch=ALWAYS)
    error = ended.failed()
    assert len(ended.told) == 4
    for word in ("--lr", "--out", "--init_from", "the state of iteration 25 is kept"):
        assert word in error
    assert checkpoint.load(stopped / "latest.pt")["iteration"] == 25
    assert rate(stopped / "latest.pt") == 0.000125
    assert numbers(stopped / "snapshots" / "000025.pt")
    assert not (stopped / "snapshots" / "000050.pt").exists()
    before = numbers(stopped / "latest.pt")
    again = fork("train.py", *flags(tiny_lmdb, stopped, *LONG), patch=ALWAYS)
    assert len(again.told) == 1, "a run that was stopped has no more tries"
    assert again.failed() == error
    assert numbers(stopped / "latest.pt") == before


@pytest.mark.slow
def test_t13_lowered_rate_outlasts_a_kill(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T13: a run that went back and was killed ends as one that went back alone."""
    fork("train.py", *flags(tiny_lmdb, tmp_path / "whole", *LONG), patch=LOUD).succeeded()
    kill = "import os, signal\n" + LOUD.replace(
        "    return figures",
        "    if state.iteration == {at} and state.lr < 6e-4:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return figures",
    )
    out = tmp_path / "killed"
    for at in (30, 40, 55):
        ended = fork("train.py", *flags(tiny_lmdb, out, *LONG), patch=kill.replace("{at}", str(at)))
        assert ended.code == -signal.SIGKILL
    fork("train.py", *flags(tiny_lmdb, out, *LONG), patch=LOUD).succeeded()
    for name in ("latest.pt", "snapshots/000060.pt", "snapshots/000050.pt"):
        assert numbers(out / name) == numbers(tmp_path / "whole" / name)
    grids = [[*hashes(each / "samples").values()] for each in (out, tmp_path / "whole")]
    assert grids[0] == grids[1]


@pytest.mark.slow
def test_t13_a_rate_far_too_high(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T13: without any trap, a run whose numbers overflow by themselves ends with one line."""
    out = tmp_path / "run"
    wild = ("--lr", 1, "--d_lr", 1, "--loss", "wgan-gp", "--iterations", 300, "--precision", "fp16")
    wild = (*wild, "--width", 0.25)
    ended = fork("train.py", *flags(tiny_lmdb, out, *wild), seconds=120)
    assert "--lr" in ended.failed()
    assert numbers(out / "latest.pt")


# Kills

PHASES = ("--max_size", 16, "--phase", 160, "--iterations", 200, "--save_every", 12)
PHASES = (*PHASES, "--sample_every", 40)  # a phase is of 40 iterations, the last ends the run


@pytest.fixture(scope="module")
def unbroken(tiny_lmdb: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run through every phase change, and the seconds it took."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    begin = time.monotonic()
    fork("train.py", *flags(tiny_lmdb, out, *PHASES)).succeeded()
    return out, time.monotonic() - begin


def assert_same_run(out: Path, expected: Path) -> None:
    names = ["latest.pt"]
    names += [f"snapshots/{path.name}" for path in (expected / "snapshots").iterdir()]
    for name in names:
        assert numbers(out / name) == numbers(expected / name), name
    ours, theirs = (hashes(each / "samples") for each in (out, expected))
    assert list(ours.values()) == list(theirs.values())
    iterations = [
        json.loads(line)["iteration"] for line in (out / "log.jsonl").read_text().splitlines()
    ]
    assert iterations == [50, 100, 150, 200]
    left = {path.name for path in out.iterdir()}
    assert left == {path.name for path in expected.iterdir()}


def kill_and_resume(lmdb: Path, unbroken: tuple[Path, float], folder: Path, times: int) -> set[int]:
    """Kill runs at random moments, `times` in all, and compare each with the unbroken one.

    Returns the resolutions that were reached when a run was killed.
    """
    expected, seconds = unbroken
    moments = random.Random(0)
    kills, runs, seen = 0, 0, set()
    while kills < times:
        out = folder / str(runs)
        runs += 1
        code = -9
        while code == -9:
            wait = moments.uniform(0.02, 0.5) * seconds
            again = flags(lmdb, out, *PHASES)
            ended = fork("train.py", *again, kill_after=wait)
            code = ended.code
            kills += code == -9
            if (out / "latest.pt").exists():
                seen.add(checkpoint.load(find(out))["stage"][0])
        assert code == 0, ended.err
        assert_same_run(out, expected)
        shutil.rmtree(out)
    print(f"T14: {kills} kills in {runs} runs")
    return seen


def test_t14_killed_five_times(
    tiny_lmdb: Path, unbroken: tuple[Path, float], tmp_path: Path
) -> None:
    """T14: killed without notice at 5 random moments and resumed: the same to the last bit."""
    assert kill_and_resume(tiny_lmdb, unbroken, tmp_path, 5)


@pytest.mark.slow
def test_t14_killed_fifty_times(
    tiny_lmdb: Path, unbroken: tuple[Path, float], tmp_path: Path
) -> None:
    """T14: at 50 random moments, at every resolution."""
    assert kill_and_resume(tiny_lmdb, unbroken, tmp_path, 50) == {4, 8, 16}


KILL_IN_SAVE = """
import os, signal
calls = 0
def counting(real):
    def call(*args, **more):
        global calls
        calls += 1
        if calls == {n}:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **more)
    return call
import torch
def arm():
    os.fsync, os.replace = counting(os.fsync), counting(os.replace)
    torch.save = counting(torch.save)
from training import recovery
from training import step as training
save = recovery.save_latest
def save_latest(run, config, entries):
    if entries["iteration"] and calls == 0:
        arm()
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
def test_t15_killed_inside_the_save(
    tiny_lmdb: Path, unbroken: tuple[Path, float], tmp_path: Path
) -> None:
    """T15: killed before each write, sync and rename of a save: the old state or the new."""
    expected, _ = unbroken
    out = tmp_path / "run"
    again = flags(tiny_lmdb, out, *PHASES)
    ended = fork("train.py", *again, patch=KILL_IN_WRITE)
    assert ended.code == -signal.SIGXFSZ
    last, n = 0, 0
    while True:
        n += 1
        ended = fork("train.py", *again, patch=KILL_IN_SAVE.format(n=n))
        if ended.code == 0:
            break
        assert ended.code == -9, ended.err
        iteration = checkpoint.load(find(out))["iteration"]
        assert iteration >= last
        last = iteration
        if n == 12:  # every point of a save is behind us
            fork("train.py", *again).succeeded()
            break
    assert n >= 9
    assert_same_run(out, expected)


# Signals

TWICE = """
import os, signal, threading, time
from checkpoints import checkpoint
save = checkpoint.save
def slow_save(path, config, entries):
    time.sleep(400 if entries["iteration"] else 0)
    save(path, config, entries)
checkpoint.save = slow_save
def send():
    for _ in range(2):
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGINT)
from training import step as training
step = training.train_step
def slow_step(state, *rest):
    if not state.iteration:
        threading.Thread(target=send, daemon=True).start()
    time.sleep(0.5)
    return step(state, *rest)
training.train_step = slow_step
"""


@pytest.mark.slow
def test_t16_signals(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T16: SIGINT, SIGTERM, SIGHUP save and end at the step's end; a second one quits at once."""
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        out = tmp_path / str(code)
        process = start(train(tiny_lmdb, out, "--iterations", 10**6))
        wait_for(out / "samples" / "000100.png", process)
        process.send_signal(number)
        ended = end(process)
        assert ended.code == code
        assert "the same command continues" in ended.told[0]
        assert len(ended.told) == 1
        assert checkpoint.load(out / "latest.pt")["iteration"] >= 100
    ended = fork("train.py", *flags(tiny_lmdb, tmp_path / "twice"), patch=TWICE)
    assert ended.code == -signal.SIGINT
    assert checkpoint.load(tmp_path / "twice" / "latest.pt")["iteration"] == 0


def test_t16_signal_before_the_first_step(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T16: Ctrl-C while the program is still starting is one line and its exit code."""
    for delay in (0, 1):
        process = start(train(tiny_lmdb, tmp_path / "run", "--iterations", 10**6))
        until = time.monotonic() + 60
        while not catches(process.pid, signal.SIGHUP) and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        ended = end(process)
        assert (ended.code, len(ended.told)) == (130, 1), ended


def catches(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


@pytest.mark.slow
def test_t16_terminal_closed_and_nohup(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T16: a closed terminal saves and ends; under nohup the run goes on."""
    out = tmp_path / "run"
    argv = train(tiny_lmdb, out, "--iterations", 10**6)
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
    assert checkpoint.load(out / "latest.pt")["iteration"] >= 100

    ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    hang_up = (
        ignored + "import os\nfrom training import step as training\nstep = training.train_step\n"
    )
    hang_up += "training.train_step = lambda *args: os.kill(os.getpid(), 1) or step(*args)\n"
    fork("train.py", *flags(tiny_lmdb, tmp_path / "nohup"), patch=hang_up).succeeded()


@pytest.mark.slow
def test_t17_resumed_at_every_turn(
    tiny_lmdb: Path, unbroken: tuple[Path, float], tmp_path: Path
) -> None:
    """T17: stopped at each phase change, within a fade-in and at the end: equal; then all done."""
    expected, _ = unbroken
    out = tmp_path / "run"
    stop = (
        "import os, signal\nfrom training import step as training\nstep = training.train_step\n"
        "def stopping(state, *rest):\n"
        "    figures = step(state, *rest)\n"
        "    if state.iteration == {at}: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return figures\n"
        "training.train_step = stopping\n"
    )
    for at in (39, 40, 41, 60, 80, 120, 140, 160, 199, 200):
        ended = fork("train.py", *flags(tiny_lmdb, out, *PHASES), patch=stop.format(at=at))
        assert ended.code == (0 if at == 200 else 143), ended.err  # at 200 all is done and saved
        assert checkpoint.load(out / "latest.pt")["iteration"] == at
    ended = fork("train.py", *flags(tiny_lmdb, out, *PHASES)).succeeded()
    assert "done" in ended.out
    assert numbers(out / "latest.pt") == numbers(expected / "latest.pt")
    grid = "samples/000200.png"
    assert (out / grid).read_bytes() == (expected / grid).read_bytes()
    before = numbers(out / "latest.pt")
    assert "done" in fork("train.py", *flags(tiny_lmdb, out, *PHASES)).succeeded().out
    assert numbers(out / "latest.pt") == before


def test_t18_other_flags(tiny_lmdb: Path, done: Path) -> None:
    """T18: what the numbers depend on is refused by its flag; what may change is told."""
    before = hashes(done)
    for flag, value in (("--batch", 3), ("--lr", 0.5), ("--seed", 9), ("--init_size", 8)):
        error = fork("train.py", *flags(tiny_lmdb, done, "--save_every", 3, flag, value)).failed()
        assert f"{flag} {value}: the run in {done} was started with" in error
    assert "--no_mirror" in fork("train.py", *flags(tiny_lmdb, done, "--no_mirror")).failed()
    assert hashes(done) == before
    more = ("--save_every", 4, "--iterations", 8)
    ended = fork("train.py", *flags(tiny_lmdb, done, *more)).succeeded()
    assert len(ended.told) == 1
    for told in ("iterations 8 (was 6)", "save_every 4 (was 3)"):
        assert told in ended.told[0]
    moved = done.rename(done.with_name("moved"))
    ended = fork("train.py", *flags(tiny_lmdb, moved, *more)).succeeded()
    assert ended.told == []


# The disk


@pytest.mark.slow
def test_t19_disk_full(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T19: no room for a checkpoint: a line, the one before is sound; for a grid: it goes on."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    argv = train(tiny_lmdb, disk / "run", *LARGE, "--save_every", 3)
    keep = ["sh", "-c", '"$@"; code=$?; cp -r "$0" ' + str(kept) + "; exit $code", str(disk)]
    ended = run(on_small_disk(disk, 1.3 * MB, [*keep, *argv]))
    error = ended.failed()
    assert "No space left" in error
    assert str(disk / "run") in error
    assert checkpoint.load(kept / "run" / "latest.pt")["iteration"] == 0
    assert not list(kept.rglob("*.tmp"))

    full = "from training import log\n"
    full += "def write(*args): raise OSError(28, 'No space left on device', str(args[1]))\n"
    full += "log.write_image = write\n"
    ended = fork("train.py", *flags(tiny_lmdb, tmp_path / "run"), patch=full).succeeded()
    assert ended.told
    assert all("No space left" in line for line in ended.told)
    assert checkpoint.load(tmp_path / "run" / "latest.pt")["iteration"] == 6


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


@pytest.mark.slow
def test_t19_disk_that_fills_up_while_training(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T19: a disk with no byte left for log or events: no traceback, the state stays sound."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    python, *argv = train(
        tiny_lmdb, disk / "run", *LARGE, "--iterations", 120, "--sample_every", 10
    )
    keep = ["sh", "-c", f'"$@"; code=$?; cp -r "$0"/run {kept}; exit $code', str(disk)]
    filling = [python, "-c", FILL.format(disk=disk), *argv]
    ended = run(on_small_disk(disk, 2.5 * MB, [*keep, *filling]))
    assert "No space left" in ended.failed()
    assert len(ended.told) == 2
    assert "training goes on" in ended.told[0]
    assert checkpoint.load(kept / "latest.pt")["iteration"] == 0


@pytest.mark.slow
def test_t20_run_folder(tiny_lmdb: Path, trained: Path, tmp_path: Path) -> None:
    """T20: missing folders are made; a file, a read-only place, another run: a line."""
    fork("train.py", *flags(tiny_lmdb, tmp_path / "a" / "b" / "run")).succeeded()
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        assert "--out" in fork("train.py", *flags(tiny_lmdb, out)).failed()
    assert file.read_text() == "mine"
    mine = Path(shutil.copytree(trained, tmp_path / "mine"))
    before = hashes(mine)
    assert "Read-only" in run(on_read_only(mine, train(tiny_lmdb, mine))).failed()
    for path in (mine / ".lock", mine):
        path.chmod(0o555)
    assert "--out" in run(bound_by_modes(train(tiny_lmdb, mine))).failed()
    mine.chmod(0o755)
    error = fork("train.py", *flags(tiny_lmdb, mine, "--save_every", 3, "--seed", 5)).failed()
    assert "was started with" in error
    assert hashes(mine) == before


@pytest.mark.slow
def test_t21_two_trainers(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T21: the second of two in one run folder is refused, and the first ends as if alone."""
    alone = flags(tiny_lmdb, tmp_path / "alone", "--iterations", 300)
    fork("train.py", *alone).succeeded()
    out = tmp_path / "run"
    first = start(train(tiny_lmdb, out, "--iterations", 300))
    wait_for(out / "config.json", first)
    second = fork("train.py", *flags(tiny_lmdb, out, "--iterations", 300))
    assert first.poll() is None
    assert "another train.py" in second.failed()
    end(first).succeeded()
    assert numbers(out / "latest.pt") == numbers(tmp_path / "alone" / "latest.pt")


BAD_FLAGS = [
    ["--init_size", "48"], ["--init_size", "0"], ["--init_size", "2"],
    ["--init_size", "16", "--max_size", "8"], ["--max_size", "2048"],
    ["--batch", "0"], ["--batch", "x"], ["--batch", str(10**9)],
    ["--lr", "-1"], ["--lr", "nan"], ["--lr", "inf"], ["--lr", "0"], ["--d_lr", "nan"],
    ["--iterations", "0"], ["--iterations", "-1"], ["--iterations", str(10**20)],
    ["--workers", "-1"], ["--seed", "-1"], ["--seed", str(2**70)], ["--seed", "0.5"],
    ["--device", "tpu"], ["--device", ""], ["--device", "cuda:x"],
    ["--width", "0"], ["--width", "nan"], ["--width", str(10**9)], ["--mixing", "-0.1"],
    ["--phase", "0"], ["--r1_gamma", "inf"], ["--r1_every", "0"], ["--ema", "-1"],
    ["--save_every", "0"], ["--sample_every", "0"], ["--precision", "fp8"], ["--loss", "x"],
    ["--max_size", "2"], ["--mixing", "1.1"], ["--r1_gamma", "-1"], ["--nonsense"],
]  # fmt: skip


def test_t22_bad_flags(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T22: a usage line with the allowed values, exit 2, at once, and no folder made."""
    out = tmp_path / "run"
    for bad in BAD_FLAGS:
        ended = fork("train.py", *flags(tiny_lmdb, out, *bad))
        assert bad[0] in ended.failed(2)
        assert ended.seconds < 3
    first = run(train(tiny_lmdb, out, "--batch", 0))
    assert "in 1..4096" in first.failed(2)
    assert first.seconds < 1
    for bad, told in ((["--device", "cuda:9"], "cuda:9"), (["--max_size", "64"], "16 px")):
        assert told in fork("train.py", *flags(tiny_lmdb, out, *bad)).failed()
    assert not out.exists()


NO_ROOM = """
import torch
from training import step as training
training.train_step = lambda *args: torch.empty(2**50)
"""


def test_t23_out_of_memory(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T23: no room for a batch or the networks: a line with size, batch and what to try."""
    out = tmp_path / "run"
    error = fork("train.py", *flags(tiny_lmdb, out), patch=NO_ROOM).failed()
    for word in ("out of memory", "8 px", "batch of 4", "--width 0.015", "--batch"):
        assert word in error
    assert checkpoint.load(out / "latest.pt")["iteration"] == 0
    wide = ("--width", 4, "--max_size", 8)
    ended = fork("train.py", *flags(tiny_lmdb, tmp_path / "wide", *wide), memory=1000)
    assert "out of memory" in ended.failed()
    cuda = "import torch\nfrom training import step as training\n"
    cuda += "def step(*args): raise torch.OutOfMemoryError('CUDA out of memory. Tried to\\nmuch')\n"
    cuda += "training.train_step = step\n"
    assert "--batch" in fork("train.py", *flags(tiny_lmdb, tmp_path / "gpu"), patch=cuda).failed()
    no_cuda = fork(
        "train.py",
        *flags(tiny_lmdb, tmp_path / "none", "--device", "cuda"),
        env={**ENV, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert "--device cuda: not on this machine" in no_cuda.failed()


@pytest.mark.slow
def test_t24_no_workers_and_no_shared_memory(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T24: photos are read by threads: there is no process to lose, and /dev/shm is not needed."""
    out = tmp_path / "run"
    argv = on_small_disk(Path("/dev/shm"), 0.02, train(tiny_lmdb, out, "--iterations", 10**6))
    process = start(argv)
    wait_for(out / "samples" / "000100.png", process)
    started = children(process.pid)
    process.send_signal(signal.SIGTERM)
    assert end(process).code == 143
    assert started == []


GONE = "import os\nos.chdir({gone!r})\nos.rmdir({gone!r})\n"
JUMP = "import time\nnow, calls = time.time, iter(range(10**9))\n"
JUMP += "time.time = lambda: now() + (-1) ** next(calls) * 1e8\n"


@pytest.mark.slow
def test_t25_odd_surroundings(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T25: no HOME, locale C, folder gone, clock jumping, outputs closed, full or cut: it runs."""

    def flags_for(name: str) -> list[str]:
        return flags(tiny_lmdb.absolute(), tmp_path / name / "run", "--save_every", 3)

    gone = tmp_path / "gone"
    gone.mkdir()
    patches = {"plain": "", "gone": GONE.format(gone=str(gone)), "clock": JUMP}
    for name, patch in patches.items():
        fork("train.py", *flags_for(name), patch=patch).succeeded()
    bare = {"LC_ALL": "C", "OMP_NUM_THREADS": "1"}
    outputs = {
        "closed": '"$@" >&- 2>&-',
        "full": '"$@" >/dev/full 2>/dev/full',
        "cut": '{ "$@" 2>&1; echo $? >&3; } 3>&2 | true',
    }
    for name, how in outputs.items():
        argv = ["/bin/sh", "-c", how, "sh", *command("train.py", *flags_for(name))]
        ended = run(argv, env=bare)
        assert (ended.code, ended.out) == (0, ""), name
        assert ended.err == ("0\n" if name == "cut" else ""), name
    expected = numbers(tmp_path / "plain" / "run" / "latest.pt")
    for name in (*patches, *outputs):
        assert numbers(tmp_path / name / "run" / "latest.pt") == expected, name


SPOIL_WHILE_TRAINING = """
import os, shutil, dataset
from training import step as training
dataset.MEMORY_SHARE = {share}
step = training.train_step
def after(state, config, bank):
    assert (bank.images is None) == ({share} == 0)
    if state.iteration == 2:
        {what}
    return step(state, config, bank)
training.train_step = after
"""


def test_t26_database_gone_while_training(tiny_lmdb: Path, trained: Path, tmp_path: Path) -> None:
    """T26: moved, replaced or deleted in mid-run: it goes on, in memory or read as needed."""
    expected = numbers(trained / "latest.pt")
    cases = {
        "deleted": (0.5, "shutil.rmtree({data!r})"),
        "deleted, streamed": (0, "shutil.rmtree({data!r})"),
        "replaced, streamed": (0, "os.replace({data!r} + '/lock.mdb', {data!r} + '/data.mdb')"),
        "truncated": (0.5, "os.truncate({data!r} + '/data.mdb', 0)"),
    }
    for name, (share, what) in cases.items():
        data = Path(shutil.copytree(tiny_lmdb, tmp_path / name))
        (data / "lock.mdb").touch()
        patch = SPOIL_WHILE_TRAINING.format(share=share, what=what.format(data=str(data)))
        out = tmp_path / f"run {name}"
        fork("train.py", *flags(data, out, "--save_every", 3), patch=patch).succeeded()
        assert numbers(out / "latest.pt") == expected, name


def test_t27_checkpoint_of_another_version(tiny_lmdb: Path, done: Path) -> None:
    """T27: a newer format is told with both numbers; the older ones load (see test_formats.py)."""
    for name in ("latest.pt", "previous.pt"):
        entries = torch.load(done / name, weights_only=True)
        torch.save({**entries, "format": 2}, done / name)
    before = hashes(done)
    error = fork("train.py", *flags(tiny_lmdb, done)).failed()
    assert "format 2; this program reads 1" in error
    assert hashes(done) == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_t28_other_device(tiny_lmdb: Path, tmp_path: Path) -> None:
    """T28: a run goes on on another device, there and back, and tells it."""
    out = tmp_path / "run"
    for n, device in enumerate(("cpu", "cuda", "cpu"), start=1):
        more = ("--device", device, "--iterations", 3 * n)
        ended = run(train(tiny_lmdb, out, *more), seconds=120).succeeded()
        assert n == 1 or f"device {device}" in ended.err
        assert checkpoint.load(out / "latest.pt")["iteration"] == 3 * n


def test_t28_checkpoint_of_a_gpu(tiny_lmdb: Path, trained: Path, tmp_path: Path) -> None:
    """T28: a state whose tensors say cuda:0 goes on where there is no GPU."""
    out = tmp_path / "run"
    as_on_gpu = "import torch\ntorch.serialization.location_tag = lambda storage: 'cuda:0'\n"
    as_on_gpu += (
        "import os, signal\nfrom training import step as training\nstep = training.train_step\n"
    )
    as_on_gpu += "def stop(*args): return os.kill(os.getpid(), signal.SIGTERM) or step(*args)\n"
    as_on_gpu += "training.train_step = stop\n"
    assert fork("train.py", *flags(tiny_lmdb, out), patch=as_on_gpu).code == 143
    assert b"cuda:0" in (out / "latest.pt").read_bytes()
    no_gpu = {**ENV, "CUDA_VISIBLE_DEVICES": ""}
    fork("train.py", *flags(tiny_lmdb, out), env=no_gpu).succeeded()
    assert numbers(out / "latest.pt") == numbers(trained / "latest.pt")
