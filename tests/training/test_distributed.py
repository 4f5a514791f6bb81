"""Two processes with half of each batch do what one does with the whole of it."""

import pytest
import torch

from checkpoints import checkpoint
from tests.support.run import Ended, fork
from tests.support.training import flags, free_port, torchrun, train
from training import distributed

RUNS = ["r1 ada", "r1 none", "wgan-gp none", "rpgan fixed"]
JOIN = """
import os
rank = next((n for n in range(1, {processes}) if not os.fork()), 0)
os.environ |= dict(RANK=str(rank), WORLD_SIZE="{processes}")
os.environ |= dict(MASTER_ADDR="127.0.0.1", MASTER_PORT="{port}")
"""
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
lmdb, out, run = sys.argv[1:]
bank = ImageBank(Path(lmdb), 16, cpu)
loss, augment = run.split()
config = TrainConfig(
    init_size=4, max_size=16, iterations=9, batch=8, phase=16, lr=0.002, d_lr=0.002,
    loss=loss, r1_gamma=1.0, r1_every=2, mixing=0.9, ema=100, more_ema=False, mirror=True,
    precision="fp32", seed=1, augment=augment, augment_p=0.7, freeze_d=0,
)
with distributed.joined(cpu):
    state = TrainState(ModelConfig(16, 0.03, 16, 16, 2), config, cpu)
    state.ada.images = 40
    stats = [train_step(state, config, bank) for _ in range(9)]
    networks = [network.state_dict() for network in (state.G, state.D, state.G_ema)]
    if distributed.rank() == 0:
        torch.save([networks, stats], out)
    distributed.leave(0)
"""
LEAVE = """
import atexit, os, torch
from training import distributed

atexit.register(os.abort)  # as a thread does that outlives the interpreter
with distributed.joined(torch.device("cpu")):
    os.write(1, b"done")
    distributed.leave(3)
"""


def run_code(processes: int, code: str, *arguments: object) -> Ended:
    """Run code in processes that find each other as torchrun's do; return how the first ended."""
    patch = JOIN.format(processes=processes, port=free_port()) + code
    return fork("train.py", *arguments, patch=patch)


@pytest.mark.parametrize(
    "run", [RUNS[0], *(pytest.param(run, marks=pytest.mark.slow) for run in RUNS[1:])]
)
def test_two_processes_train_as_one_does_to_rounding(tiny_lmdb, tmp_path, run):
    for processes in (1, 2):
        run_code(processes, STEPS, tiny_lmdb, tmp_path / f"{processes}.pt", run).succeeded()
    (nets_of_one, stats_of_one), (nets_of_two, stats_of_two) = (
        torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2)
    )
    for ours, theirs in zip(nets_of_one, nets_of_two, strict=True):  # G, D, G_ema
        assert ours.keys() == theirs.keys()
        change = sum((ours[name] - theirs[name]).square().sum() for name in ours)
        assert change.sqrt() < 2e-3 * sum(p.square().sum() for p in ours.values()).sqrt()
    if run == "r1 ada":
        assert [round(stats["p"].item(), 4) for stats in stats_of_two[:4]] == [0.2, 0.4, 0.6, 0.8]
    free = ("real_logit", "fake_logit") if run == "rpgan fixed" else ()  # only differences count
    first = slice(2 if free else 3)  # Adam makes rounding grow: of a bias without gradient at once
    for ours, theirs in zip(stats_of_one[first], stats_of_two[first], strict=True):
        for name in ours.keys() - free:
            torch.testing.assert_close(theirs[name], ours[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_a_run_begun_by_two_processes_is_finished_by_one(tiny_lmdb, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    given = ("--batch", 8, "--phase", 16, "--iterations")
    train(tiny_lmdb, one, *given, 8).succeeded()
    torchrun(2, flags(tiny_lmdb, two, *given, 5))
    assert [path.name for path in (two / "snapshots").iterdir()] == ["000005.pt"]
    log = (two / "log.jsonl").read_text()
    train(tiny_lmdb, two, *given, 8).succeeded()
    assert (two / "log.jsonl").read_text().startswith(log)
    ours, theirs = (
        torch.cat([p.flatten() for p in checkpoint.load(run / "latest.pt")["G_ema"].values()])
        for run in (one, two)
    )
    assert (ours - theirs).norm() < 2e-3 * ours.norm()


def test_processes_end_without_the_teardown_that_could_abort_them():
    ended = run_code(2, LEAVE)
    assert (ended.code, ended.out) == (3, "donedone")


def test_a_batch_that_cannot_be_split_over_the_processes_is_refused(
    tiny_lmdb, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (
        "--batch 12: cannot be split over 2 processes; expected a multiple of 8"
        in train(tiny_lmdb, tmp_path / "run", "--batch", 12).failed()
    )
    assert not (tmp_path / "run").exists()


def test_one_process_alone_waits_for_nobody():
    tensors = [torch.randn(3), torch.randn(2, 2)]
    before = [t.clone() for t in tensors]
    distributed.average(tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    assert distributed.rows(12) == slice(0, 12)
    assert (distributed.maximum(3, torch.device("cpu")), distributed.from_first("x")) == (3, "x")


def test_the_rows_of_all_processes_make_up_the_batch(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    rows = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        rows += range(24)[distributed.rows(24)]
    assert rows == list(range(24))
