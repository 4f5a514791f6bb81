"""Folders of drawn photos, prepare_data.py run on them, and what its databases hold."""

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from PIL import Image, ImageDraw

from data.photos import Recipe
from data.selection import Report, find_photos
from data.workers import prepare_place

ROOT = Path(__file__).parents[2]
TIMEOUT = 60.0  # seconds for a run on a few photos, also on a busy machine
COLOUR = (200, 60, 90)
# By EXIF's orientation, how a camera that was held so turns the scene.
TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
TURNS |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}


def photos(folder: Path, count: int, first: int = 0) -> Path:
    """Fill a folder with small photos of different colours; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(first, first + count):
        colour = (index * 37 % 256, index * 101 % 256, index % 256)
        Image.new("RGB", (40, 50), colour).save(folder / f"{index:06d}.png")
    return folder


def large_photos(folder: Path, count: int, side: int = 1500) -> Path:
    """Fill a folder with links to one photo that takes a while to prepare; return it."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(folder / "000.jpg", quality=90)
    for index in range(1, count):
        os.link(folder / "000.jpg", folder / f"{index:03d}.jpg")
    return folder


def scene(width: int = 60, height: int = 80) -> Image.Image:
    """Return a picture whose four corners show which way is up."""
    image = Image.new("RGB", (width, height), COLOUR)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 2, height // 2), fill=(20, 30, 220))
    draw.rectangle((width // 2, height // 2, width, height), fill=(240, 230, 30))
    return image


def encoded(image: Image.Image, format_: str = "JPEG", **options: Any) -> bytes:
    """Return the image as the content of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def jpeg(index: int, size: int = 16) -> bytes:
    """Return a JPEG of smooth noise that follows from `index`."""
    rng = np.random.default_rng(index)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
    return encoded(small.resize((size, size), Image.Resampling.BICUBIC), quality=95)


def pixels(record: bytes) -> np.ndarray:
    """Return the pixels of a JPEG, float64 [H, W, 3] in 0..255."""
    return np.asarray(Image.open(io.BytesIO(record)).convert("RGB")).astype(float)


def outcomes(source: Path) -> tuple[dict[bytes, bytes], dict[str, str]]:
    """Search a source and prepare what is found, without the script.

    Returns the records at 64 px by relative path, and why files are left out by printable path.
    """
    good, report = {}, Report()
    for photo in find_photos(0, source, report):
        outcome = prepare_place(photo.place, Recipe((64,)))
        if isinstance(outcome, str):
            report.leave_out(photo.path, outcome)
        else:
            (good[photo.relative],) = outcome
    return good, dict(report.rows)


def command(*arguments: object) -> list[str]:
    """Return the command line of prepare_data.py."""
    words = (word if isinstance(word, str | bytes) else str(word) for word in arguments)
    return [sys.executable, str(ROOT / "prepare_data.py"), *map(os.fsdecode, words)]


def run(
    *arguments: object, code: int = 0, before: Sequence[object] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run prepare_data.py and check its exit code; `before` is a command that runs the script."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    line = [*map(str, before), *command(*arguments)]
    done = subprocess.run(line, text=True, errors="replace", timeout=TIMEOUT, **pipes)
    check(done.returncode, done.stderr or "", code)
    return done


def check(returned: int, errors: str, code: int) -> None:
    """Assert the exit code, that an error is one line, and that there is no other output."""
    assert returned == code, errors
    assert "Traceback" not in errors, errors
    if code in (130, 143):
        assert errors == "prepare_data.py: interrupted; nothing was made\n"
    elif code:
        assert errors.startswith("prepare_data.py: error: "), errors
        assert errors.count("\n") == 1, errors
    else:
        assert errors == ""


def in_shell(line: str) -> list[str]:
    """Return a command that runs what follows it in bash, after `line`."""
    return ["bash", "-c", f'{line}; exec "$@"', "bash"]


class Background:
    """prepare_data.py in the background; once constructed, it has started `children` processes.

    The first is multiprocessing's resource tracker, the others are workers.
    """

    def __init__(self, *arguments: object, children: int = 3) -> None:
        self.process = subprocess.Popen(
            command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + TIMEOUT
        while children and len(self.children()) < children and self.process.poll() is None:
            assert time.monotonic() < deadline

    def children(self) -> list[int]:
        """Return the ids of its child processes, the oldest first."""
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return sorted(map(int, text.split()))

    def signal(self, number: int) -> None:
        """Send a signal to it and its workers, as Ctrl-C does."""
        os.killpg(self.process.pid, number)

    def end(self, code: int) -> float:
        """Wait for its end, check its exit code, and return how many seconds it took."""
        started = time.monotonic()
        errors = self.process.communicate(timeout=TIMEOUT)[1]
        seconds = time.monotonic() - started
        if code != -signal.SIGKILL:
            check(self.process.returncode, errors, code)
        return seconds


def have_ended(pids: Sequence[int]) -> bool:
    """Return whether these processes end within half a minute."""
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def entries(path: Path) -> dict[str, bytes]:
    """Read a database with the options and keys of rosinality's dataset.py."""
    options = {"readonly": True, "lock": False, "readahead": False, "meminit": False}
    with lmdb.open(str(path), max_readers=32, **options) as env, env.begin(write=False) as txn:
        return {key.decode(): bytes(value) for key, value in txn.cursor()}


def records(path: Path, size: int = 64) -> list[bytes]:
    """Return the JPEGs in a database."""
    content = entries(path)
    count = int(content["length"].decode("utf-8"))
    assert json.loads(content["meta"])["count"] == count
    return [content[f"{size}-{str(index).zfill(5)}"] for index in range(count)]


def names(path: Path) -> list[str]:
    """Return the file names of the images in a database."""
    return entries(path)["names"].decode("utf-8", "surrogateescape").split("\0")


def report(path: Path) -> dict[str, str]:
    """Return why files were left out of a database, by their names without folders."""
    with (path / "report.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "reason"]
    return {os.path.basename(name): reason for name, reason in rows}


def tree(folder: Path) -> dict[bytes, str]:
    """Return for each path in a folder what it is, and a hash of its content."""
    found = {}
    for path, subfolders, files in os.walk(os.fsencode(folder)):
        for name in subfolders + files:
            entry = os.path.join(path, name)
            if os.path.islink(entry):
                found[entry] = f"-> {os.readlink(entry)!r}"
            elif os.path.isfile(entry):
                with open(entry, "rb") as file:
                    found[entry] = hashlib.sha256(file.read()).hexdigest()
            else:
                found[entry] = f"{os.lstat(entry).st_mode:o}"
    return found
