"""generate.py under faults, G1 to G15: one line, the right exit code, nothing lost, no hang."""

import json
import os
import pickle
import shutil
import signal
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import checkpoint
from model import Generator, ModelConfig
from tests.support.run import (
    ENV,
    bound_by_modes,
    command,
    end,
    flip,
    fork,
    hashes,
    on_read_only,
    on_small_disk,
    run,
    start,
    wait_for,
)

FEW = ("--seeds", "0-3", "--mix_seeds", "0", "1", "--mix_layers", "coarse")
MODEL = ModelConfig(16, 0.03, z_dim=16, w_dim=16, mapping_layers=2)


def entries(seed: int = 0) -> dict[str, Any]:
    """Return those of an untrained generator that uses its noise and has a mean style."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        G = Generator(MODEL)
        G.w_avg.normal_()
        for layer in G.synthesis.layers:
            layer.noise_strength.normal_()
    return {"format": 1, "model": vars(MODEL), "G_ema": G.state_dict()}


def save(path: Path, seed: int = 0) -> Path:
    checkpoint.save(path, MODEL, {"G_ema": entries(seed)["G_ema"], "iteration": seed})
    return path


def forge(path: Path, **more: object) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.save({**entries(), **more}, path)


def forge_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = entries()["G_ema"]
    change(weights)
    forge(path, G_ema=weights)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("sound") / "sound.pt")


def refuse(path: Path, folder: Path, told: str) -> None:
    """Assert that a checkpoint is refused in one line, with little memory and nothing made."""
    before = sorted(p.name for p in folder.iterdir())
    ended = fork("generate.py", path, *FEW, "--out", folder / "new", memory=4096)
    assert told in ended.failed()
    assert "weights_only" not in ended.err
    assert ended.out == ""
    assert ended.peak < 1000
    assert sorted(p.name for p in folder.iterdir()) == before


def test_g01_no_checkpoint(tmp_path: Path) -> None:
    """G1: missing, a folder, empty, truncated, text, a FIFO: a line, and no folder is made."""
    bad = tmp_path / "bad.pt"
    makers: dict[str, Callable[[], object]] = {
        "No such file": lambda: None,
        "no checkpoint in this folder": bad.mkdir,
        "truncated or not": bad.touch,
        "truncated": lambda: os.truncate(save(bad), 5000),
        "not a checkpoint": lambda: bad.write_text("text\n" * 1000),
        "not a checkpoint of this program": lambda: os.mkfifo(bad),
    }
    for told, make in makers.items():
        make()
        refuse(bad, tmp_path, told=told)
        if told == "truncated":
            old = tmp_path / "old"
            old.mkdir()
            (old / "sample.png").write_bytes(b"mine")
            fork("generate.py", bad, *FEW, "--out", old).failed()
            assert (old / "sample.png").read_bytes() == b"mine"
        shutil.rmtree(bad) if bad.is_dir() else bad.unlink(missing_ok=True)


class Malice:
    """Makes a folder where it is unpickled without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def zipped(path: Path, program: bytes) -> None:
    """Write a pickle as the archive that torch.save would make of it."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("data.pkl", program), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"archive/{name}", content)


def test_g02_malicious_pickles(tmp_path: Path) -> None:
    """G2: code in a checkpoint, in a bare pickle, by every opcode that calls: never run."""
    marker, bad = tmp_path / "marker", tmp_path / "bad.pt"
    name = str(marker).encode()
    programs = [
        pickle.dumps(Malice(marker)),
        b"cos\nmkdir\n(V" + name + b"\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93(V" + name + b"\ntR.",
        b"(V" + name + b"\nios\nmkdir\n.",
        b"(cos\nmkdir\nV" + name + b"\no.",
        b"cbuiltins\neval\n(V__import__('os').mkdir('" + name + b"')\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(cos\nmkdir\n(V" + name + b"\ntRtR.",
    ]
    snapshots = tmp_path / "run" / "snapshots"  # of which all are tried, the newest first
    snapshots.mkdir(parents=True)
    for n, program in enumerate(programs):
        (snapshots / f"{n}1.pt").write_bytes(program)
        zipped(snapshots / f"{n}2.pt", program)
    ended = fork("generate.py", tmp_path / "run", "--out", tmp_path / "new")
    assert "not a checkpoint" in ended.failed()
    assert len(ended.told) == 2 * len(programs)
    assert all("not a checkpoint" in line for line in ended.told)
    assert "weights_only" not in ended.err
    forge(bad, more=Malice(marker))
    refuse(bad, tmp_path, told="not a checkpoint of this program")
    assert not marker.exists()
    pickle.loads(programs[1])
    assert marker.exists(), "the trap itself does not work"


def test_g03_greedy_checkpoints(tmp_path: Path) -> None:
    """G3: zip bombs, tensors larger than their file, a config of 10^9 channels: no memory."""
    bad = tmp_path / "bad.pt"
    with zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/data/0", bytes(300 << 20))
    assert bad.stat().st_size < 10**6
    refuse(bad, tmp_path, told="not a checkpoint of this program")
    forge(bad, more=torch.zeros(1).expand(2**40))
    refuse(bad, tmp_path, told="not a checkpoint of this program")
    forge(bad, model={**vars(MODEL), "width": 1e9})
    refuse(bad, tmp_path, told="unusable model config")
    forge(bad, model={**vars(MODEL), "resolution": 1024, "width": 64, "z_dim": 65536})
    refuse(bad, tmp_path, told=" in the file and ")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_g04_foreign_checkpoints(tmp_path: Path) -> None:
    """G4: weights alone, of other programs, safetensors, TorchScript: not of this program."""
    bad = tmp_path / "bad.pt"
    weights = {"conv1.weight": torch.zeros(8, 3, 7, 7), "fc.bias": torch.zeros(10)}
    header = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    traced = torch.jit.trace(torch.nn.ReLU(), torch.ones(1))
    makers: list[Callable[[], object]] = [
        lambda: torch.save(weights, bad),
        lambda: torch.save({"g_running": weights, "generator": weights}, bad),
        lambda: torch.save(torch.nn.Linear(2, 2), bad),
        lambda: torch.save(weights, bad, _use_new_zipfile_serialization=False),
        lambda: bad.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4),
        lambda: torch.jit.save(traced, bad),
    ]
    for make in makers:
        make()
        refuse(bad, tmp_path, told="not a checkpoint")


def test_g05_weights_that_do_not_fit(tmp_path: Path) -> None:
    """G5: keys missing or too many, other shapes or types: the first difference in one line."""
    const = "synthesis.const"
    changes: list[tuple[Callable[[dict[str, torch.Tensor]], object], str]] = [
        (lambda w: w.pop(const), f"{const} is no tensor in the file"),
        (lambda w: w.update(more=torch.zeros(2)), "more is (2,) of float32 in the file"),
        (lambda w: w.update({const: w[const][0]}), f"{const} is (15, 4, 4) of float32"),
        (lambda w: w.update({const: w[const].long()}), f"{const} is (1, 15, 4, 4) of int64"),
    ]
    for change, told in changes:
        forge_weights(tmp_path / "bad.pt", change)
        refuse(tmp_path / "bad.pt", tmp_path, told=told)


def numb(weights: dict[str, torch.Tensor]) -> None:
    for name, value in weights.items():
        if "noise" in name or "style" in name:
            value.zero_()
    weights["synthesis.const"].normal_(generator=torch.Generator().manual_seed(0))


def test_g06_no_samples(tmp_path: Path) -> None:
    """G6: weights not finite, images so, alike or of one colour: a line, no pictures."""
    bad, rgb = tmp_path / "bad.pt", "synthesis.to_rgb.16.weight"
    changes: list[tuple[Callable[[dict[str, torch.Tensor]], object], str]] = [
        (lambda w: w[rgb].fill_(float("nan")), f"{rgb} is not finite"),
        (lambda w: w[rgb].fill_(float("inf")), f"{rgb} is not finite"),
        (lambda w: w[rgb].fill_(3e38), "the images are not finite"),
        (lambda w: w[rgb].zero_(), "of one colour"),
        (numb, "all seeds give the same image"),
    ]
    for change, told in changes:
        forge_weights(bad, change)
        ended = fork("generate.py", bad, *FEW, "--out", tmp_path / "new")
        assert told in ended.failed()
        assert not (tmp_path / "new").exists()


def test_g07_flipped_byte(sound: Path, tmp_path: Path) -> None:
    """G7: a flipped byte in the numbers is told by its checksum."""
    flip(Path(shutil.copy(sound, tmp_path / "bad.pt")))
    refuse(tmp_path / "bad.pt", tmp_path, told="checksum")


@pytest.mark.slow
def test_g08_folder_for_pictures(sound: Path, tmp_path: Path) -> None:
    """G8: made if missing; a file, unwritable, full, a name taken: a line, no half picture."""
    fork("generate.py", sound, *FEW, "--out", tmp_path / "a" / "b").succeeded()
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        assert str(out) in fork("generate.py", sound, *FEW, "--out", out).failed()
    assert file.read_text() == "mine"
    taken = tmp_path / "taken"
    (taken / "sample.png").mkdir(parents=True)
    assert "sample.png" in fork("generate.py", sound, *FEW, "--out", taken).failed()
    assert [path.name for path in taken.iterdir()] == ["sample.png"]
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "sample.png").write_text("mine")
    argv = command("generate.py", sound, *FEW, "--out", closed)
    assert "Read-only" in run(on_read_only(closed, argv)).failed()
    closed.chmod(0o555)
    assert "Permission denied" in run(bound_by_modes(argv)).failed()
    assert [path.read_text() for path in closed.iterdir()] == ["mine"]
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    keep = ["sh", "-c", f'"$@"; code=$?; cp -r "$0" {kept}; exit $code', str(disk)]
    many = command("generate.py", sound, "--singles", "--seeds", "0-400", "--out", disk / "out")
    ended = run(on_small_disk(disk, 0.3, [*keep, *many]))
    assert "No space left" in ended.failed()
    left = sorted((kept / "out").iterdir())
    assert len(left) > 10
    assert [path.name for path in left] == [f"seed{i:04d}.png" for i in range(len(left))]
    assert all(is_whole(path) for path in left)


def is_whole(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
        return image.size == (16, 16)


BAD_FLAGS = [
    "--n_row 0", "--n_row -1", "--n_row 1000000000", "--n_col 0", "--n_col 1.5",
    "--seeds -1", "--seeds 1180591620717411303424", "--seeds 0-1000000000", "--seeds 5-3",
    "--psi nan", "--psi inf", "--psi x", "--psi 1e9", "--mix_layers 0-99", "--mix_layers -1",
    "--mix_layers none", "--mix_seeds 1", "--mix_seeds 0-9999 0-9999",
    "--frames 0 --film gif", "--fps nan --film gif", "--film bmp", "--film webp --seeds 1",
    "--seeds 1,,2", "--seeds x", "--seeds 1-", "--seeds ²", "--seeds 9223372036854775808",
    "--mix_seeds 1 x", "--mix_layers 3-1", "--mix_layers 0-3,", "--progress", "--psi 3",
    "--frames 10000 --film webp", "--frames -1 --film webp", "--fps 0",
    "--device tpu", "--device meta", "--size 32", "--n_row 1000 --n_col 1000",
]  # fmt: skip


def test_g09_bad_flags(sound: Path, tmp_path: Path) -> None:
    """G9: every flag at its edges: a usage line with the range, exit 2, at once, nothing made."""
    for text in BAD_FLAGS:
        bad = text.split()
        ended = fork("generate.py", sound, "--out", tmp_path / "new", *bad)
        assert bad[0] in ended.failed(2)
        assert ended.seconds < 3
    first = run(command("generate.py", sound, "--n_row", 0))
    assert "in 1..1000" in first.failed(2)
    assert first.seconds < 1
    assert list(tmp_path.iterdir()) == []


def test_g10_same_seed_same_picture(sound: Path, tmp_path: Path) -> None:
    """G10: twice the same command, alone or among others: the same bytes."""
    for name, wanted in (("a", "0-3"), ("b", "0-3"), ("c", "0-40"), ("d", "2")):
        flags = ("--singles", "--seeds", wanted, "--mix_seeds", 0, 1, "--out", tmp_path / name)
        fork("generate.py", sound, *flags).succeeded()
    assert [*hashes(tmp_path / "a").values()] == [*hashes(tmp_path / "b").values()]
    for seed in range(4):
        name = f"seed{seed:04d}.png"
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    alone = (tmp_path / "d" / "seed0002.png").read_bytes()
    assert alone == (tmp_path / "a" / "seed0002.png").read_bytes()


def test_g11_checkpoint_from_a_gpu(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G11: a checkpoint whose tensors say cuda:0 works where there is no GPU."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        save(tmp_path / "gpu.pt")
    assert b"cuda:0" in (tmp_path / "gpu.pt").read_bytes()
    env = {**ENV, "CUDA_VISIBLE_DEVICES": ""}
    for name, path in (("a", sound), ("b", tmp_path / "gpu.pt")):
        fork("generate.py", path, *FEW, "--out", tmp_path / name, env=env).succeeded()
    assert [*hashes(tmp_path / "a").values()] == [*hashes(tmp_path / "b").values()]


def test_g12_out_of_memory(sound: Path, tmp_path: Path) -> None:
    """G12: many pictures take batches of memory; where a film does not fit: a line, they stay."""
    few = ("--seeds", "0-20", "--singles", "--mix_seeds", 0, 1)
    ended = fork("generate.py", sound, *few, "--out", tmp_path / "few").succeeded()
    many = ("--seeds", "0-1500", "--singles", "--mix_seeds", 0, 1)
    grown = fork("generate.py", sound, *many, "--out", tmp_path / "many").succeeded()
    assert grown.peak < ended.peak + 50
    film = (*few, "--film", "webp", "--frames", 190)
    ended = fork("generate.py", sound, *film, "--out", tmp_path / "film", memory=400)
    assert "out of memory" in ended.failed()
    made = [path.name for path in (tmp_path / "film").iterdir()]
    assert {f"seed{i:04d}.png" for i in range(21)} < set(made)
    assert not [name for name in made if name.startswith((".", "film"))]


@pytest.mark.slow
def test_g13_stopped_midway(sound: Path, tmp_path: Path) -> None:
    """G13: SIGINT, SIGTERM, SIGHUP: 130, 143, 129 and a line; kill -9 too leaves whole pictures."""
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
    for number, code in codes.items():
        out = tmp_path / str(code)
        process = start(
            command("generate.py", sound, "--singles", "--seeds", "0-99999", "--out", out)
        )
        wait_for(out / "seed0050.png", process)
        process.send_signal(number)
        ended = end(process)
        assert ended.code == code
        expected = [] if code == -9 else ["generate.py: interrupted; finished pictures stay"]
        assert ended.told == expected
        made = sorted(out.glob("seed*.png"))
        assert len(made) > 50
        assert all(is_whole(path) for path in made)
        if code != -9:
            assert not list(out.glob(".*"))


REPLACE = """
import os
from checkpoints import checkpoint
check = checkpoint.check_archive
def then_replace(*args):
    check(*args)
    os.replace({new!r}, {path!r})
