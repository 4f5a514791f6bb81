"""Two machines on one run: two network namespaces with a cable between them, and torchrun in each.

They have no other link. Skipped where namespaces are not allowed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from checkpoints import checkpoint
from tests.support.run import ENV, ROOT, end, start
from tests.support.training import flags, train

GIVEN = ("--batch", 8, "--max_size", 4, "--iterations", 4)


def ip(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Two namespaces, 10.99.0.1 and 10.99.0.2; each is the other's only neighbour."""
    if not shutil.which("ip"):
        pytest.skip("no `ip` here")
    names = [f"retrato-{os.getpid()}-{i}" for i in (1, 2)]
    links = [f"rt{os.getpid() % 100000}-{i}" for i in (1, 2)]
    try:
        made = [ip("netns", "add", name) for name in names]
        made.append(ip("link", "add", links[0], "type", "veth", "peer", "name", links[1]))
        for i, (name, link) in enumerate(zip(names, links, strict=True), start=1):
            made.append(ip("link", "set", link, "netns", name))
            made.append(ip("-n", name, "address", "add", f"10.99.0.{i}/24", "dev", link))
            made += [ip("-n", name, "link", "set", each, "up") for each in (link, "lo")]
        failed = [done.stderr.strip() for done in made if done.returncode]
        if failed:
            pytest.skip(f"no network namespaces here: {failed[0]}")
        yield links
    finally:
        for name in names:
            ip("netns", "delete", name)  # and the cable with it
        ip("link", "delete", links[0])


def weights(run: Path) -> torch.Tensor:
    entries = checkpoint.load(run / "snapshots" / "000004.pt")
    return torch.cat([p.flatten() for p in entries["G_ema"].values()])


@pytest.mark.slow
def test_two_machines_train_what_one_does(machines, tiny_lmdb, tmp_path):
    """Each has its own copy of the database and its own disk; the first alone writes."""
    running = []
    for number, link in enumerate(machines, start=1):
        data = shutil.copytree(tiny_lmdb, tmp_path / f"faces{number}")
        inside = ["ip", "netns", "exec", f"retrato-{os.getpid()}-{number}", sys.executable]
        launch = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
        launch += ["--node_rank", str(number - 1), "--master_addr", "10.99.0.1"]
        launch += ["--master_port", "29511", str(ROOT / "train.py")]
        argv = [*inside, *launch, *flags(data, tmp_path / f"run{number}", *GIVEN)]
        running.append(start(argv, env={**ENV, "GLOO_SOCKET_IFNAME": link}))
    for process in running:
        ended = end(process)
        assert ended.code == 0, ended.err
    assert not (tmp_path / "run2").exists()
    train(tiny_lmdb, tmp_path / "alone", *GIVEN).succeeded()
    one, two = weights(tmp_path / "alone"), weights(tmp_path / "run1")
    assert (one - two).norm() < 2e-3 * one.norm()
