"""evaluate.py under faults: spoiled files of features, no memory, no room; one line, no hang."""

import os
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import checkpoint
from model import Generator, ModelConfig
from tests.support.run import Ended, fork, hashes

# A network that needs no package: the first pixels are the features.
NETWORK = """
import torch
from metrics import features
class Pixels:
    label, name = "Lite0", "pixels"
    def __call__(self, images):
        return images.float().flatten(1)[:, :64]
features.load_lite0 = Pixels
"""
NO_ROOM = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({0} * 1024, {0} * 1024))\n"
NO_MEMORY = """
import torch
from metrics import evaluation
evaluation.sample = lambda *args: torch.empty(2**50)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a snapshot of an untrained generator that uses its noise."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "snapshots").mkdir()
    config = ModelConfig(16, 0.03, z_dim=16, w_dim=16, mapping_layers=2)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        G = Generator(config)
        for layer in G.synthesis.layers:
            layer.noise_strength.normal_()
    entries = {"G_ema": G.state_dict(), "iteration": 1, "nimg": 4}
    checkpoint.save(folder / "snapshots" / "000001.pt", config, entries)
    return folder


def evaluate(run: Path, data: Path, *more: object, patch: str = "", **options: Any) -> Ended:
    flags = [run / "snapshots" / "000001.pt", data, "--samples", 100, *more]
    return fork("evaluate.py", *flags, patch=NETWORK + patch, **options)


def deflated(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/data/0", bytes(300 << 20))


def test_spoiled_features(run: Path, held_out_lmdb: Path) -> None:
    """A file of features of other shapes and types, a bomb, a FIFO: a line that names it."""
    evaluate(run, held_out_lmdb).succeeded()
    path = run / "evaluation" / "features-lite0.pt"
    sound = torch.load(path, weights_only=True)
    kept = sound["training"]
    odd: list[dict[str, Any]] = [
        {"training": "x"}, {"training": kept[:5]}, {"training": kept[0]}, {"training": kept.int()},
        {"training": kept * float("nan")}, {"training": torch.zeros(1).expand(120, 2**36)},
        {"unseen": torch.zeros(100, 3)}, {"mirrored": None}, {"photos": torch.ones(3)},
        {"photos": "x" * 10**6}, {"format": 10**5000}, {"format": True},
    ]  # fmt: skip
    makers: list[Callable[[Path], object]] = [os.mkfifo, Path.mkdir, Path.touch, deflated]
    makers += [lambda path, more=more: torch.save({**sound, **more}, path) for more in odd]
    for make in makers:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)
        ended = evaluate(run, held_out_lmdb, memory=4096, seconds=120)
        error = ended.failed()
        assert path.name in error
        assert len(error) < 600
        assert "weights_only" not in ended.err
    path.unlink()


def test_weights_of_inception_that_are_none(run: Path, held_out_lmdb: Path, tmp_path: Path) -> None:
    """--inception: a FIFO, a device, text, code: a line, without torch's advice to trust it."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "text").write_text("no weights")
    with warnings.catch_warnings(action="ignore"):
        torch.save({"code": Path("evil")}, tmp_path / "code")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path / "text", tmp_path / "code"):
        ended = evaluate(run, held_out_lmdb, "--inception", path, seconds=120)
        assert f"--inception {path}" in ended.failed()
        assert "weights_only" not in ended.err


def test_no_memory_and_no_room(run: Path, held_out_lmdb: Path, tmp_path: Path) -> None:
    """Memory that ends, and a disk that is full at each file: a line, nothing half written."""
    error = evaluate(run, held_out_lmdb, "--out", tmp_path / "a", patch=NO_MEMORY).failed()
    assert "out of memory" in error
    whole = evaluate(run, held_out_lmdb, "--out", tmp_path / "whole").succeeded()
    assert "figures.json" in whole.out
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    for kilobytes in (0, 1, 16, 60):
        out = tmp_path / str(kilobytes)
        ended = evaluate(run, held_out_lmdb, "--out", out, patch=NO_ROOM.format(kilobytes))
        if kilobytes:  # with no room at all what is told does not reach the test's own files
            assert "File too large" in ended.failed()
        assert ended.code == 1
        sound = hashes(tmp_path / "whole" / "features-lite0.pt").values()
        left = {path.name for path in out.iterdir()}
        assert left < names
        assert [*hashes(out / "features-lite0.pt").values()] in ([], [*sound])
