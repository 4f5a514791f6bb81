"""Two machines on one run: two network namespaces with a cable between them, and torchrun in each.

Nothing leaves the two: they have no other link. Skipped where the system lets nobody make them.
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

ROOT = Path(__file__).parents[2]
FLAGS = ["--width", "0.03", "--batch", "8", "--init_size", "4", "--max_size", "4"]
FLAGS += ["--iterations", "4", "--precision", "fp32", "--sample_every", "100"]


def ip(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Two namespaces, 10.99.0.1 and 10.99.0.2; each is its own and its peer's only neighbour."""
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


def start(number: int, link: str, lmdb: Path, out: Path) -> subprocess.Popen:
    """Start train.py on machine `number`, 1 or 2, with one process."""
    launch = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    launch += ["--node_rank", str(number - 1), "--master_addr", "10.99.0.1"]
    launch += ["--master_port", "29511", str(ROOT / "train.py"), str(lmdb), "--out", str(out)]
    inside = ["ip", "netns", "exec", f"retrato-{os.getpid()}-{number}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": link}
    return subprocess.Popen(
        [*inside, sys.executable, *launch, *FLAGS],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def weights(run: Path) -> torch.Tensor:
    entries = checkpoint.load(run / "snapshots" / "000004.pt")
    return torch.cat([p.flatten() for p in entries["G_ema"].values()])


@pytest.mark.slow
def test_two_machines_train_what_one_does(machines, tiny_lmdb, tmp_path):
    # Each has its own copy of the database and its own disk; the first alone writes.
    copies = [shutil.copytree(tiny_lmdb, tmp_path / f"faces{i}") for i in (1, 2)]
    runs = [tmp_path / f"run{i}" for i in (1, 2)]
    running = [
        start(i + 1, link, copies[i], runs[i]) for i, link in enumerate(machines)
    ]  # both at once: each waits for the other
    try:
        for process in running:
            said = process.communicate(timeout=280)[0]
            assert process.returncode == 0, said
    finally:
        for process in running:
            process.kill()
    assert not runs[1].exists()
    command = [sys.executable, str(ROOT / "train.py"), str(tiny_lmdb), "--out", str(tmp_path / "o")]
    alone = subprocess.run([*command, *FLAGS], capture_output=True, text=True, timeout=200)
    assert alone.returncode == 0, alone.stderr
    one, two = weights(tmp_path / "o"), weights(runs[0])
    assert (one - two).norm() < 2e-3 * one.norm()
