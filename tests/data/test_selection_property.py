"""Random folders and zips of good, bad and odd files, against the rules in README and --help.

The rules are stated here independently. RETRATO_EXAMPLES is the number of folders tried.
"""

import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.folders import COLOUR, TURNS, encoded, outcomes, pixels, scene, tree

EXAMPLES = int(os.environ.get("RETRATO_EXAMPLES", "10"))
MIN_SIZE = 32  # px, as --help says
CHECKED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 10,  # the same few in CI, others each time where there are many
    database=None,
    phases=(Phase.explicit, Phase.generate),  # shrinking takes minutes, and the folders are small
    suppress_health_check=list(HealthCheck),
)


@dataclass
class File:
    """A file to make, and what the rules say of it."""

    content: bytes | None = None
    link: str | None = None
    colour: tuple[int, ...] | None = None  # of a good photo, if it has one colour
    reason: str | None = None  # why it is left out

    def make(self, path: bytes) -> None:
        if self.link is not None:
            os.symlink(os.fsencode(self.link), path)
        elif self.content is None:
            os.mkfifo(path)
        else:
            Path(os.fsdecode(path)).write_bytes(self.content)


@st.composite
def plain_photos(draw: st.DrawFn) -> File:
    """A photo of one colour; a transparent one becomes white."""
    size = draw(st.tuples(st.integers(1, 80), st.integers(1, 80)))
    colour = draw(st.tuples(*[st.integers(0, 255)] * 3))
    format_ = draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]))
    image = Image.new("RGB", size, colour)
    if format_ in ("PNG", "TIFF") and draw(st.booleans()):
        image.putalpha(0)
        colour = (255, 255, 255)
    reason = "too small" if min(size) < MIN_SIZE else None
    options = {"lossless": True} if format_ == "WEBP" else {}
    return File(encoded(image, format_, **options), colour=colour, reason=reason)


@st.composite
def turned_scenes(draw: st.DrawFn) -> File:
    """A picture with four corners, turned as its EXIF says."""
    orientation = draw(st.integers(0, 9))
    turn = TURNS.get(orientation)
    held = scene().transpose(Image.Transpose[turn]) if turn else scene()
    exif = Image.Exif()
    exif[0x0112] = orientation
    return File(encoded(held, draw(st.sampled_from(["JPEG", "PNG", "WEBP"])), exif=exif))


@st.composite
def cut_photos(draw: st.DrawFn) -> File:
    """A photo that lacks its end."""
    noise = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, (50, 50, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), draw(st.sampled_from(["JPEG", "PNG"])))
    return File(whole[: draw(st.integers(700, len(whole) * 9 // 10))], reason="damaged")


FILES = st.one_of(
    plain_photos(),
    turned_scenes(),
    cut_photos(),
    st.binary(max_size=300).map(lambda content: File(b"\1" + content, reason="not an image")),
    st.just(File(b"", reason="not an image")),
    st.just(File(reason="not a regular file")),  # a FIFO
    st.just(File(link="nowhere", reason="cannot be read")),
    st.just(File(link="/", reason="a link to a folder")),
)
FOLDERS = st.sampled_from([b"", b"Da", b"Da/Db.jpg", b"D\xff", b".hidden", b"Da/.git", b"Dlmdb"])
NAMES = st.builds(
    lambda stem, suffix: stem + suffix,
    st.binary(min_size=1, max_size=20).map(lambda name: name.translate(None, b"/\0")),
    st.sampled_from([b"", b".jpg", b".PNG", b".txt"]),
).filter(lambda name: name.strip(b".") and not name.startswith(b"D") and name != b"data.mdb")
TREES = st.dictionaries(st.tuples(FOLDERS, NAMES), FILES, max_size=12)


def build(root: Path, files: dict[tuple[bytes, bytes], File]) -> None:
    for folder in FOLDERS.elements:  # type: ignore[attr-defined]
        os.makedirs(os.path.join(os.fsencode(root), folder), exist_ok=True)
    (root / "Dlmdb" / "data.mdb").write_bytes(b"a database of earlier")
    for (folder, name), file in files.items():
        file.make(os.path.join(os.fsencode(root), folder, name))


def is_seen(folder: bytes, name: bytes) -> bool:
    """Return whether the search finds a file, by the rules."""
    hidden = any(part.startswith(b".") for part in [*folder.split(b"/"), name] if part)
    return not hidden and folder != b"Dlmdb"


def assert_shows(record: bytes, file: File) -> None:
    shown = pixels(record)
    assert shown.shape == (64, 64, 3)
    if file.colour:
        assert shown.mean(axis=(0, 1)) == pytest.approx(file.colour, abs=4)
        return
    corners = {
        (12, 12): (20, 30, 220),
        (12, 52): COLOUR,
        (52, 12): COLOUR,
        (52, 52): (240, 230, 30),
    }
    for (row, column), colour in corners.items():
        assert shown[row, column] == pytest.approx(colour, abs=20)


@CHECKED
@given(files=TREES)
def test_what_is_kept_follows_the_stated_rules(files: Any) -> None:
    seen = {os.path.join(*key): file for key, file in files.items() if is_seen(*key)}
    kept = {path: file for path, file in sorted(seen.items()) if file.reason is None}
    with tempfile.TemporaryDirectory() as scratch:
        build(Path(scratch), files)
        before = tree(Path(scratch))
        good, reasons = outcomes(Path(scratch))
        assert tree(Path(scratch)) == before
    assert list(good) == list(kept)
    for record, file in zip(good.values(), kept.values(), strict=True):
        assert_shows(record, file)
    assert len(reasons) == len(seen) - len(kept) + 1  # and the database
    found = {reason.partition(":")[0] for reason in reasons.values()}
    assert found == {file.reason for file in seen.values() if file.reason} | {"a database"}


ODD = ["ñandú 日本.png", "new\nline.png", "esc\x1b.png", "a,b\"c'.png", "back\\slash.png", " .png"]
ZIP_NAMES = st.sampled_from(["a.jpg", "Z", ".hidden.png", "metadata.csv", "dataset.json", *ODD])
ZIP_FOLDERS = FOLDERS.filter(lambda folder: folder.isascii()).map(bytes.decode)
ZIP_FILES = st.one_of(
    plain_photos(), cut_photos(), st.binary(max_size=99).map(lambda b: File(b"\1" + b))
)


@CHECKED
@given(
    files=st.dictionaries(st.tuples(ZIP_FOLDERS, ZIP_NAMES), ZIP_FILES, max_size=12),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    order=st.sampled_from([1, -1]),
)
def test_a_zip_gives_the_records_of_its_folder(files: Any, method: int, order: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, path = Path(scratch) / "src", Path(scratch) / "src.zip"
        folder.mkdir()
        for (subfolder, name), file in files.items():
            (folder / subfolder).mkdir(parents=True, exist_ok=True)
            file.make(os.fsencode(folder / subfolder / name))
        if (folder / "Dlmdb").exists():
            (folder / "Dlmdb" / "data.mdb").write_bytes(b"an earlier database")
        with zipfile.ZipFile(path, "w", method) as archive:
            for file in sorted(folder.rglob("*"))[::order]:
                archive.write(file, os.path.relpath(file, folder))
        expected, reasons = outcomes(folder)
        good, zip_reasons = outcomes(path)
    assert list(good.items()) == list(expected.items())
    assert {name.removeprefix(str(path)): reason for name, reason in zip_reasons.items()} == {
        name.removeprefix(str(folder)): reason for name, reason in reasons.items()
    }
