"""photos.py: odd and bad files, every format and mode, and large JPEGs decoded at reduced size."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from data.photos import OVERSAMPLING, PhotoError, Recipe, open_photo, prepare_photo, square
from tests.support.folders import COLOUR, TURNS, encoded, pixels, scene

SIZE = 64  # px
MIN_SIDE = OVERSAMPLING * SIZE
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF")


def opened(content: bytes) -> np.ndarray:
    """Return a photo as float64 [H, W, 3] in 0..255."""
    return np.asarray(open_photo(io.BytesIO(content)), float)


def prepared(content: bytes, min_size: int = 32) -> bytes:
    (record,) = prepare_photo(io.BytesIO(content), Recipe((SIZE,), min_size=min_size))
    return record


def reason(content: bytes) -> str:
    """Return why a photo is left out, without the details."""
    with pytest.raises(PhotoError) as caught:
        prepared(content)
    return str(caught.value).partition(":")[0]


def test_the_centre_square_is_taken_and_resampled_by_lanczos() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste((0, 0, 255), (100, 0, 200, 100))
    inner = np.asarray(square(image, 50))[:, 4:-4]  # at the border the filter sees beyond it
    assert np.array_equal(inner, np.tile((0, 0, 255), (50, 42, 1)))
    assert np.abs(np.asarray(square(image, 50)) - np.array((0, 0, 255))).mean() < 1
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))
    expected = noise.resize((64, 64), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(square(noise, 64)), np.asarray(expected))


def test_each_setting_of_the_recipe_reaches_the_records() -> None:
    content = encoded(scene(200, 210), "PNG")
    small, large = prepare_photo(io.BytesIO(content), Recipe((32, 128), quality=40))
    for size, record in ((32, small), (128, large)):
        image = Image.open(io.BytesIO(record))
        like = Image.open(io.BytesIO(encoded(scene(), quality=40)))
        assert isinstance(image, JpegImageFile)
        assert isinstance(like, JpegImageFile)
        assert image.size == (size, size)
        assert image.quantization == like.quantization
    with pytest.raises(PhotoError, match="too small: 200 x 210 px"):
        prepare_photo(io.BytesIO(content), Recipe((32,), min_size=201))


def test_what_cannot_be_opened_is_a_photo_error_and_not_a_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, text in {
        "pipe": "not a regular file",
        "none": "cannot be read: No such file or directory",
        ".": "not a regular file",
    }.items():
        with pytest.raises(PhotoError, match=text):
            open_photo(tmp_path / name)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_truncated_picture_is_left_out(format_: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    whole = encoded(noise, format_)
    for percent in (30, 60, 95):
        assert reason(whole[: len(whole) * percent // 100]) in ("damaged", "not an image")


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>no photo</html>", b"hello", bytes(600), b"\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n"],
)
def test_what_is_not_a_picture_is_not_an_image(content: bytes) -> None:
    assert reason(content) == "not an image"


@pytest.mark.parametrize(
    ("name", "format_"),
    [("a.jpg", "PNG"), ("b.jpg", "WEBP"), ("c.jpg", "GIF"), ("d.txt", "JPEG"), ("e", "AVIF")],
)
def test_the_content_decides_the_format(tmp_path: Path, name: str, format_: str) -> None:
    (tmp_path / name).write_bytes(encoded(scene(), format_))
    assert open_photo(tmp_path / name).size == scene().size


def test_no_other_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPS, PDF, WMF and SPIDER are not images, and Ghostscript is not called."""
    marker = tmp_path / "started"
    for name in ("gs", "gswin64c", "djpeg", "xv"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch '{marker}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    eps = encoded(scene(), "EPS")
    with Image.open(io.BytesIO(eps)) as image, pytest.raises(OSError, match=r"EPS|cannot"):
        image.load()  # what a program without a list of formats does
    assert marker.exists()
    marker.unlink()
    wmf = b"\xd7\xcd\xc6\x9a" + struct.pack("<HHHHHH", 0, 0, 0, 50, 50, 96) + bytes(60)
    spider = encoded(scene().convert("F"), "SPIDER")
    for content in (eps, encoded(scene(), "PDF"), spider, wmf):
        assert reason(content) == "not an image"
    assert not marker.exists()


def grey16(value: int) -> Image.Image:
    return Image.fromarray(np.full((50, 50), value, np.uint16))


def see_through(mode: str) -> Image.Image:
    """Return a picture whose hidden colour is black and whose alpha is 0 on one half."""
    image = Image.new("RGBA", (50, 50), (*COLOUR, 255))
    image.paste((0, 0, 0, 0), (25, 0, 50, 50))
    return image.convert(mode)


def palette_see_through() -> Image.Image:
    image = Image.new("P", (50, 50), 0)
    image.putpalette([*COLOUR, 0, 0, 0])
    image.paste(1, (25, 0, 50, 50))
    image.info["transparency"] = 1
    return image


PLAIN = Image.new("RGB", (50, 50), COLOUR)
GREY = Image.new("RGB", (1, 1), COLOUR).convert("L").tobytes()[0]
HALF_WHITE = tuple((value + 255) / 2 for value in COLOUR)
MODES = [
    *((PLAIN, format_, COLOUR) for format_ in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")),
    (PLAIN, "AVIF", COLOUR),
    (PLAIN.convert("CMYK"), "JPEG", COLOUR),
    (PLAIN.convert("CMYK"), "TIFF", COLOUR),
    (PLAIN.convert("YCbCr"), "TIFF", COLOUR),
    (PLAIN.convert("P", palette=Image.Palette.ADAPTIVE), "PNG", COLOUR),
    (Image.new("L", (50, 50), GREY), "JPEG", (GREY,) * 3),
    (Image.new("L", (50, 50), GREY), "PNG", (GREY,) * 3),
    (Image.new("1", (50, 50), 1), "PNG", (255,) * 3),
    (grey16(0x4000), "PNG", (64,) * 3),
    (grey16(0xFFFF), "TIFF", (255,) * 3),
    (grey16(300), "TIFF", (1,) * 3),
    (see_through("RGBA"), "PNG", HALF_WHITE),
    (see_through("RGBA"), "WEBP", HALF_WHITE),
    (see_through("RGBA"), "TIFF", HALF_WHITE),
    (see_through("RGBA"), "AVIF", HALF_WHITE),
    (see_through("LA"), "PNG", ((GREY + 255) / 2,) * 3),
    (palette_see_through(), "PNG", HALF_WHITE),
    (palette_see_through(), "GIF", HALF_WHITE),
]


@pytest.mark.parametrize(
    ("image", "format_", "expected"), MODES, ids=lambda value: getattr(value, "mode", None)
)
def test_every_mode_and_format_keeps_its_mean_colour(
    image: Image.Image, format_: str, expected: tuple[float, ...]
) -> None:
    """Transparent parts become white, and 16 bits are scaled."""
    options = {"lossless": True} if format_ == "WEBP" else {}
    record = prepared(encoded(image, format_, **options))
    assert pixels(record).mean(axis=(0, 1)) == pytest.approx(expected, abs=4)


def test_pixels_of_32_bits_are_left_out() -> None:
    for image in (Image.new("F", (50, 50), 0.5), Image.new("I", (50, 50), 70000)):
        assert reason(encoded(image, "TIFF")) == "pixels of unknown range"


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"])
def test_the_first_frame_stands_for_an_animation(format_: str) -> None:
    red, *others = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    content = encoded(red, format_, save_all=True, append_images=others)
    assert opened(content).mean(axis=(0, 1)) == pytest.approx((255, 0, 0), abs=5)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_exif_orientation_ends_upright(format_: str) -> None:
    upright = np.asarray(scene(), float)
    for orientation in range(10):
        turn = TURNS.get(orientation)
        held = scene().transpose(Image.Transpose[turn]) if turn else scene()
        exif = Image.Exif()
        exif[0x0112] = orientation
        shown = opened(encoded(held, format_, exif=exif))
        assert shown.shape == upright.shape
        assert np.abs(shown - upright).mean() < 5, orientation


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(9), b"Exif\0\0x"])
def test_exif_that_cannot_be_read_is_ignored(exif: bytes) -> None:
    assert opened(encoded(scene(), exif=exif)).shape == (80, 60, 3)


