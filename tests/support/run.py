"""Runs the scripts as a user does, also under a fault, and returns how they ended.

`run` starts a new Python, which takes seconds to import torch. `fork` runs the same script, as
__main__ too, in a process forked from one that has torch imported already (see `serve`).
"""

from __future__ import annotations

import atexit
import functools
import gc
import hashlib
import json
import os
import re
import resource
import runpy
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300.0  # after which a run counts as hung
BAR = re.compile(r"^ *\d+%\|.*$")  # of tqdm
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Ended:
    """How a script ended: `code` is negative where a signal killed it.

    `seconds` are of computing, which other work on the machine does not change; `peak` is in MB.
    """

    code: int
    out: str
    err: str
    seconds: float = 0.0
    peak: float = 0.0

    @property
    def messages(self) -> list[str]:
        """Return the lines on stderr, without the progress bar."""
        pieces = [piece.rstrip() for piece in re.split("[\r\n]", self.err)]
        return [piece for piece in pieces if piece and not BAR.match(piece)]

    @property
    def error(self) -> str:
        """Return the one error line on stderr; other lines must begin with the script's name."""
        errors = [line for line in self.messages if ": error: " in line]
        assert len(errors) == 1, self.err
        assert all(re.match(r"\w+\.py: ", line) for line in self.messages), self.err
        return errors[0]

    def failed(self, code: int = 1) -> str:
        """Return the one line of error of a script that ended with `code`."""
        assert self.code == code, (self.code, self.out, self.err)
        return self.error

    def succeeded(self) -> Ended:
        """Return self; fails unless the script ended with 0 and without an error line."""
        assert self.code == 0, (self.code, self.out, self.err)
        assert not [line for line in self.messages if not re.match(r"\w+\.py: ", line)]
        assert ": error: " not in self.err
        return self


def command(program: str, *args: object) -> list[str]:
    """Return what a user types, with this Python."""
    return [sys.executable, str(ROOT / program), *map(str, args)]


def start(
    argv: Sequence[str], env: Mapping[str, str] | None = None, **more: Any
) -> subprocess.Popen[str]:
    """Start a command whose output is piped; the rest is Popen's."""
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=env or ENV, **more)


def end(process: subprocess.Popen[str], seconds: float = SECONDS) -> Ended:
    """Wait for a process that was started."""
    before = os.times()
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"hung: {process.communicate()}")
    spent = sum(os.times()[2:4]) - sum(before[2:4])
    return Ended(process.returncode, out, err, spent)


def run(argv: Sequence[str], seconds: float = SECONDS, **more: Any) -> Ended:
    """Run a command to its end."""
    return end(start(argv, **more), seconds)


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = SECONDS) -> None:
    """Wait until a file is there."""
    until = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "hung"
        time.sleep(0.01)


def fork(
    program: str,
    *args: object,
    patch: str = "",
    seconds: float = SECONDS,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    memory: float = 0,
    kill_after: float = 0,
) -> Ended:
    """Run a script in a process that has torch imported already.

    `patch` is Python run before it; `memory` in MB is how much more the process may map and
    `kill_after` in seconds when it is killed without notice.
    """
    server = forks()
    assert server.stdin
    assert server.stdout
    with tempfile.TemporaryDirectory() as folder:
        request = {
            "program": str(ROOT / program),
            "args": [str(arg) for arg in args],
            "patch": patch,
            "cwd": str(cwd or ROOT),
            "env": dict(env or ENV),
            "memory": memory,
            "out": f"{folder}/out",
            "err": f"{folder}/err",
            "kill_after": kill_after,
            "seconds": seconds,
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        ended = json.loads(server.stdout.readline())
        out, err = (Path(request[name]).read_text(errors="replace") for name in ("out", "err"))
    assert not ended.pop("hung"), f"hung: {out}\n{err}"
    return Ended(**ended, out=out, err=err)


@functools.cache
def forks() -> subprocess.Popen[str]:
    """Return the process that forks, started once."""
    pipe = subprocess.PIPE
    argv = [sys.executable, __file__]
    server = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env=ENV, cwd=ROOT)

    def stop() -> None:
        server.kill()
        server.communicate()

    atexit.register(stop)
    return server


def serve() -> None:
    """Run each script that is asked for on stdin in a fork of this process, one after the other."""
    sys.path.insert(0, str(ROOT))
    # Not training.loop and its like, which import by name what tests patch before they run.
    for module in (
        "torch._dynamo",
        "dataset",
        "outputs.grids",
        "training.progress",
        "training.recovery",
    ):
        __import__(module)
    Image.init()  # else each fork looks for its formats
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        begin = time.monotonic()
        child = os.fork()
        if not child:
            return become(request)
        hung = False
        limit = request["kill_after"] or request["seconds"]
        while True:
            pid, status, usage = os.wait4(child, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - begin > limit:
                hung = not request["kill_after"]
                os.kill(child, 9)
                _, status, usage = os.wait4(child, 0)
                break
            time.sleep(0.01)
        ended = {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": usage.ru_utime + usage.ru_stime,
            "peak": usage.ru_maxrss / 1024,
            "hung": hung,
        }
        answers.write(json.dumps(ended) + "\n")
        answers.flush()


def become(request: dict[str, Any]) -> None:
    """Be the script from here on: its output, folder, environment and memory."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = [request["program"], *request["args"]]
    sys.path.insert(0, str(Path(request["program"]).parent))
    if request["memory"]:
        limit = mapped() + int(request["memory"] * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    exec(request["patch"], {})
    code = 0
    try:
        runpy.run_path(request["program"], run_name="__main__")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # else Python takes a second to forget all that was imported


def mapped() -> int:
    """Return how many bytes this process maps."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def hashes(*paths: Path) -> dict[str, str]:
    """Return the SHA-256 of every regular file at and below `paths`."""
    files = [f for path in paths for f in (path.rglob("*") if path.is_dir() else [path])]
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file() and not file.is_symlink()
    }


def flip(path: Path) -> None:
    """Flip a bit of a number in a checkpoint: in the middle of its largest member."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = max(archive.infolist(), key=lambda member: member.file_size)
        name, extra = struct.unpack_from("<HH", data, member.header_offset + 26)
    data[member.header_offset + 30 + name + extra + member.file_size // 2] ^= 1
    path.write_bytes(data)


def on_small_disk(folder: Path, megabytes: float, argv: Sequence[str]) -> list[str]:
    """Return a command that runs `argv` with a disk of this size at `folder`."""
    size = int(megabytes * 2**20)
    return mounted(f'mount -t tmpfs -o size={size} none "$1"', folder, argv)


def on_read_only(folder: Path, argv: Sequence[str]) -> list[str]:
    """Return a command that runs `argv` while `folder` cannot be written to."""
    return mounted('mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" "$1"', folder, argv)


def mounted(mount: str, folder: Path, argv: Sequence[str]) -> list[str]:
    """Return a command that runs `argv` after `mount` of "$1", seen by that command alone."""
    probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs unshare -rm, which is not allowed here")
    script = f'{mount} && cd . && shift && exec "$@"'
    return ["unshare", "-rm", "sh", "-c", script, "sh", str(folder), *argv]


def bound_by_modes(argv: Sequence[str]) -> list[str]:
    """Return a command that runs `argv` bound by the modes of files, which root else is not."""
    if os.getuid():
        return list(argv)
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv, to bind root by the modes of files")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *argv]


if __name__ == "__main__":
    serve()
