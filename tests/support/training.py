"""Tiny training runs in this process, and what is compared of their folders."""

import hashlib
import io
import itertools
import json
import socket
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

import train as script
from checkpoints import checkpoint
from tests.support.run import ENV, ROOT, Ended
from training import loop
from training.state import TrainState

Actions = Mapping[int, Callable[[TrainState], object]]

GROWTH = ("--init_size", "4", "--max_size", "8", "--precision", "fp32")
TINY = (*GROWTH, "--width", "0.015", "--batch", "4", "--lr", "0.001", "--iterations", "6")


def flags(lmdb: Path, out: Path, *more: object) -> list[str]:
    """Return the arguments of a tiny run of six iterations; the last flag of a name counts."""
    return [str(lmdb), "--out", str(out), *TINY, *map(str, more)]


def train(lmdb: Path, out: Path, *more: object, do: Actions = types.MappingProxyType({})) -> Ended:
    """Train a tiny run in this process; `do` gives what is called before a step, by iteration."""
    return call(flags(lmdb, out, *more), do)


def call(argv: list[str], do: Actions = types.MappingProxyType({})) -> Ended:
    """Call train.py's main in this process; return how it ended."""
    step, steps = loop.train_step, itertools.count()

    def watched(state: TrainState, *rest: Any) -> dict[str, torch.Tensor]:
        assert next(steps) < 1000, "a run that does not end"
        if state.iteration in do:
            do[state.iteration](state)
        return step(state, *rest)

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(loop, "train_step", watched)
        patch.setattr("sys.argv", ["train.py"])
        with pytest.raises(SystemExit) as end:
            script.main(argv)
    return Ended(int(end.value.code or 0), out.getvalue(), err.getvalue())


def free_port() -> int:
    """Return a port that nothing listened to a moment ago."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def torchrun(processes: int, argv: list[str]) -> str:
    """Run train.py under torchrun; return what it printed."""
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    launch += ["--master_port", str(free_port()), str(ROOT / "train.py"), *argv]
    pipe = subprocess.PIPE
    done = subprocess.run([sys.executable, *launch], stdout=pipe, stderr=pipe, text=True, env=ENV)
    assert done.returncode == 0, done.stderr
    return done.stdout


def config_of(run: Path) -> dict[str, Any]:
    """Return a run's config.json."""
    return dict(json.loads((run / "config.json").read_text()))


def log_of(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log.jsonl."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def iteration_of(run: Path) -> int:
    """Return the iteration of a run's latest.pt."""
    return int(checkpoint.load(run / "latest.pt")["iteration"])


def digest(path: Path) -> str:
    """Return the SHA-256 of every number in a checkpoint, which must be undamaged."""
    found = hashlib.sha256()
    todo: list[Any] = [checkpoint.load(path)]
    while todo:
        value = todo.pop()
        if isinstance(value, torch.Tensor):
            found.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            found.update(repr(list(value)).encode())
            todo += value.values()
        elif isinstance(value, list | tuple):
            todo += value
        else:
            found.update(repr(value).encode())
    return found.hexdigest()
