"""Files that are no photo, or an odd one: the real command leaves them out, or stores them right.

The rows P1 to P9, P28 and P29 of the list of faults.
"""

import contextlib
import io
import os
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from tests.support.folders import (
    COLOUR,
    encoded,
    entries,
    names,
    peak_megabytes,
    photos,
    pixels,
    reasons,
    records,
    report,
    run,
    scene,
    tree,
)

GOOD = ["000000.png", "000001.png", "000002.png"]


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A folder with three good photos."""
    return photos(tmp_path / "src", 3)


def left_out(src: Path, files: dict[str, bytes]) -> dict[str, str]:
    """Run with these files among good ones; return the reasons once the good ones are seen kept."""
    good = [pixels(record) for record in _stored(src, "good")]
    for name, content in files.items():
        (src / name).write_bytes(content)
    before = tree(src)
    kept = _stored(src, "all")
    assert tree(src) == before
    stored = dict(zip(names(src.parent / "all.lmdb"), map(pixels, kept), strict=True))
    for name, expected in zip(GOOD, good, strict=True):
        assert np.array_equal(stored[name], expected)
    assert set(stored) | set(report(src.parent / "all.lmdb")) == {p.name for p in src.iterdir()}
    return reasons(src.parent / "all.lmdb")


def _stored(src: Path, name: str) -> list[bytes]:
    run(src, src.parent / f"{name}.lmdb")
    return records(src.parent / f"{name}.lmdb")


def test_p01_truncated_pictures_are_damaged(src: Path) -> None:
    """P1: a JPEG, PNG, WebP, GIF, TIFF, AVIF that lacks its end is left out."""
    files = {}
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for format_ in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"):
        whole = encoded(noise, format_)
        files |= {f"{format_}{share}": whole[: len(whole) * share // 100] for share in (30, 60, 95)}
    assert set(left_out(src, files).values()) <= {"damaged", "not an image"}
    assert set(reasons(src.parent / "all.lmdb")) == set(files)


def test_p02_what_is_no_picture_is_not_an_image(src: Path) -> None:
    """P2: empty files, text and HTML with a photo's name."""
    files = {"empty.jpg": b"", "page.jpg": b"<html>no photo</html>", "notes.png": b"hello"}
    files |= {"Thumbs.db": bytes(600), "one.jpg": b"\xff", "start.jpg": b"\xff\xd8\xff"}
    found = left_out(src, files)
    assert found.pop("start.jpg") in ("damaged", "not an image")
    assert found == dict.fromkeys(set(files) - {"start.jpg"}, "not an image")


def test_p03_the_content_decides_the_format(src: Path) -> None:
    """P3: a PNG, WebP, GIF named .jpg, and a JPEG named .txt, are photos."""
    formats = {"a.jpg": "PNG", "b.jpg": "WEBP", "c.jpg": "GIF", "d.txt": "JPEG", "e": "AVIF"}
    files = {name: encoded(scene(), format_) for name, format_ in formats.items()}
    assert left_out(src, files) == {}
    assert names(src.parent / "all.lmdb") == [*GOOD, *sorted(files)]


