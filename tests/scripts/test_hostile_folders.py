"""Run folders that were damaged, or made to harm: one line, nothing overwritten, no hang."""

import copy
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest
import torch

from checkpoints import checkpoint
from data.lmdb_writer import Writer
from tests.support.run import Ended, fork, hashes, numbers

TINY = ("--init_size", "4", "--max_size", "8", "--width", "0.015", "--batch", "4", "--precision")
TINY = (*TINY, "fp32", "--iterations", "6", "--save_every", "3")


def train(lmdb_path: Path, out: Path, *more: object) -> Ended:
    return fork("train.py", lmdb_path, "--out", out, *TINY, *more, seconds=120)


@pytest.fixture(scope="module")
def trained(tiny_lmdb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six iterations, saved at 0, 3 and 6."""
    out = tmp_path_factory.mktemp("trained") / "run"
    train(tiny_lmdb, out).succeeded()
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run, to spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def stand_in(path: Path, make: Callable[[Path], object]) -> None:
    """Put something else in the place of a file."""
    path.unlink(missing_ok=True)
    make(path)


PHASES: list[Any] = ["x", -1, 0, 1.5, float("nan"), [], None]
CONFIGS = [b"", b"[1]", b"[]", b"{}", b"null", b"3", b'"x"', b"NaN", b"[" * 10**5, b"\xff\xfe"]


def test_damaged_settings_of_a_run(tiny_lmdb: Path, run: Path) -> None:
    """A config.json that is no record of a run, a FIFO or a device: a line, all stays."""
    path = run / "config.json"
    sound = json.loads(path.read_text())
    config = [*CONFIGS, *(json.dumps({**sound, "phase": phase}).encode() for phase in PHASES)]
    for content in config:
        path.write_bytes(content)
        before = hashes(run)
        assert "config.json" in train(tiny_lmdb, run).failed(), content[:50]
        assert hashes(run) == before
    makers: list[Callable[[Path], object]] = [os.mkfifo, lambda path: path.symlink_to("/dev/zero")]
    for make in makers:
        stand_in(path, make)
        assert "not a regular file" in train(tiny_lmdb, run).failed()


def test_a_run_without_its_settings_says_so(tiny_lmdb: Path, run: Path) -> None:
    """latest.pt alone goes on, and it is told that its flags are not known."""
    (run / "config.json").unlink()
    ended = train(tiny_lmdb, run, "--r1_gamma", "0.5").succeeded()
    assert "no config.json" in ended.err
    assert json.loads((run / "config.json").read_text())["r1_gamma"] == 0.5


DAMAGED_RECORDS = [
    b"\0" * 5000 + b"\n", b"\xff\xff}\n", b"{}\n", b"[1, {}\n", b'{"iteration": "x"}\n', b"3}\n",
    b'{"iteration": NaN}\n', b"[" * 10**5 + b"}\n", b"\n",
]  # fmt: skip


def test_damaged_records_of_a_run(tiny_lmdb: Path, run: Path) -> None:
    """Lines of a log that a power cut or an editor damaged are told and left out; others stay."""
    log = run / "log.jsonl"
    first, second = (json.dumps({"iteration": n, "swd": 1.0}).encode() + b"\n" for n in (1, 2))
    for damaged in DAMAGED_RECORDS:
        log.write_bytes(first + damaged + second + b'{"iterat')
        ended = train(tiny_lmdb, run).succeeded()
        assert "log.jsonl: 1 damaged lines are left out" in ended.err, damaged[:50]
        assert log.read_bytes() == first + second
    stand_in(log, os.mkfifo)
    assert "not a regular file" in train(tiny_lmdb, run).failed()


def test_links_in_a_run_folder_lead_nowhere(tiny_lmdb: Path, run: Path, tmp_path: Path) -> None:
    """No file outside is emptied or written through a link; no FIFO holds anything up."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    for make in (os.mkfifo, lambda path: path.symlink_to(mine)):
        stand_in(run / ".lock", make)
        assert ".lock" in train(tiny_lmdb, run).failed()
    (run / ".lock").unlink()
    for name in ("log.jsonl", ".next.pt.tmp", ".config.json.tmp", ".log.jsonl.tmp"):
        stand_in(run / name, lambda path: path.symlink_to(mine))
    train(tiny_lmdb, run, "--iterations", 9).succeeded()
    fork("generate.py", run, "--seeds", "0-3", "--out", tmp_path / "new").succeeded()
    for name in ("sample.png", ".sample.png.tmp", "w.npz", ".w.npz.tmp", ".mix_coarse.png.tmp"):
        stand_in(tmp_path / "new" / name, lambda path: path.symlink_to(mine))
    flags = ("--seeds", "0-3", "--mix_seeds", "0", "1", "--w_out", tmp_path / "new" / "w.npz")
    fork("generate.py", run, *flags, "--out", tmp_path / "new").succeeded()
    assert mine.read_text() == "mine"


def test_a_run_whose_states_are_gone_does_not_begin_anew(tiny_lmdb: Path, run: Path) -> None:
    """Without latest.pt and previous.pt a new run would overwrite snapshots and log: refused."""
    (run / "latest.pt").unlink()
    (run / "latest.pt").symlink_to("nowhere")
    assert "using previous.pt" in train(tiny_lmdb, run).succeeded().err
    assert numbers(run / "latest.pt")
    for name in ("latest.pt", "previous.pt"):
        (run / name).unlink()
    before = hashes(run)
    assert "latest.pt" in train(tiny_lmdb, run).failed()
    assert hashes(run) == before


def test_a_run_folder_that_moves(tiny_lmdb: Path, run: Path, tmp_path: Path) -> None:
    """Moved away in mid-run: a line, the state is sound where it went, and goes on there."""
    move = "import os\nfrom training import step as training\nstep = training.train_step\n"
    move += "def moving(state, *rest):\n"
    move += f"    if state.iteration == 7: os.rename({str(run)!r}, {str(tmp_path / 'away')!r})\n"
    move += "    return step(state, *rest)\n"
    move += "training.train_step = moving\n"
    long = ("--iterations", 9)
    error = fork("train.py", tiny_lmdb, "--out", run, *TINY, *long, patch=move).failed()
    assert "the state before is kept" in error
    assert not run.exists()
    train(tiny_lmdb, tmp_path / "away", *long).succeeded()
    assert checkpoint.load(tmp_path / "away" / "latest.pt")["iteration"] == 9


def in_group(**more: object) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["opt_G"]["param_groups"][0].update(more)


def in_moments(**more: object) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["opt_D"]["state"][0].update(more)


STATES: list[Callable[[dict[str, Any]], object]] = [
    *(in_group(lr=lr) for lr in (-1.0, 0.0, float("nan"), float("inf"), "x", None, torch.ones(3))),
    in_group(params=[]),
    *(in_moments(exp_avg=v) for v in (torch.zeros(0), torch.zeros(3), torch.zeros(9999), 5, "x")),
    in_moments(exp_avg_sq=torch.zeros(16, 16, dtype=torch.float64)),
    *(in_moments(step=step) for step in (torch.tensor(-3.0), torch.zeros(3), "x", None)),
    in_moments(more=torch.zeros(3)),
    lambda state: state["opt_D"]["state"].update({10**6: state["opt_D"]["state"][0]}),
    lambda state: state["opt_D"]["state"].update(x={}),
    lambda state: state.update(scaler={"scale": "x"}),
    lambda state: state.update(ada={"p": torch.ones(9), "signs": torch.ones(()), "seen": 0}),
    *(
        lambda state, name=name, value=value: state.update({name: value})
        for name in ("iteration", "nimg")
        for value in (-5, 3.5, "x", None, float("nan"), 10**30, [], True)
    ),
]


@pytest.mark.parametrize("share", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_states_made_to_harm(tiny_lmdb: Path, run: Path, share: int) -> None:
    """Moments of other shapes, at which the fused Adam dies of SIGSEGV, and odd numbers: a line."""
    sound = torch.load(run / "latest.pt", weights_only=True)
    for change in STATES if share else STATES[::5]:
        state = copy.deepcopy(sound)
        change(state)
        for name in ("latest.pt", "previous.pt"):
            with warnings.catch_warnings(action="ignore"):
                torch.save(state, run / name)
        before = hashes(run)
        error = train(tiny_lmdb, run, "--iterations", 9).failed()
        assert "not a state of this run" in error or "not finite" in error
        assert len(error) < 600
        assert hashes(run) == before


def test_weights_to_start_from_made_to_harm(tiny_lmdb: Path, trained: Path, tmp_path: Path) -> None:
    """--init_from a file whose networks are none: a line, and no run is begun."""
    sound = torch.load(trained / "latest.pt", weights_only=True)
    const = sound["G"]["synthesis.const"]
    odd = ([], None, torch.ones(1), {"synthesis.const": 5}, {"synthesis.const": const.long()})
    cases: list[tuple[str, Any]] = [("G", each) for each in odd] + [("D", odd[0]), ("D", odd[1])]
    for name, weights in cases:
        torch.save({**sound, name: weights}, tmp_path / "odd.pt")
        error = train(tiny_lmdb, tmp_path / "new", "--init_from", tmp_path / "odd.pt").failed()
        assert "--init_from" in error
        assert not (tmp_path / "new" / "latest.pt").exists()


def test_a_damaged_run_to_start_from(tiny_lmdb: Path, run: Path, tmp_path: Path) -> None:
    """--init_from a run whose latest.pt is truncated takes the state before, and says so."""
    os.truncate(run / "latest.pt", 5000)
    ended = train(tiny_lmdb, tmp_path / "new", "--init_from", run).succeeded()
    assert "truncated" in ended.told[0]
    assert "previous.pt" in ended.told[1]


METAS: list[Any] = [
    {"sizes": []}, {"sizes": 16}, {"sizes": ["16"]}, {"sizes": [16.0]}, {"sizes": [10**30]},
    {"sizes": {"16": 1}}, {"sizes": None}, {"format": 10**400}, {"format": "x" * 10**5},
    {"count": "24"},
]  # fmt: skip


def test_what_a_database_says_of_itself_made_to_harm(tiny_lmdb: Path, tmp_path: Path) -> None:
    """A `meta` of other types, of no size at all, or nested without end: a line."""
    data = Path(shutil.copytree(tiny_lmdb, tmp_path / "data.lmdb"))
    with lmdb.open(str(data), map_size=2**26) as env:
        with env.begin() as txn:
            sound = json.loads(txn.get(b"meta"))
        wrong = [json.dumps({**sound, **more}).encode() for more in METAS]
        wrong += [b"[" * 10**5, b"null", b"[]", b"\xff", b""]
    for content in wrong:
        with lmdb.open(str(data), map_size=2**26) as env, env.begin(write=True) as txn:
            txn.put(b"meta", content)
        error = train(data, tmp_path / "run").failed()
        assert str(data) in error, content[:50]
        assert len(error) < 600
    assert not (tmp_path / "run").exists()


def test_a_stale_file_of_a_killed_run_is_no_obstacle(tmp_path: Path) -> None:
    """What a kill left beside an output is replaced, a folder there is told."""
    stale = tmp_path / ".a.lmdb.tmp"
    stale.mkdir()
    (stale / "data.mdb").write_bytes(b"half")
    with Writer(tmp_path / "a.lmdb", [16], ["a"]) as writer:
        writer.add([b"x"], b"x", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.lmdb"]
