"""What several test files share: one thread, and small databases of drawn pictures."""

import io
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from data.lmdb_format import HOLDOUT, TRAINING
from data.lmdb_writer import Writer
from dataset import ImageBank
from metrics.features import LITE0_ROWS

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:  # as in the background of a shell: the scripts
        signal.signal(number, signal.SIG_DFL)  # that are tested would inherit it, and heed it
torch.set_num_threads(1)  # as many sums in the same order on every machine


def _shape(index: int, size: int) -> Image.Image:
    """A disc or a square on a plain ground, drawn anew from `index`."""
    rng = random.Random(index)
    ground, colour = (tuple(rng.randrange(256) for _ in range(3)) for _ in range(2))
    image = Image.new("RGB", (4 * size, 4 * size), ground)
    left, top = rng.randrange(size), rng.randrange(size)
    box = (left, top, left + 2 * size, top + 2 * size)
    draw = ImageDraw.Draw(image)
    (draw.ellipse if index % 2 else draw.rectangle)(box, fill=colour)
    return image.resize((size, size), Image.Resampling.BOX)


def _store(path: Path, pictures: list[Image.Image], training: int = 1000) -> Path:
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
    """Give the shapes at a resolution; the same bank again for the same one."""
    banks: dict[int, ImageBank] = {}
    return lambda size: banks.setdefault(size, ImageBank(tiny_lmdb, size))


@pytest.fixture(scope="session")
def red_lmdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight plain red pictures of 8 px."""
    pictures = [Image.new("RGB", (8, 8), (230, 20, 20))] * 8
    return _store(tmp_path_factory.mktemp("red") / "red.lmdb", pictures)


@pytest.fixture(scope="session")
def red_bank(red_lmdb: Path) -> ImageBank:
    """Give the red pictures."""
    return ImageBank(red_lmdb, 8)


@pytest.fixture(scope="session")
def lite0_weights() -> dict[str, Tensor]:
    """Random weights of Lite0's names and shapes, as its package has them."""
    rng = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}

    def add(conv: str, norm: str, c_out: int, c_in: int, kernel: int) -> None:
        fan_in = c_in * kernel**2
        shape = (c_out, c_in, kernel, kernel)
        found[f"{conv}.weight"] = torch.randn(shape, generator=rng) * (2 / fan_in) ** 0.5
        for name in ("weight", "running_var"):
            found[f"{norm}.{name}"] = torch.rand(c_out, generator=rng) + 0.5
        for name in ("bias", "running_mean"):
            found[f"{norm}.{name}"] = torch.randn(c_out, generator=rng) * 0.1

    add("_conv_stem", "_bn0", 32, 3, 3)
    channels, block = 32, 0
    for repeats, kernel, _, expansion, c_out in LITE0_ROWS:
        for _ in range(repeats):
            at, wide = f"_blocks.{block}.", channels * expansion
            if expansion > 1:
                add(f"{at}_expand_conv", f"{at}_bn0", wide, channels, 1)
            add(f"{at}_depthwise_conv", f"{at}_bn1", wide, 1, kernel)
            add(f"{at}_project_conv", f"{at}_bn2", c_out, wide, 1)
            channels, block = c_out, block + 1
    add("_conv_head", "_bn1", 1280, channels, 1)
    return found
