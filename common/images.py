"""Conventions for images: [-1, 1] and uint8, halving, fading in, grids, files."""

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """Return uint8 images [..., H, W] as float32 in [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Return images in [-1, 1] as uint8, rounded; values outside are clipped."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def upsample(images: Tensor) -> Tensor:
    """Return images [N, C, H, W] doubled in size, each pixel repeated (nearest)."""
    return F.interpolate(images, scale_factor=2, mode="nearest")


def repeat_pixels(images: Tensor, resolution: int) -> Tensor:
    """Return images [N, C, R, R] enlarged to `resolution`, a multiple of R, by repeating pixels."""
    times = resolution // images.shape[-1]
    return images.repeat_interleave(times, 2).repeat_interleave(times, 3)


def shrink(images: Tensor, resolution: int) -> Tensor:
    """Return float images [N, C, R, R] reduced to `resolution` by averaging square blocks.

    The official definition of a lower resolution is repeated 2x2 means (Karras et al. 2018,
    sec. 2), which is the same.
    """
    factor = images.shape[-1] // resolution
    return images if factor == 1 else F.avg_pool2d(images, factor)


def fade(images: Tensor, alpha: float) -> Tensor:
    """Return images [N, C, R, R] as they look while R is faded in: alpha = 0 shows R / 2.

    Reals are faded like fakes, or D could tell them apart by sharpness alone.
    """
    if alpha == 1:
        return images
    return torch.lerp(upsample(shrink(images, images.shape[-1] // 2)), images, alpha)


def grid(images: Tensor, n_col: int, gap: int = 2) -> Image.Image:
    """Return uint8 images [N, 3, R, R] in rows of `n_col` on white, `gap` px apart."""
    count, _, height, width = images.shape
    n_row = -(-count // n_col)
    sheet = torch.full(
        (n_row * (height + gap) + gap, n_col * (width + gap) + gap, 3), 255, dtype=torch.uint8
    )
    for i, image in enumerate(images.permute(0, 2, 3, 1).cpu()):
        top = gap + i // n_col * (height + gap)
        left = gap + i % n_col * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return Image.fromarray(sheet.numpy())


def write_image(image: Image.Image, path: Path, **options: object) -> None:
    """Write `image` to `path`, which is never half a file: to a temporary file that is renamed.

    `options` go to Pillow. Raises OSError.
    """
    partial = path.with_name(f".{path.name}.tmp")
    try:
        partial.unlink(missing_ok=True)  # it may be a link, which would be followed
        image.save(partial, format=Image.registered_extensions()[path.suffix.lower()], **options)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
