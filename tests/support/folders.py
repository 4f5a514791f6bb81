"""Runs prepare_data.py under a fault, and asserts what every such run owes its user."""

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

ROOT = Path(__file__).parents[2]
COLOUR = (200, 60, 90)
PATIENCE = 60.0  # seconds that a run of a few photos may take on a busy machine
# Runs the command given to it and writes the largest memory of one of its processes, in KiB.
MEASURE = """
import pathlib, resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
pathlib.Path(sys.argv[1]).write_text(str(peak))
sys.exit(code)
"""


def command(*arguments: object) -> list[str]:
    """Return the command line of prepare_data.py."""
    return [sys.executable, str(ROOT / "prepare_data.py"), *map(os.fsdecode, map(_path, arguments))]


def _path(argument: object) -> str | bytes:
    return argument if isinstance(argument, str | bytes) else str(argument)


def run(
    *arguments: object, code: int = 0, before: Sequence[object] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run prepare_data.py to its end, `before` it a command that runs it under a fault."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    line = [*map(str, before), *command(*arguments)]
    done = subprocess.run(line, text=True, errors="replace", timeout=PATIENCE, **pipes)
    check(done.returncode, done.stderr or "", code)
    return done


def check(returned: int, errors: str, code: int) -> None:
    """Assert the exit code, and that an error is one line and nothing else is any."""
    assert returned == code, errors
    assert "Traceback" not in errors
    if code in (130, 143):
        assert errors == "prepare_data.py: interrupted; nothing was made\n"
    elif code:
        assert errors.startswith("prepare_data.py: error: "), errors
        assert errors.count("\n") == 1, errors
    else:
        assert errors == ""


def in_shell(line: str) -> list[str]:
    """Return a command that runs what follows it in bash, once `line` has been run there."""
    return ["bash", "-c", f'{line}; exec "$@"', "bash"]


def peak_megabytes(scratch: Path, *arguments: object, code: int = 0) -> float:
    """Run prepare_data.py and return the largest memory of one of its processes."""
    run(*arguments, code=code, before=[sys.executable, "-c", MEASURE, scratch])
    return int(scratch.read_text()) / 1024


def photos(folder: Path, count: int, first: int = 0) -> Path:
    """Fill a folder with photos of which no two are alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(first, first + count):
        colour = (index * 37 % 256, index * 101 % 256, index % 256)
        Image.new("RGB", (40, 50), colour).save(folder / f"{index:06d}.png")
    return folder


def large_photos(folder: Path, count: int, pixels: int = 1500) -> Path:
    """Fill a folder with photos that take a while: links to one of noise."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (pixels, pixels, 3), np.uint8)
    Image.fromarray(noise).save(folder / "000.jpg", quality=90)
    for index in range(1, count):
        os.link(folder / "000.jpg", folder / f"{index:03d}.jpg")
    return folder


def scene(width: int = 60, height: int = 80) -> Image.Image:
    """Return a picture whose four corners tell which way is up."""
    image = Image.new("RGB", (width, height), COLOUR)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 2, height // 2), fill=(20, 30, 220))
    draw.rectangle((width // 2, height // 2, width, height), fill=(240, 230, 30))
    return image


def encoded(image: Image.Image, format_: str = "JPEG", **options: Any) -> bytes:
    """Return the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def entries(path: Path) -> dict[str, bytes]:
    """Read a database as rosinality's dataset.py does, with its options and keys."""
    options = {"readonly": True, "lock": False, "readahead": False, "meminit": False}
    with lmdb.open(str(path), max_readers=32, **options) as env, env.begin(write=False) as txn:
        return {key.decode(): bytes(value) for key, value in txn.cursor()}


def records(path: Path, size: int = 64) -> list[bytes]:
    """Return the stored JPEGs."""
    content = entries(path)
    count = int(content["length"].decode("utf-8"))
    assert json.loads(content["meta"])["count"] == count
    return [content[f"{size}-{str(index).zfill(5)}"] for index in range(count)]


def names(path: Path) -> list[str]:
    """Return the names of the files that the stored JPEGs are from."""
    return entries(path)["names"].decode("utf-8", "surrogateescape").split("\0")


def pixels(record: bytes) -> np.ndarray:
    """Return float64 [H, W, 3] in 0..255."""
    return np.asarray(Image.open(io.BytesIO(record)).convert("RGB")).astype(float)


def report(path: Path) -> dict[str, str]:
    """Return why each file was left out, by its own name."""
    with (path / "report.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "reason"]
    return {os.path.basename(name): reason for name, reason in rows}


def reasons(path: Path) -> dict[str, str]:
    """Return why each file was left out, without the details."""
    return {name: reason.partition(":")[0] for name, reason in report(path).items()}


def tree(folder: Path) -> dict[bytes, str]:
    """Return what a folder holds: for each path what it is, and a hash of its content."""
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


class LongRun:
    """prepare_data.py in the background, at work when this returns if `at_work`."""

    def __init__(self, *arguments: object, at_work: bool = True) -> None:
        self.process = subprocess.Popen(
            command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + PATIENCE
        # Two workers, and the tracker of their semaphores.
        while at_work and len(self.children()) < 3 and self.process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def children(self) -> list[int]:
        """Return the ids of its workers, and first that of the tracker."""
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return sorted(map(int, text.split()))

    def signal(self, number: int) -> None:
        """Send a signal to it and its workers, as Ctrl-C does."""
        os.killpg(self.process.pid, number)

    def end(self, code: int) -> float:
        """Wait for its end, check how it was, and return how many seconds it took."""
        started = time.monotonic()
        errors = self.process.communicate(timeout=PATIENCE)[1]
        seconds = time.monotonic() - started
        if code != -signal.SIGKILL:
            check(self.process.returncode, errors, code)
        return seconds


def gone(pids: Sequence[int]) -> bool:
    """Return whether these processes end within half a minute."""
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)
