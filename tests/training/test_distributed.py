"""Two processes with half of each batch do what one does with the whole of it."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import checkpoint
from training import distributed

ROOT = Path(__file__).parents[2]
RUNS = ["r1 none", "wgan-gp none", "r1 ada", "rpgan fixed"]
STEPS = """
import sys, torch
from training import augment as seen
from training import distributed
from dataset import ImageBank
from model import ModelConfig
from pathlib import Path
from training.config import TrainConfig
from training.state import TrainState
from training.step import train_step

torch.set_num_threads(1)
seen.WINDOW, seen.TARGET = 8, -2  # p rises at every step
cpu = torch.device("cpu")
lmdb, out, *runs = sys.argv[1:]
bank = ImageBank(Path(lmdb), 16, cpu)
found = {}
with distributed.joined(cpu):
    for run in runs:
        loss, augment = run.split()
        config = TrainConfig(
            init_size=4, max_size=16, iterations=9, batch=8, phase=16, lr=0.002, d_lr=0.002,
            loss=loss, r1_gamma=1.0, r1_every=2, mixing=0.9, ema=100, more_ema=False, mirror=True,
            precision="fp32", seed=1, augment=augment, augment_p=0.7, freeze_d=0,
        )
        state = TrainState(ModelConfig(16, 0.03, 16, 16, 2), config, cpu)
        state.ada.images = 40
        stats = [train_step(state, config, bank) for _ in range(9)]
        nets = [state.G.state_dict(), state.D.state_dict(), state.G_ema.state_dict()]
        found[run] = [nets, stats]
    if distributed.rank() == 0:
        torch.save(found, out)
    distributed.leave(0)
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


LEAVE = """
import atexit, os, sys, torch
from training import distributed

atexit.register(os.abort)  # as a thread did that outlived the interpreter
with distributed.joined(torch.device("cpu")):
    sys.stdout.write(f"{distributed.rank()} is done")
    distributed.leave(3)
"""


def run_code(processes: int, code: str, *arguments: object) -> list[tuple[str, int]]:
    """Run code in so many processes that find each other as torchrun's do.

    Returns what each printed and its exit code.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WORLD_SIZE": str(processes)}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    running = [
        subprocess.Popen(command, env={**env, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(processes)
    ]
    return [(process.communicate(timeout=120)[0], process.returncode) for process in running]


@pytest.fixture(scope="module")
def trained(tiny_lmdb: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Networks and figures of every run, by one process and by two."""
    folder = tmp_path_factory.mktemp("trained")
    for processes in (1, 2):
        ended = run_code(processes, STEPS, tiny_lmdb, folder / f"{processes}.pt", *RUNS)
        assert ended == [("", 0)] * processes
    return [torch.load(folder / f"{n}.pt", weights_only=True) for n in (1, 2)]


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_train_as_one_does_to_rounding(trained, run):
    (nets_of_one, figures_of_one), (nets_of_two, figures_of_two) = (each[run] for each in trained)
    for ours, theirs in zip(nets_of_one, nets_of_two, strict=True):  # G, D, G_ema
        assert ours.keys() == theirs.keys()
        change = sum((ours[name] - theirs[name]).square().sum() for name in ours)
        assert change.sqrt() < 2e-3 * sum(p.square().sum() for p in ours.values()).sqrt()
    if run == "r1 ada":
        assert [round(stats["p"].item(), 4) for stats in figures_of_two[:4]] == [0.2, 0.4, 0.6, 0.8]
    free = ("real_logit", "fake_logit") if run == "rpgan fixed" else ()  # only differences count
    first = slice(2 if free else 3)  # Adam makes rounding grow: of a bias without gradient at once
    for ours, theirs in zip(figures_of_one[first], figures_of_two[first], strict=True):
        for name, value in ours.items():
            if name in free:
                continue
            torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-5, msg=name)


def torchrun(processes: int, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
    """Run train.py under torchrun in so many processes."""
    flags = ["--width", "0.03", "--batch", "8", "--init_size", "4", "--max_size", "8", "--phase"]
    flags += ["16", "--precision", "fp32", "--sample_every", "100", *map(str, arguments)]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    launch += ["--master_port", str(free_port())]
    script = [*(launch if processes > 1 else []), str(ROOT / "train.py")]
    command = [sys.executable, *script, *flags]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=env)
    assert (done.returncode == 0) == (code == 0), done.stderr
    return done


def weights(run: Path, snapshot: int) -> torch.Tensor:
    entries = checkpoint.load(run / "snapshots" / f"{snapshot:06d}.pt")
    return torch.cat([p.flatten() for p in entries["G_ema"].values()])


def test_a_run_begun_by_two_processes_is_finished_by_one(tiny_lmdb, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    torchrun(1, tiny_lmdb, "--out", one, "--iterations", 8)
    torchrun(2, tiny_lmdb, "--out", two, "--iterations", 5)
    assert sorted(path.name for path in (two / "snapshots").iterdir()) == ["000005.pt"]
    log = (two / "log.jsonl").read_text()
    torchrun(1, tiny_lmdb, "--out", two, "--iterations", 8)
    assert (two / "log.jsonl").read_text().startswith(log)
    difference = (weights(one, 8) - weights(two, 8)).norm() / weights(one, 8).norm()
    assert difference < 2e-3


def test_several_processes_end_without_the_teardown_that_could_abort_them():
    assert run_code(2, LEAVE) == [("0 is done", 3), ("1 is done", 3)]


def test_a_batch_that_would_tear_groups_apart_is_refused(tiny_lmdb, tmp_path):
    done = torchrun(2, tiny_lmdb, "--out", tmp_path / "run", "--batch", 12, code=1)
    assert "--batch 12: cannot be split over 2 processes; expected a multiple of 8" in done.stderr
    assert not (tmp_path / "run").exists()


def test_one_process_alone_waits_for_nobody():
    tensors = [torch.randn(3), torch.randn(2, 2)]
    before = [t.clone() for t in tensors]
    distributed.average(tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    assert distributed.rows(12) == slice(0, 12)
    assert (distributed.maximum(3, torch.device("cpu")), distributed.from_first("x")) == (3, "x")


def test_the_parts_make_up_the_batch(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    rows = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        rows += range(24)[distributed.rows(24)]
    assert rows == list(range(24))