@pytest.mark.parametrize(
    ("size", "format_"),
    [((1, 1), "PNG"), ((1, 10000), "PNG"), ((10000, 1), "PNG"), ((65500, 1), "JPEG")],
)
def test_thin_and_tiny_pictures_are_too_small_unless_asked_for(
    size: tuple[int, int], format_: str
) -> None:
    content = encoded(Image.new("RGB", size, COLOUR), format_)
    assert reason(content) == "too small"
    shown = pixels(prepared(content, min_size=1))
    assert shown.mean(axis=(0, 1)) == pytest.approx(COLOUR, abs=4)


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG."""
    crc = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


@pytest.mark.parametrize("side", [12000, 20000])
def test_too_many_pixels_are_refused_by_the_header_alone(side: int) -> None:
    png = encoded(Image.new("1", (8, 8)), "PNG")
    header = chunk(b"IHDR", struct.pack(">II", side, side) + png[24:29])
    assert reason(png[:8] + header + png[33:]) == "too many pixels"


@pytest.mark.parametrize("place", [33, -12], ids=["before the pixels", "after them"])
def test_a_text_that_unpacks_to_64_megabytes_is_damage(place: int) -> None:
    png = encoded(scene(), "PNG")
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**26)))
    assert reason(png[:place] + text + png[place:]) == "damaged"


def test_a_jpeg_of_a_thousand_scans_is_not_decoded() -> None:
    sound = encoded(Image.new("L", (500, 500), 90), progressive=True)
    assert pixels(prepared(sound)).mean() == pytest.approx(90, abs=2)
    last = sound[sound.rindex(b"\xff\xc4") : -2]
    assert reason(sound[:-2] + last * 1000 + sound[-2:]) == "too many scans"


def test_nothing_but_the_pixels_is_kept() -> None:
    """EXIF, GPS, ICC, XMP, comments and texts do not reach the records."""
    exif = Image.Exif()
    exif[0x010F] = "SECRET"
    exif.get_ifd(0x8825)[1] = "SECRET"
    icc, xmp = b"SECRET" * 30, b"<x>SECRET</x>"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "SECRET")
    both = {"exif": exif, "icc_profile": icc}
    contents = [
        encoded(scene(), comment=b"SECRET" * 9000, xmp=xmp, **both),
        encoded(scene(), "WEBP", xmp=xmp, **both),
        encoded(scene(), "TIFF", description="SECRET", **both),
        encoded(scene(), "GIF", comment=b"SECRET"),
        encoded(scene(), "AVIF", xmp=xmp, **both),
    ]
    assert all(b"SECRET" in content for content in contents)
    for content in [*contents, encoded(scene(), "PNG", pnginfo=text, **both)]:
        record = prepared(content)
        assert b"SECRET" not in record
        image = Image.open(io.BytesIO(record))
        assert isinstance(image, JpegImageFile)
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
        assert all(layer[1:3] == (1, 1) for layer in image.layer)
        assert not {"exif", "icc_profile", "comment", "xmp"} & set(image.info)


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
    """Return the similarity of two pictures, in dB."""
    error = np.asarray(a.convert("RGB"), float) - np.asarray(b.convert("RGB"), float)
    return float(10 * np.log10(255**2 / (error**2).mean()))


@pytest.mark.parametrize(
    ("width", "height", "orientation", "scale"),
    [
        pytest.param(2304, 2048, 1, 8, marks=pytest.mark.slow),
        pytest.param(2051, 2567, 6, 8, marks=pytest.mark.slow),
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
    whole, reduced = open_photo(tmp_path / "a"), open_photo(tmp_path / "a", MIN_SIDE)
    assert min(reduced.size) == min(width, height) // scale >= MIN_SIDE
    assert (reduced.width > reduced.height) == (whole.width > whole.height)
    assert psnr(square(reduced, SIZE), square(whole, SIZE)) >= 45
    (record,) = prepare_photo(tmp_path / "a", Recipe((SIZE,)))
    assert psnr(Image.open(io.BytesIO(record)), square(whole, SIZE)) > 30


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_are_reduced_alike(tmp_path: Path, mode: str) -> None:
    detailed(1303, 1031).convert(mode).save(tmp_path / "a", "JPEG", quality=90)
    whole, reduced = open_photo(tmp_path / "a"), open_photo(tmp_path / "a", MIN_SIDE)
    assert min(reduced.size) == 1031 // 4
    assert psnr(square(reduced, SIZE), square(whole, SIZE)) >= 45


def test_small_jpegs_and_other_formats_come_whole(tmp_path: Path) -> None:
    detailed(700, 2 * MIN_SIDE - 1).save(tmp_path / "a", "JPEG")
    detailed(1300, 1100).save(tmp_path / "b", "PNG")
    assert open_photo(tmp_path / "a", MIN_SIDE).size == (700, 2 * MIN_SIDE - 1)
    assert open_photo(tmp_path / "b", MIN_SIDE).size == (1300, 1100)


def test_a_jpeg_of_any_size_can_be_reduced(tmp_path: Path) -> None:
    for short in range(2 * MIN_SIDE + 1, 3 * MIN_SIDE, 6):  # half of them are rounded up
        Image.new("L", (short + 1, short)).save(tmp_path / "a", "JPEG")
        assert open_photo(tmp_path / "a", MIN_SIDE).height == short // 2


@pytest.mark.parametrize("largest", [16, 64])
def test_min_size_is_compared_with_the_size_in_the_file(tmp_path: Path, largest: int) -> None:
    Image.new("RGB", (2000, 1003), "red").save(tmp_path / "a", "JPEG")
    assert len(prepare_photo(tmp_path / "a", Recipe((8, largest), 95, 1003))) == 2
    with pytest.raises(PhotoError, match="too small: 2000 x 1003 px"):
        prepare_photo(tmp_path / "a", Recipe((8, largest), 95, 1004))


def test_a_large_jpeg_that_was_cut_off_is_damaged(tmp_path: Path) -> None:
    whole = encoded(detailed(1303, 1031))
    (tmp_path / "a").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(PhotoError, match="damaged"):
        open_photo(tmp_path / "a", MIN_SIDE)