checkpoint.check_archive = then_replace
"""


def test_g14_replaced_while_read(sound: Path, tmp_path: Path) -> None:
    """G14: a checkpoint that a trainer replaces meanwhile is read as it was, never mixed."""
    path, new = Path(shutil.copy(sound, tmp_path / "a.pt")), save(tmp_path / "b.pt", seed=1)
    patch = REPLACE.format(new=str(new), path=str(path))
    fork("generate.py", path, *FEW, "--out", tmp_path / "old", patch=patch).succeeded()
    fork("generate.py", path, *FEW, "--out", tmp_path / "new").succeeded()
    fork("generate.py", sound, *FEW, "--out", tmp_path / "expected").succeeded()
    old, now, expected = (
        np.asarray(Image.open(tmp_path / name / "sample.png"))
        for name in ("old", "new", "expected")
    )
    assert (old == expected).all()
    assert (now != expected).any()


def test_g15_any_name(sound: Path, tmp_path: Path) -> None:
    """G15: spaces, bytes that are no text, a leading dash, a newline: all work."""
    for name in ("with space.pt", os.fsdecode(b"caf\xe9.pt"), "-dash.pt", "a\nb.pt", "\x1b[31m.pt"):
        shutil.copy(sound, tmp_path / name)
        ended = fork("generate.py", *FEW, "--out", "./out", "--", name, cwd=tmp_path).succeeded()
        assert ended.err == ""
        assert (tmp_path / "out" / "sample.png").exists()
        shutil.rmtree(tmp_path / "out")
        (tmp_path / name).write_bytes(b"text")
        error = fork("generate.py", *FEW, "--out", "./out", "--", name, cwd=tmp_path).failed()
        assert "truncated or not a checkpoint" in error
        assert error.isprintable()
