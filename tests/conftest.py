"""What several test files share: one thread, and small databases of drawn pictures."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from database import Writer
from dataset import ImageBank

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


def _store(path: Path, pictures: list[Image.Image]) -> Path:
    size = pictures[0].width
    with Writer(path, [size], ["drawn"]) as writer:
        for index, picture in enumerate(pictures):
            record = io.BytesIO()
            picture.save(record, "JPEG", quality=95, subsampling="4:4:4")
            writer.add([record.getvalue()], b"%d.png" % index, 0)
    return path


@pytest.fixture(scope="session")
def tiny_lmdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 coloured shapes of 16 px."""
    pictures = [_shape(index, 16) for index in range(24)]
    return _store(tmp_path_factory.mktemp("tiny") / "shapes.lmdb", pictures)


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
