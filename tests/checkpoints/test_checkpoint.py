"""Checkpoints: whole on disk or not at all, and never trusted when they are read."""

import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import checkpoint
from checkpoints.checkpoint import CheckpointError
from model import Generator, ModelConfig
from tests.support.run import fork

CPU = torch.device("cpu")
CONFIG = ModelConfig(8, 0.03, z_dim=16, w_dim=16, mapping_layers=2)


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Generator(CONFIG).state_dict()


def save(path: Path, seed: int = 0, **entries: object) -> Path:
    checkpoint.save(path, CONFIG, {"G_ema": weights(seed), **entries})
    return path


def forge(path: Path, **entries: object) -> Path:
    """Write what another program may have written, without the checks of save."""
    torch.save({"format": 1, "model": asdict(CONFIG), "G_ema": weights(), **entries}, path)
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        checkpoint.load_generator(path, CPU)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_what_is_saved_comes_back(tmp_path):
    more = {"iteration": 7, "stage": [8, 0.5], "opt": {"state": {0: {"step": torch.ones(1)}}}}
    path = save(tmp_path / "a.pt", **more)
    G, entries = checkpoint.load_generator(path, CPU)
    assert same(G.state_dict(), weights())
    assert G.config == CONFIG
    assert not G.training
    assert not any(p.requires_grad for p in G.parameters())
    assert entries == {"format": 1, "model": asdict(CONFIG), **more}
    assert names(tmp_path) == {"a.pt"}


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_file_before_and_nothing_else(tmp_path, monkeypatch, failing):
    path = save(tmp_path / "a.pt")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="No space left"):
            save(path, seed=1)
    assert path.read_bytes() == before
    assert names(tmp_path) == {"a.pt"}
    save(path, seed=1)
    assert same(checkpoint.load(path)["G_ema"], weights(1))


KILLED = """
import os, pathlib
from checkpoints import checkpoint
from model import Generator, ModelConfig
os.fsync = lambda _: os.kill(os.getpid(), 9)
config = ModelConfig(8, 0.03, 16, 16, 2)
checkpoint.save(pathlib.Path({path!r}), config, {{"G_ema": Generator(config).state_dict()}})
"""


def test_a_process_killed_while_it_saves_leaves_the_file_before(tmp_path):
    path = save(tmp_path / "a.pt")
    before = path.read_bytes()
    assert fork("train.py", patch=KILLED.format(path=str(path))).code == -9
    assert path.read_bytes() == before
    assert same(checkpoint.load(path)["G_ema"], weights())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path, bad):
    broken = weights()
    broken["synthesis.const"][0, 0, 0, 0] = bad
    path = tmp_path / "a.pt"
    with pytest.raises(CheckpointError, match=r"G_ema\.synthesis\.const is not finite"):
        checkpoint.save(path, CONFIG, {"G_ema": broken})
    assert names(tmp_path) == set()
    assert "G_ema.synthesis.const is not finite" in refused(forge(path, G_ema=broken))
    state = {"state": {0: {"exp_avg": torch.tensor([bad])}}}
    with pytest.raises(CheckpointError, match=r"opt\.state\.0\.exp_avg is not finite"):
        save(path, opt=state)


def test_tensors_saved_on_a_gpu_are_loaded_where_there_is_none(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        path = save(tmp_path / "a.pt")
    assert b"cuda:0" in path.read_bytes()
    assert same(checkpoint.load(path)["G_ema"], weights())


def test_a_flipped_bit_anywhere_in_the_numbers_is_found(tmp_path):
    path = save(tmp_path / "a.pt")
    sound = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if m.file_size]
    assert len(members) > len(weights())
    for member in members:
        name_length, extra_length = struct.unpack_from("<HH", sound, member.header_offset + 26)
        start = member.header_offset + 30 + name_length + extra_length
        data = bytearray(sound)
        data[start + member.file_size // 2] ^= 1
        path.write_bytes(data)
        assert f"damaged (checksum of {member.filename})" in refused(path)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99, 0.9999])
def test_a_truncated_file_is_found(tmp_path, share):
    path = save(tmp_path / "a.pt")
    os.truncate(path, int(path.stat().st_size * share))
    assert "truncated or not a checkpoint" in refused(path)


def test_a_deflated_archive_is_refused_before_it_is_unpacked(tmp_path):
    path = save(tmp_path / "a.pt")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert "not a checkpoint of this program" in refused(path)


