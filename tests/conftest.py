"""What several test files share: one thread, small databases of drawn pictures, a tiny run."""

import io
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from data.lmdb_format import HOLDOUT, TRAINING
from data.lmdb_writer import Writer
from dataset import ImageBank
from tests.support.training import train

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
for number in SIGNALS:
    if signal.getsignal(number) == signal.SIG_IGN:  # as in the background of a shell: the scripts
        signal.signal(number, signal.SIG_DFL)  # under test would inherit it, and never be stopped
torch.set_num_threads(1)  # sums are added in the same order on every machine


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    """Put back the signal handlers that a script's main() replaces."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _shape(index: int, size: int) -> Image.Image:
    """Return a disc or a square on a plain ground; position and colours follow from `index`."""
    rng = random.Random(index)
    ground, colour = (tuple(rng.randrange(256) for _ in range(3)) for _ in range(2))
    image = Image.new("RGB", (4 * size, 4 * size), ground)
    left, top = rng.randrange(size), rng.randrange(size)
    box = (left, top, left + 2 * size, top + 2 * size)
    draw = ImageDraw.Draw(image)
    (draw.ellipse if index % 2 else draw.rectangle)(box, fill=colour)
    return image.resize((size, size), Image.Resampling.BOX)


def _store(path: Path, pictures: list[Image.Image], training: int = 1000) -> Path:
    """Write a database of pictures, of which those after the first `training` are held out."""
    size = pictures[0].width
    with Writer(path, [size], ["drawn"]) as writer:
        for index, picture in enumerate(pictures):
            record = io.BytesIO()
            picture.save(record, "JPEG", quality=95, subsampling="4:4:4")
            part = TRAINING if index < training else HOLDOUT
            writer.add([record.getvalue()], b"%d.png" % index, 0, part)
    return path


@pytest.fixture(scope="session")
def tiny_lmdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 coloured shapes of 16 px."""
    pictures = [_shape(index, 16) for index in range(24)]
    return _store(tmp_path_factory.mktemp("tiny") / "shapes.lmdb", pictures)


@pytest.fixture(scope="session")
def held_out_lmdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 coloured shapes of 16 px to train on and 100 held out: enough for every metric."""
    path = tmp_path_factory.mktemp("held_out") / "shapes.lmdb"
    return _store(path, [_shape(index, 16) for index in range(220)], training=120)


@pytest.fixture(scope="session")
def many_lmdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same 220 shapes, none held out."""
    path = tmp_path_factory.mktemp("many") / "shapes.lmdb"
    return _store(path, [_shape(index, 16) for index in range(220)])


@pytest.fixture(scope="session")
def tiny_bank(tiny_lmdb: Path) -> Callable[[int], ImageBank]:
    """Return the shapes at a given resolution; one bank for each."""
    banks: dict[int, ImageBank] = {}
    return lambda size: banks.setdefault(size, ImageBank(tiny_lmdb, size))


@pytest.fixture(scope="session")
def red_lmdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight plain red pictures of 8 px."""
    pictures = [Image.new("RGB", (8, 8), (230, 20, 20))] * 8
    return _store(tmp_path_factory.mktemp("red") / "red.lmdb", pictures)


@pytest.fixture(scope="session")
def red_bank(red_lmdb: Path) -> ImageBank:
    """Return the red pictures."""
    return ImageBank(red_lmdb, 8)


@pytest.fixture(scope="session")
def tiny_run(tiny_lmdb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six iterations, saved at 0, 3 and 6. Tests must not change it."""
    out = tmp_path_factory.mktemp("tiny_run") / "run"
    train(tiny_lmdb, out, "--save_every", 3).succeeded()
    return out


@pytest.fixture
def own_run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of that run, to go on with or to damage."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))
