"""A run folder: which file is which, and what is damaged or made to harm in it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checkpoints import checkpoint, run_folder
from checkpoints.checkpoint import CheckpointError
from common.cli import UserError
from model import Generator, ModelConfig
from tests.support.run import hashes
from tests.support.training import config_of, digest, train
from training.log import RunLog

CONFIG = ModelConfig(8, 0.03, z_dim=16, w_dim=16, mapping_layers=2)
WEIGHTS = Generator(CONFIG).state_dict()


def save(run: Path, iteration: int) -> None:
    run_folder.save_latest(run, CONFIG, {"G_ema": WEIGHTS, "iteration": iteration})


def loaded(run: Path, tell: Callable[[str], Any]) -> int:
    """Return the iteration of the state that a run goes on from."""
    entries = run_folder.load_latest(run, tell)
    assert entries
    return int(entries["iteration"])


# States


def test_the_state_before_the_latest_is_kept(tmp_path):
    for iteration in range(3):
        save(tmp_path, iteration)
    assert {path.name for path in tmp_path.iterdir()} == {"latest.pt", "previous.pt"}
    assert checkpoint.load(tmp_path / "latest.pt")["iteration"] == 2
    assert checkpoint.load(tmp_path / "previous.pt")["iteration"] == 1


@pytest.mark.parametrize("renames", [1, 2])  # the first renames next.pt's own partial file
def test_a_save_stopped_between_its_renames_loses_no_whole_state(tmp_path, monkeypatch, renames):
    save(tmp_path, 1)
    replace = os.replace
    calls: list[object] = []

    def stop(old: Path, new: Path) -> None:
        calls.append(new)
        if len(calls) > renames:
            raise KeyboardInterrupt
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
    assert loaded(tmp_path, pytest.fail) == 1
    assert checkpoint.load(run_folder.find(tmp_path))["iteration"] == 1


def test_a_damaged_latest_is_renamed_and_the_one_before_it_used(tmp_path):
    told: list[str] = []
    assert run_folder.load_latest(tmp_path, told.append) is None
    for iteration in range(2):
        save(tmp_path, iteration)
    latest, previous = tmp_path / "latest.pt", tmp_path / "previous.pt"
    os.truncate(latest, latest.stat().st_size // 2)
    assert loaded(tmp_path, told.append) == 0
    assert len(told) == 1
    assert told[0].startswith(f"{latest}: truncated")
    assert told[0].endswith("it is now damaged.pt; using previous.pt")
    os.truncate(previous, 10)
    with pytest.raises(CheckpointError, match=r"previous\.pt: truncated"):
        run_folder.load_latest(tmp_path, told.append)


def test_a_run_folder_means_its_latest_state_or_else_its_last_snapshot(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        run_folder.find(tmp_path)
    (tmp_path / "snapshots").mkdir()
    snapshots = ("snapshots/000010.pt", "snapshots/990000.pt", "snapshots/1000000.pt")
    for name in (*snapshots, "previous.pt", "latest.pt"):
        (tmp_path / name).touch()
        assert run_folder.find(tmp_path) == tmp_path / name
    assert run_folder.find(tmp_path / "previous.pt") == tmp_path / "previous.pt"


# config.json

PHASES: list[Any] = ["x", -1, 0, 1.5, float("nan"), [], None]
CONFIGS = [b"", b"[1]", b"[]", b"{}", b"null", b"3", b'"x"', b"NaN", b"[" * 10**5, b"\xff\xfe"]
CONFIGS += [json.dumps({"batch": 4, "phase": phase}).encode() for phase in PHASES]


def test_a_config_that_is_no_record_of_a_run_is_refused(tmp_path):
    for content in CONFIGS:
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(UserError, match=r"config\.json: .*take another run folder"):
            run_folder.read_config(tmp_path)


MAKERS: list[Callable[[Path], object]] = [os.mkfifo, lambda path: path.symlink_to("/dev/zero")]


@pytest.mark.parametrize("make", MAKERS, ids=["a FIFO", "a device"])
@pytest.mark.parametrize("name", ["config.json", "log.jsonl"])
def test_what_is_no_regular_file_ends_train_in_one_line(tiny_lmdb, own_run, name, make):
    (own_run / name).unlink()
    make(own_run / name)
    before = hashes(own_run / "latest.pt", own_run / "snapshots")
    assert "not a regular file" in train(tiny_lmdb, own_run, "--save_every", 3).failed()
    assert hashes(own_run / "latest.pt", own_run / "snapshots") == before


def test_a_run_without_its_config_goes_on_and_says_so(tiny_lmdb, own_run):
    (own_run / "config.json").unlink()
    assert "no config.json" in train(tiny_lmdb, own_run, "--r1_gamma", 0.5).succeeded().err
    assert config_of(own_run)["r1_gamma"] == 0.5


# log.jsonl

DAMAGED_LINES = [
    b"\0" * 5000 + b"\n", b"\xff\xff}\n", b"{}\n", b"[1, {}\n", b'{"iteration": "x"}\n', b"3}\n",
    b'{"iteration": NaN}\n', b"[" * 10**5 + b"}\n", b"\n",
]  # fmt: skip


def test_lines_of_a_log_that_a_power_cut_damaged_are_left_out_and_others_stay(tmp_path):
    log = tmp_path / "log.jsonl"
    first, second = (json.dumps({"iteration": n, "swd": 1.0}).encode() + b"\n" for n in (1, 2))
    told: list[str] = []
    for line in DAMAGED_LINES:
        log.write_bytes(first + line + second + b'{"iterat')
        RunLog(tmp_path, 6, told.append).close()
        assert "log.jsonl: 1 damaged lines are left out" in told.pop(), line[:50]
        assert log.read_bytes() == first + second


# Links


def test_links_in_a_run_folder_lead_nowhere(tiny_lmdb, own_run, tmp_path):
    """No file outside is emptied or written through a link, and no FIFO holds anything up."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for make in (os.mkfifo, lambda path: path.symlink_to(mine)):
        (own_run / ".lock").unlink()
        make(own_run / ".lock")
        assert ".lock" in train(tiny_lmdb, own_run).failed()
    (own_run / ".lock").unlink()
    (own_run / "log.jsonl").unlink()
    for name in ("log.jsonl", ".next.pt.tmp", ".config.json.tmp", ".log.jsonl.tmp"):
        (own_run / name).symlink_to(mine)
    train(tiny_lmdb, own_run, "--iterations", 9).succeeded()
    assert digest(own_run / "latest.pt")
    assert mine.read_text() == "mine"