class Malice:
    """Makes a folder when it is unpickled carelessly."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("switched", [False, True])
def test_no_file_runs_code_and_no_setting_makes_it(tmp_path, monkeypatch, switched):
    if switched:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "marker"
    path = forge(tmp_path / "a.pt", more=Malice(marker))
    assert "not a checkpoint of this program" in refused(path)
    path.write_bytes(pickle.dumps(Malice(marker)))
    assert "weights_only" not in refused(path)
    assert not marker.exists()
    torch.load(forge(path, more=Malice(marker)), weights_only=False)
    assert marker.exists(), "the trap itself does not work"


FOREIGN: dict[str, Callable[[Path], object]] = {
    "weights alone": lambda path: torch.save(weights(), path),
    "a list": lambda path: torch.save([1, 2], path),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
    "another trainer's": lambda path: torch.save({"generator": weights()}, path),
    "a script": lambda path: torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), path),
    "a zip": lambda path: zipfile.ZipFile(path, "w").close(),
    "an old torch file": lambda path: torch.save({}, path, _use_new_zipfile_serialization=False),
    "a picture": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" * 50),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_file_of_another_program_is_refused(tmp_path, kind):
    FOREIGN[kind](tmp_path / "a.pt")
    assert "not a checkpoint" in refused(tmp_path / "a.pt")


def test_what_is_no_file_is_refused(tmp_path):
    assert "No such file" in refused(tmp_path / "none.pt")
    os.mkfifo(tmp_path / "pipe")
    assert "not a checkpoint" in refused(tmp_path / "pipe")
    assert "not a checkpoint" in refused(tmp_path)


def test_a_newer_format_asks_for_an_update(tmp_path):
    for newer in (2, "2", torch.ones(3)):
        assert "Update Retrato" in refused(forge(tmp_path / "a.pt", format=newer))


CONST = "synthesis.const"


@pytest.mark.parametrize(
    ("G_ema", "told"),
    [
        (5, "not a checkpoint of this program"),
        (
            {**weights(), CONST: weights()[CONST].permute(0, 2, 3, 1).contiguous()},
            f"{CONST} is (1, 4, 4, 15) of float32 in the file and (1, 15, 4, 4) of float32 in this",
        ),
        ({}, "w_avg is no tensor in the file and (16,) of float32 in this model"),
        ({**weights(), CONST: "x"}, f"{CONST} is no tensor in the file and (1, 15, 4, 4)"),
        ({**weights(), "more": torch.ones(3)}, "more is (3,) of float32 in the file and no tensor"),
        ({**weights(), "more": "x"}, "more is no tensor in the file and no tensor"),
        ({k: v for k, v in weights().items() if k != CONST}, f"{CONST} is no tensor"),
    ],
)
def test_weights_that_do_not_fit_are_named_by_the_first_difference(tmp_path, G_ema, told):
    assert refused(forge(tmp_path / "a.pt", G_ema=G_ema)).startswith(told)


class Greed:
    """A tensor of 8 GB that a few bytes ask for."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return torch.Tensor, (2**31,)


def circle() -> dict[str, Any]:
    entries: dict[str, Any] = {}
    entries["again"] = entries
    return entries


@pytest.mark.parametrize(
    "more",
    [
        torch.zeros(1).expand(2**40),
        torch.zeros(4, device="meta"),
        torch.zeros(4, dtype=torch.complex64),
        torch.zeros(4).to_sparse(),
        Greed(),
    ],
    ids=["expanded", "meta", "complex", "sparse", "greedy"],
)
def test_a_tensor_whose_numbers_are_not_in_the_file_is_refused(tmp_path, more):
    with warnings.catch_warnings(action="ignore"):
        path = forge(tmp_path / "a.pt", more=more)
    assert "not a checkpoint of this program" in refused(path)


def test_metadata_of_weights_is_not_trusted(tmp_path):
    spoiled = weights()
    spoiled._metadata = {"": 5}  # type: ignore[attr-defined]  # torch's own: a dict of dicts
    G, _ = checkpoint.load_generator(forge(tmp_path / "a.pt", G_ema=spoiled), CPU)
    assert same(G.state_dict(), weights())


def test_endless_nesting_is_no_danger(tmp_path):
    checkpoint.load(forge(tmp_path / "a.pt", more=circle()))
    deep: object = 0
    for _ in range(100):
        deep = {"a": deep}
    assert "not a checkpoint of this program" in refused(forge(tmp_path / "b.pt", more=deep))


def test_a_number_in_a_list_that_is_not_finite_is_found(tmp_path):
    path = forge(tmp_path / "a.pt", more=[torch.tensor(float("nan"))])
    assert "more.0 is not finite" in refused(path)


def test_a_file_replaced_while_it_is_read_is_read_whole(tmp_path, monkeypatch):
    path = save(tmp_path / "a.pt")
    check = checkpoint.check_archive

    def replace_then(*args: Any) -> None:
        check(*args)
        forge(tmp_path / "b.pt", more=Malice(tmp_path / "marker"))
        os.replace(tmp_path / "b.pt", path)

    monkeypatch.setattr(checkpoint, "check_archive", replace_then)
    assert same(checkpoint.load(path)["G_ema"], weights())


MODEL = asdict(CONFIG)


@pytest.mark.parametrize(
    "model",
    [
        None, [8], {}, {**MODEL, "more": 1}, {**MODEL, "width": 1e9},
        {**MODEL, "width": float("nan")}, {**MODEL, "width": "1"},
        {**MODEL, "width": torch.ones(3)}, {**MODEL, "z_dim": 0}, {**MODEL, "w_dim": 10**9},
        *({**MODEL, "resolution": r} for r in (-8, 8.0, 12, 65536, True)),
        *({**MODEL, "mapping_layers": n} for n in (60_000, 10**6)),
    ],
)  # fmt: skip
def test_an_impossible_config_is_refused(tmp_path, model):
    assert "unusable model config" in refused(forge(tmp_path / "a.pt", model=model))


def test_a_config_that_lies_about_its_size_allocates_nothing(tmp_path):
    huge = {**MODEL, "resolution": 1024, "width": 64, "z_dim": 65536, "w_dim": 65536}
    refused(forge(tmp_path / "a.pt", model=huge))  # 150 GB, were it believed
