"""Ranges, shrinking, fading and grids, each against a plain restatement."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from common.images import fade, grid, shrink, to_float, to_uint8, upsample, write_image


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()


def halve(images: torch.Tensor) -> torch.Tensor:
    a, b = images[:, :, 0::2, 0::2], images[:, :, 0::2, 1::2]
    c, d = images[:, :, 1::2, 0::2], images[:, :, 1::2, 1::2]
    return (a + b + c + d) / 4


def official_fade(images: torch.Tensor, lod: float) -> torch.Tensor:
    """FadeLOD of the official code: each 2 x 2 block drawn toward its mean, by lod's fraction."""
    n, c, h, w = images.shape
    blocks = images.reshape(n, c, h // 2, 2, w // 2, 2)
    coarse = blocks.mean(dim=(3, 5), keepdim=True).expand_as(blocks).reshape(n, c, h, w)
    return images + (coarse - images) * (lod - int(lod))


def test_every_byte_survives_the_way_to_float_and_back():
    values = torch.arange(256, dtype=torch.uint8)
    there = to_float(values)
    assert there.dtype == torch.float32
    assert (there.min(), there.max()) == (-1, 1)
    assert torch.equal(to_uint8(there), values)


def test_bytes_are_rounded_to_the_nearest_and_clipped():
    nearly = to_float(torch.tensor([10, 10, 10], dtype=torch.uint8))
    nearly += torch.tensor([-0.49, 0, 0.49]) / 127.5
    assert to_uint8(nearly).tolist() == [10, 10, 10]
    assert to_uint8(torch.tensor([-9.0, -1.001, 1.001, 9.0])).tolist() == [0, 0, 255, 255]


def test_shrinking_is_plain_two_by_two_means_repeated(pictures):
    expected = pictures
    for resolution in (16, 8, 4, 2, 1):
        torch.testing.assert_close(shrink(pictures, resolution), expected)
        expected = halve(expected) if resolution > 1 else expected


def test_upsampling_repeats_each_pixel_and_shrinking_undoes_it(pictures):
    large = upsample(pictures)
    assert torch.equal(large, pictures.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(shrink(large, 16), pictures)


def test_a_fade_begins_as_the_upsampled_previous_resolution_and_ends_unchanged(pictures):
    torch.testing.assert_close(fade(pictures, 0.0), upsample(halve(pictures)))
    assert torch.equal(fade(pictures, 1.0), pictures)
    assert not torch.equal(fade(pictures, 0.999), pictures)


@pytest.mark.parametrize("alpha", [0.01, 0.25, 0.5, 0.9, 1.0])
def test_a_fade_is_that_of_the_official_code(pictures, alpha):
    torch.testing.assert_close(fade(pictures, alpha), official_fade(pictures, 1 - alpha))


def test_a_grid_puts_each_image_where_it_should_be():
    n_col, gap, size = 3, 2, 4
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, size, size) * 40
    images = images + torch.arange(3, dtype=torch.uint8).view(1, 3, 1, 1)  # channels differ
    sheet = np.asarray(grid(images, n_col, gap))
    assert sheet.shape == (2 * (size + gap) + gap, 3 * (size + gap) + gap, 3)
    white = np.full_like(sheet, 255)
    for index in range(5):
        row, column = index // n_col, index % n_col
        top, left = gap + row * (size + gap), gap + column * (size + gap)
        white[top : top + size, left : left + size] = [40 * index + c for c in range(3)]
    assert np.array_equal(sheet, white)


def test_a_grid_shows_images_upright():
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    image[0, 0, 0, 3] = 200  # red, top right
    assert grid(image, 1, gap=0).getpixel((3, 0)) == (200, 0, 0)


def test_a_picture_is_written_beside_its_place_and_renamed_into_it(tmp_path):
    path = tmp_path / "grid.png"
    write_image(Image.new("RGB", (4, 4), "red"), path)
    with path.open("rb") as reader:
        old = path.read_bytes()
        write_image(Image.new("RGB", (4, 4), "blue"), path)
        assert reader.read() == old  # who was reading has the whole old picture still
    with Image.open(path) as image:
        assert image.getpixel((0, 0)) == (0, 0, 255)
    assert os.listdir(tmp_path) == ["grid.png"]


def test_a_picture_that_cannot_be_written_leaves_the_old_one_and_no_trace(tmp_path):
    path = tmp_path / "grid.jpg"
    write_image(Image.new("RGB", (4, 4), "red"), path, quality=90)
    old = path.read_bytes()
    with pytest.raises(OSError, match="RGBA"):
        write_image(Image.new("RGBA", (4, 4)), path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["grid.jpg"]


def test_options_reach_the_writer_of_the_format(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    for quality in (10, 95):
        write_image(noise, tmp_path / f"{quality}.jpg", quality=quality)
    assert (tmp_path / "95.jpg").stat().st_size > 2 * (tmp_path / "10.jpg").stat().st_size
