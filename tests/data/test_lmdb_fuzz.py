"""Damaged databases of several kinds: each is opened or rejected, and no reader dies or hangs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from data.lmdb_writer import Writer
from tests.support.folders import jpeg

ROOT = Path(__file__).parents[2]
DAMAGES = int(os.environ.get("RETRATO_DAMAGES", "200"))


def ours(path: Path, size: int, count: int) -> None:
    with Writer(path, [size], ["drawn"]) as writer:
        for index in range(count):
            writer.add([jpeg(index, size)], b"%d.png" % index, 0)


def rosinality(path: Path) -> None:
    with lmdb.open(str(path), map_size=2**24) as env, env.begin(write=True) as txn:
        for index in range(20):
            txn.put(f"16-{index:05d}".encode(), jpeg(index, 16))
        txn.put(b"length", b"20")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize("kind", ["ours", "with large records", "of rosinality"])
def test_damaged_databases_never_kill_or_hang_the_reader(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.lmdb"
    if kind == "of rosinality":
        rosinality(path)
    else:
        ours(path, *((16, 20) if kind == "ours" else (256, 6)))
    line = [sys.executable, "tests/support/database_fuzz.py", str(path), str(DAMAGES)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600
    )
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = json.loads(done.stdout)
    assert sum(count for count, _ in outcomes.values()) == DAMAGES
    assert set(outcomes) == {"rejected", "opened"}, outcomes
