"""Turns one photo, a file of any common format, into an upright RGB image and a square JPEG.

A file's content decides its format, never its name. Transparent parts become white, of an
animation the first frame is taken, and only pixels are kept: no EXIF, GPS, ICC or comments.
"""

import io
import os
import stat
import warnings
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from common.cli import UserError

# What cameras (their MPO counts as JPEG), phones and the web produce. Opening others can be unsafe:
# EPS would start Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# A photo is decoded at at least this many times the wanted size. Its square then equals that of the
# whole photo to 45 dB (PSNR) or better, even for test charts (doc/decisions.md).
OVERSAMPLING = 4
# Each scan of a progressive JPEG goes through all pixels but can be as small as 141 bytes: 1 MB of
# scans took minutes. Encoders write about ten.
MAX_SCANS = 100
QUALITY = 95  # of JPEGs, by default
MIN_SIZE = 32  # px that both sides of a photo must have, by default
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {  # for each of its values, what turns the image upright (EXIF 2.3)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PhotoError(UserError):
    """Why a photo cannot be used: a reason that can be counted, and sometimes ": " and a detail."""


@dataclass(frozen=True)
class Recipe:
    """How a photo becomes square JPEGs."""

    sizes: tuple[int, ...]  # px
    quality: int = QUALITY  # of the JPEGs, 1 to 100
    min_size: int = MIN_SIZE  # px that both sides of a photo must have

    def settings(self) -> dict[str, int]:
        """Return what databases and config.json keep: all but the sizes, by name."""
        return {"quality": self.quality, "min_size": self.min_size}


Source = str | bytes | os.PathLike[str] | BinaryIO


def prepare_photo(source: Source, recipe: Recipe) -> list[bytes]:
    """Return the photo's square JPEGs, one for each size; raise PhotoError if it is unusable."""
    # With min_size as a lower bound, a photo too small for it is never reduced: the size reported
    # is its own.
    image = open_photo(source, max(OVERSAMPLING * max(recipe.sizes), recipe.min_size))
    if min(image.size) < recipe.min_size:
        raise PhotoError(f"too small: {image.width} x {image.height} px")
    return [encode(square(image, size), recipe.quality) for size in recipe.sizes]


def open_photo(source: Source, min_side: int | None = None) -> Image.Image:
    """Return a photo, upright and in mode RGB; raise PhotoError if it cannot be used.

    `source` is the path of a file, or a binary stream that can seek. With `min_side`, in px, a
    JPEG may be reduced to 1/2, 1/4 or 1/8 as long as no side gets shorter than that: it is decoded
    in a fraction of the time. A photo may have Image.MAX_IMAGE_PIXELS, about 89 million.
    """
    with _open(source) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd metadata, which is dropped anyway
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return _decode(file, min_side)


def _open(source: Source) -> BinaryIO:
    if not isinstance(source, str | bytes | os.PathLike):
        return source
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer, perhaps forever.
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise PhotoError(f"cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PhotoError("not a regular file")
    return open(descriptor, "rb")


def _decode(file: BinaryIO, min_side: int | None) -> Image.Image:
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise PhotoError("not an image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoError("too many pixels") from None
    except MemoryError:
        raise
    except Exception as error:  # at damaged bytes decoders raise exceptions of any type
        raise PhotoError(f"damaged: {error}") from None
    with image:
        try:
            if image.info.get("progressive") and _scans(file) > MAX_SCANS:
                raise PhotoError("too many scans")
            upright = _upright(_load(image, min_side))
            rgb = _rgb(upright)
        except (PhotoError, MemoryError):
            raise
        except Exception as error:  # as above
            raise PhotoError(f"damaged: {error}") from None
    rgb.info = {}  # else Pillow would write the original's comment into the JPEG
    return rgb


def _scans(file: BinaryIO) -> int:
    """Return how many scans a JPEG has; markers within thumbnails count as well."""
    place = file.tell()
    file.seek(0)
    count = file.read().count(b"\xff\xda")
    file.seek(place)
    return count


def _load(image: Image.Image, min_side: int | None) -> Image.Image:
    """Return `image` loaded, reduced if `min_side` allows it, about the same centre."""
    whole = image.size
    drafted = image.draft(None, (min_side, min_side)) if min_side else None  # JPEGs only
    image.load()
    if drafted is None or drafted[1][2:] == image.size:
        return image
    # At 1/8, 3001 px are decoded as 376, of which the photo fills 375.125: resample to 375.
    width, height = drafted[1][2:]
    short = int(min(width, height))
    pitch = min(width, height) / short
    size = (whole[0] * short // min(whole), whole[1] * short // min(whole))
    x, y = max(0, width - size[0] * pitch) / 2, max(0, height - size[1] * pitch) / 2
    return image.resize(size, Image.Resampling.LANCZOS, (x, y, width - x, height - y))


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # unreadable metadata does not spoil the pixels
        return image
    turn = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow's own conversion would clip at 255; 65535 / 257 = 255.
        return image.convert("I").point(lambda v: v * (1 / 257) + 0.5).convert("L").convert("RGB")
    if image.mode in ("I", "F"):
        raise PhotoError("pixels of unknown range: 32 bits each")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> Image.Image:
    """Return the centre square of `image` at size x size px, resampled once (Lanczos)."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box)


def encode(image: Image.Image, quality: int) -> bytes:
    """Return `image` as a JPEG with full colour resolution (4:4:4)."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