def test_p04_nothing_else_is_started(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: EPS, PDF, WMF and SPIDER named .jpg are no images, and Ghostscript stays where it is."""
    programs = src.parent / "bin"
    programs.mkdir()
    marker = src.parent / "started"
    for name in ("gs", "gswin64c", "djpeg", "xv"):
        (programs / name).write_text(f"#!/bin/sh\ntouch '{marker}'\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    eps = encoded(scene(), "EPS")
    with Image.open(io.BytesIO(eps)) as image, pytest.raises(OSError, match=r"EPS|cannot"):
        image.load()  # what a program without a list of formats does
    assert marker.exists()
    marker.unlink()
    files = {"eps.jpg": eps, "pdf.jpg": encoded(scene(), "PDF")}
    files["spider.jpg"] = encoded(scene().convert("F"), "SPIDER")
    files["wmf.jpg"] = b"\xd7\xcd\xc6\x9a" + struct.pack("<HHHHHH", 0, 0, 0, 50, 50, 96) + bytes(60)
    assert left_out(src, files) == dict.fromkeys(files, "not an image")
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


def test_p05_every_mode_and_format_keeps_its_mean_colour(src: Path) -> None:
    """P5: transparent parts become white, 16 bits are scaled, 32 bits are left out."""
    files = {}
    for index, (image, format_, _) in enumerate(MODES):
        options = {"lossless": True} if format_ == "WEBP" else {}
        files[f"{index:06d}.jpg"] = encoded(image, format_, **options)
    files["float.jpg"] = encoded(Image.new("F", (50, 50), 0.5), "TIFF")
    files["integer.jpg"] = encoded(Image.new("I", (50, 50), 70000), "TIFF")
    found = left_out(src, files)
    assert found == dict.fromkeys(["float.jpg", "integer.jpg"], "pixels of unknown range")
    path = src.parent / "all.lmdb"
    stored = dict(zip(names(path), records(path), strict=True))
    for index, (image, format_, expected) in enumerate(MODES):
        mean = pixels(stored[f"{index:06d}.jpg"]).mean(axis=(0, 1))
        assert mean == pytest.approx(expected, abs=4), (image.mode, format_)


def test_p06_the_first_frame_stands_for_an_animation_once(src: Path) -> None:
    """P6: animated GIF, APNG, WebP and AVIF, TIFF of several pages, MPO."""
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    files = {
        f"{format_}.jpg": encoded(frames[0], format_, save_all=True, append_images=frames[1:])
        for format_ in ("GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF")
    }
    assert left_out(src, files) == {}
    assert names(src.parent / "all.lmdb") == [*GOOD, *sorted(files)]
    for record in records(src.parent / "all.lmdb")[3:]:
        assert pixels(record).mean(axis=(0, 1)) == pytest.approx((255, 0, 0), abs=5)


TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
TURNS |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}  # how the camera was held


def test_p07_every_exif_orientation_ends_upright(src: Path) -> None:
    """P7: the orientations 0 to 9 of one scene, and EXIF that cannot be read."""
    files = {}
    for format_ in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        for orientation in range(10):
            turn = TURNS.get(orientation)
            held = scene().transpose(Image.Transpose[turn]) if turn else scene()
            exif = Image.Exif()
            exif[0x0112] = orientation
            files[f"{format_}{orientation}"] = encoded(held, format_, exif=exif)
    broken = b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(9)
    files |= {"broken": encoded(scene(), exif=broken), "text": encoded(scene(), exif=b"Exif\0\0x")}
    assert left_out(src, files) == {}
    path = src.parent / "all.lmdb"
    (upright,) = _upright_scene(src.parent)
    for name, record in zip(names(path), records(path), strict=True):
        if name in files:
            assert np.abs(pixels(record) - upright).mean() < 5, name


def _upright_scene(folder: Path) -> list[np.ndarray]:
    (folder / "upright").mkdir()
    scene().save(folder / "upright" / "a.png")
    run(folder / "upright", folder / "upright.lmdb")
    return [pixels(record) for record in records(folder / "upright.lmdb")]


def test_p08_thin_and_tiny_pictures(src: Path, tmp_path: Path) -> None:
    """P8: 1 x 1 and 1 x 65500 are too small unless asked for, and take little memory."""
    sizes = {"dot.png": (1, 1), "high.png": (1, 10000), "wide.png": (10000, 1)}
    files = {name: encoded(Image.new("RGB", size, COLOUR), "PNG") for name, size in sizes.items()}
    files["long.jpg"] = encoded(Image.new("RGB", (65500, 1), COLOUR))
    assert left_out(src, files) == dict.fromkeys(files, "too small")
    assert report(tmp_path / "all.lmdb")["wide.png"] == "too small: 10000 x 1 px"
    peak = peak_megabytes(tmp_path / "peak", src, tmp_path / "b.lmdb", "--min_size", 1)
    assert peak < 300
    assert report(tmp_path / "b.lmdb") == {}
    for name, record in zip(names(tmp_path / "b.lmdb"), records(tmp_path / "b.lmdb"), strict=True):
        if name in files:
            assert pixels(record).mean(axis=(0, 1)) == pytest.approx(COLOUR, abs=4)


@pytest.mark.slow
def test_p09_bombs_are_refused_by_their_header(src: Path, tmp_path: Path) -> None:
    """P9: 12000 x 12000 and 20000 x 20000 px, and PNG texts that unpack to much more."""
    plain = peak_megabytes(tmp_path / "peak", src, tmp_path / "a.lmdb", "--workers", 1)
    text = PngImagePlugin.PngInfo()
    text.add_text("k", "x" * 2**26, zip=True)
    files = {
        "large.png": encoded(Image.new("1", (12000, 12000)), "PNG"),
        "larger.png": encoded(Image.new("1", (20000, 20000)), "PNG"),
        "text.png": encoded(scene(), "PNG", pnginfo=text),
        "late.png": _with_late_text(encoded(scene(), "PNG")),
    }
    for name, content in files.items():
        (src / name).write_bytes(content)
    started = time.monotonic()
    peak = peak_megabytes(tmp_path / "peak", src, tmp_path / "b.lmdb", "--workers", 1)
    assert time.monotonic() - started < 15
    assert peak < plain + 30
    found = reasons(tmp_path / "b.lmdb")
    assert found.pop("large.png") == found.pop("larger.png") == "too many pixels"
    assert set(found.values()) <= {"damaged"}
    assert names(tmp_path / "b.lmdb")[:3] == GOOD


def test_p09_a_photo_of_a_thousand_scans_is_not_decoded(src: Path, tmp_path: Path) -> None:
    """P9: a progressive JPEG with its last scan 20,000 times takes minutes; one sound stays."""
    sound = encoded(Image.new("L", (2000, 2000), 90), progressive=True)
    last = sound[sound.rindex(b"\xff\xc4") : -2]
    files = {"bomb.jpg": sound[:-2] + last * 20_000 + sound[-2:], "sound.jpg": sound}
    before = sum(os.times()[2:4])
    assert left_out(src, files) == {"bomb.jpg": "too many scans"}
    assert sum(os.times()[2:4]) - before < 15
    assert "sound.jpg" in names(tmp_path / "all.lmdb")


def _with_late_text(png: bytes) -> bytes:
    """Return a PNG with a text that unpacks to 64 MB behind its pixels."""
    body = b"zTXtk\0\0" + zlib.compress(bytes(2**26))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:-12] + chunk + png[-12:]


def test_p28_nothing_but_the_pixels_is_kept(src: Path, tmp_path: Path) -> None:
    """P28: EXIF, GPS, ICC, XMP, comments and texts do not reach the database."""
    exif = Image.Exif()
    exif[0x010F] = "SECRET"
    exif.get_ifd(0x8825)[1] = "SECRET"
    icc, xmp = b"SECRET" * 30, b"<x>SECRET</x>"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "SECRET")
    both = {"exif": exif, "icc_profile": icc}
    files = {
        "a.jpg": encoded(scene(), comment=b"SECRET" * 9000, xmp=xmp, **both),
        "b.png": encoded(scene(), "PNG", pnginfo=text, **both),
        "c.webp": encoded(scene(), "WEBP", xmp=xmp, **both),
        "d.tif": encoded(scene(), "TIFF", description="SECRET", **both),
        "e.gif": encoded(scene(), "GIF", comment=b"SECRET"),
        "f.avif": encoded(scene(), "AVIF", xmp=xmp, **both),
    }
    assert all(b"SECRET" in content for name, content in files.items() if name != "b.png")
    assert left_out(src, files) == {}
    for record in records(tmp_path / "all.lmdb"):
        image = Image.open(io.BytesIO(record))
        assert isinstance(image, JpegImageFile)
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
        assert all(layer[1:3] == (1, 1) for layer in image.layer)
        assert not {"exif", "icc_profile", "comment", "xmp"} & set(image.info)
    for path in (tmp_path / "all.lmdb").iterdir():
        content = path.read_bytes()
        assert b"SECRET" not in content
        assert path.name == "report.csv" or os.fsencode(tmp_path) not in content
    assert b"SECRET" not in b"".join(entries(tmp_path / "all.lmdb").values())


def test_p29_the_libraries_stay_silent(src: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """P29: damaged TIFFs, at which libtiff prints to stderr past Python."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    files = {}
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"):
        image = noise.convert("1") if compression == "group4" else noise
        whole = bytearray(encoded(image, "TIFF", compression=compression))
        whole[60:400] = bytes(b ^ 0x5A for b in whole[60:400])
        files[f"{compression}.tif"] = bytes(whole)
    for content in files.values():
        with (
            contextlib.suppress(OSError),
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content)) as image,
        ):
            image.load()
    assert capfd.readouterr().err  # what a program that lets them print would show
    found = left_out(src, files)
    assert "damaged" in found.values()
    assert set(found.values()) <= {"damaged", "not an image"}
