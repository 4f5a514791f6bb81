"""photos.py on large JPEGs: decoded at reduced size, and yet the photo that it was."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.photos import OVERSAMPLING, PhotoError, Recipe, open_photo, prepare_photo, square

SIZE = 64  # px
ENOUGH = OVERSAMPLING * SIZE


def detailed(width: int, height: int) -> Image.Image:
    """Return a picture with detail of every size down to one pixel, as grainy as a photo."""
    rng = np.random.default_rng(width)
    pixels = np.full((height, width, 3), 128, np.float32)
    for octave in range(9):
        cells = rng.integers(0, 256, (2 + (3 << octave), 2 + (4 << octave), 3), np.uint8)
        layer = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        pixels += (np.asarray(layer, np.float32) - 128) * 0.35
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def psnr(a: Image.Image, b: Image.Image) -> float:
    """Return how alike two pictures are, in dB."""
    error = np.asarray(a.convert("RGB"), float) - np.asarray(b.convert("RGB"), float)
    return float(10 * np.log10(255**2 / (error**2).mean()))


@pytest.mark.parametrize(
    ("width", "height", "orientation", "scale"),
    [
        (2304, 2048, 1, 8),
        (2051, 2567, 6, 8),
        (1303, 1031, 3, 4),
        (1031, 1303, 6, 4),
        (517, 610, 5, 2),
    ],
)
def test_a_reduced_jpeg_gives_the_square_of_the_whole_one(
    tmp_path: Path, width: int, height: int, orientation: int, scale: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    detailed(width, height).save(tmp_path / "a", "JPEG", quality=90, exif=exif)
    whole, reduced = open_photo(tmp_path / "a"), open_photo(tmp_path / "a", ENOUGH)
    assert min(reduced.size) == min(width, height) // scale >= ENOUGH
    assert (reduced.width > reduced.height) == (whole.width > whole.height)
    assert psnr(square(reduced, SIZE), square(whole, SIZE)) >= 45
    (record,) = prepare_photo(tmp_path / "a", Recipe((SIZE,), 95, 32))
    assert psnr(Image.open(io.BytesIO(record)), square(whole, SIZE)) > 30


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_are_reduced_alike(tmp_path: Path, mode: str) -> None:
    detailed(1303, 1031).convert(mode).save(tmp_path / "a", "JPEG", quality=90)
    whole, reduced = open_photo(tmp_path / "a"), open_photo(tmp_path / "a", ENOUGH)
    assert min(reduced.size) == 1031 // 4
    assert psnr(square(reduced, SIZE), square(whole, SIZE)) >= 45


def test_small_jpegs_and_other_formats_come_whole(tmp_path: Path) -> None:
    detailed(700, 2 * ENOUGH - 1).save(tmp_path / "a", "JPEG")
    detailed(1300, 1100).save(tmp_path / "b", "PNG")
    assert open_photo(tmp_path / "a", ENOUGH).size == (700, 2 * ENOUGH - 1)
    assert open_photo(tmp_path / "b", ENOUGH).size == (1300, 1100)


def test_a_jpeg_of_any_size_can_be_reduced(tmp_path: Path) -> None:
    for short in range(2 * ENOUGH + 1, 3 * ENOUGH, 6):  # half of them are rounded up somewhere
        Image.new("L", (short + 1, short)).save(tmp_path / "a", "JPEG")
        assert open_photo(tmp_path / "a", ENOUGH).height == short // 2


@pytest.mark.parametrize("largest", [16, 64])
def test_min_size_is_held_against_the_size_in_the_file(tmp_path: Path, largest: int) -> None:
    Image.new("RGB", (2000, 1003), "red").save(tmp_path / "a", "JPEG")
    assert len(prepare_photo(tmp_path / "a", Recipe((8, largest), 95, 1003))) == 2
    with pytest.raises(PhotoError, match="too small: 2000 x 1003 px"):
        prepare_photo(tmp_path / "a", Recipe((8, largest), 95, 1004))


def test_a_large_jpeg_that_was_cut_off_is_damaged(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    detailed(1303, 1031).save(buffer, "JPEG")
    (tmp_path / "a").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) * 2 // 3])
    with pytest.raises(PhotoError, match="damaged"):
        open_photo(tmp_path / "a", ENOUGH)
