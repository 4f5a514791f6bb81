"""Damaged databases of several makes: every one is opened or refused, and no reader dies of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from data.lmdb_writer import Writer
from tests.support.folders import encoded

FUZZ = Path(__file__).parents[1] / "support" / "database_fuzz.py"
DAMAGES = int(os.environ.get("RETRATO_DAMAGES", "200"))


def jpeg(index: int, size: int) -> bytes:
    noise = np.random.default_rng(index).integers(0, 256, (size, size, 3), np.uint8)
    return encoded(Image.fromarray(noise), quality=95)


def ours(path: Path, size: int, count: int) -> None:
    with Writer(path, [size], ["drawn"]) as writer:
        for index in range(count):
            writer.add([jpeg(index, size)], b"%d.png" % index, 0)


def rosinality(path: Path) -> None:
    with lmdb.open(str(path), map_size=2**24) as env, env.begin(write=True) as txn:
        for index in range(20):
            txn.put(f"16-{index:05d}".encode(), jpeg(index, 16))
        txn.put(b"length", b"20")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    "kind",
    [
        "ours",
        pytest.param("with large records", marks=pytest.mark.slow),
        pytest.param("of rosinality", marks=pytest.mark.slow),
    ],
)
def test_no_damage_kills_or_holds_up_the_reader(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.lmdb"
    if kind == "of rosinality":
        rosinality(path)
    else:
        ours(path, *((16, 20) if kind == "ours" else (64, 6)))
    line = [sys.executable, str(FUZZ), str(path), str(DAMAGES)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, timeout=3600, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = json.loads(done.stdout)
    assert sum(count for count, _ in outcomes.values()) == DAMAGES
    assert set(outcomes) == {"refused", "opened"}, outcomes
