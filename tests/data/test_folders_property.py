"""Random folders of good, bad and odd files, against the README's and the help's rules.

The rules are stated here anew. RETRATO_EXAMPLES is the number of folders tried.
"""

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support import folders
from tests.support.folders import (
    COLOUR,
    PATIENCE,
    check,
    command,
    encoded,
    pixels,
    records,
    scene,
    tree,
)

EXAMPLES = int(os.environ.get("RETRATO_EXAMPLES", "4"))
MIN_SIZE = 32  # px, as --help says
# How the camera was held, by the value of EXIF's orientation.
TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
TURNS |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}


@dataclass
class File:
    """What lies at a path, and what the rules say of it."""

    content: bytes | None = None
    link: str | None = None
    colour: tuple[int, ...] | None = None  # of a photo that is kept, if it has one colour
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
    """A photo of one colour; where it is seen through, white."""
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
    """A picture with four corners, held as its EXIF says."""
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
    """Return whether the search comes upon a file, by the rules."""
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


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 10,  # the same few in CI, others each time where there are many
    database=None,
    phases=(Phase.explicit, Phase.generate),  # shrinking takes minutes, and the folders are small
    suppress_health_check=list(HealthCheck),
)
@given(files=TREES, flags=st.sampled_from([[], ["--workers", "1"], ["--workers", "5"]]))
def test_what_is_kept_follows_the_stated_rules(files: Any, flags: list[str]) -> None:
    seen = {os.path.join(*key): file for key, file in files.items() if is_seen(*key)}
    kept = [(path, file) for path, file in sorted(seen.items()) if file.reason is None]
    with tempfile.TemporaryDirectory() as scratch:
        src, dst = Path(scratch) / "src", Path(scratch) / "a.lmdb"
        build(src, files)
        before = tree(src)
        line = command(src, dst, *flags)
        done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
        check(done.returncode, done.stderr, 0 if kept else 1)
        assert tree(src) == before
        if not kept:
            assert not dst.exists()
            return
        assert list(map(os.fsencode, folders.names(dst))) == [path for path, _ in kept]
        for record, (_, file) in zip(records(dst), kept, strict=True):
            assert_shows(record, file)
        rows = (dst / "report.csv").read_text(encoding="utf-8").count("\n") - 1
        assert rows == len(seen) - len(kept) + 1  # and the database
        found = {reason.partition(":")[0] for reason in folders.report(dst).values()}
        assert found == {file.reason for file in seen.values() if file.reason} | {"a database"}
