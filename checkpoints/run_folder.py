"""A run on disk: its lock, its config, its log, its sample grids. What is saved when is train.py's.

config.json      what was asked for
log.jsonl        one record per log line; TensorBoard events beside it
samples/         grids of fixed z and noise from G_ema: comparable from first to last
snapshots/       G_ema alone, for generate.py
ema_short.pt     G_ema over a quarter of its time, ema_long.pt over four times it: --more_ema
latest.pt        the full state; previous.pt is the one before
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as brief
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from common.cli import PSI, UserError
from common.files import read_regular, replacing
from common.images import grid, to_uint8, write_image
from model import Generator, Stage

# What runs had before there were such flags.
EARLIER = {"augment": "none", "augment_p": 0.3, "freeze_d": 0, "more_ema": False}
EARLIER |= {"w_dim": 512, "mapping_layers": 8}
GRID = (4, 8)  # rows and columns of a sample grid


def claim(folder: Path) -> IO[str]:
    """Make the run folder and lock it until the returned file is closed or the process ends."""
    try:
        for part in ("samples", "snapshots"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        # Neither a link nor a FIFO may be there: one would be emptied, the other wait for ever.
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        lock = open(os.open(folder / ".lock", flags, 0o666), "w")  # noqa: SIM115 - until the end
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; expected a folder to write to. Give another --out"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise UserError(
            f"{folder}: another train.py is at work here; give another --out"
        ) from error
    for stale in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp"), folder / "next.pt"]:
        stale.unlink(missing_ok=True)
    _refuse_without_state(folder)
    return lock


def _refuse_without_state(folder: Path) -> None:
    """Raise UserError where there are snapshots or a log, but no state that would go on from them.

    A run that began anew here would overwrite them.
    """
    states = [folder / name for name in ("latest.pt", "previous.pt")]
    log = folder / "log.jsonl"
    begun = any((folder / "snapshots").glob("*.pt")) or (log.is_file() and log.stat().st_size > 0)
    if begun and not any(map(os.path.lexists, states)):
        raise UserError(
            f"{folder}: a run without latest.pt and previous.pt; expected one of them, to go on "
            f"from. Put it back, or give another --out, and --init_from {folder} for its weights"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """Return what the run was started with; nothing if it is new."""
    path = folder / "config.json"
    if not os.path.lexists(path):
        return {}
    try:
        stored = json.loads(read_regular(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give another --out") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); give another --out") from error
    phase = stored.get("phase") if isinstance(stored, dict) else None
    if type(phase) is not int or phase < 1:
        raise UserError(f"{path}: not of a run ({brief(stored)}); give another --out")
    return {**EARLIER, **stored}


def differences(folder: Path, asked: dict[str, Any], free: set[str]) -> list[str]:
    """Return which settings differ from those of the run's start, of which only `free` may.

    Raises UserError naming the first that may not.
    """
    before = read_config(folder)
    changed = [key for key in asked if before and before.get(key) != asked[key]]
    for key in changed:
        if key == "data":
            raise UserError(
                f"{asked['lmdb']}: other photos than the run in {folder} was started with. "
                "Give the same, or another --out"
            )
        if key not in free:
            raise UserError(
                f"--{key} {asked[key]}: the run in {folder} was started with {before.get(key)}. "
                "Give the same, or another --out"
            )
    return [f"{key} {asked[key]} (was {before.get(key)})" for key in changed]


def write_config(folder: Path, asked: dict[str, Any]) -> None:
    """Write what the run is asked for."""
    with replacing(folder / "config.json") as file:
        file.write((json.dumps(asked, indent=1) + "\n").encode())


class RunLog:
    """Writes each record to log.jsonl and to TensorBoard, and each sample grid.

    Records after `iteration` are of a time that a killed run did not save: they are dropped.
    What cannot be written is told once and does not end the run.
    """

    def __init__(self, folder: Path, iteration: int, tell: Callable[[str], None]) -> None:
        self.folder, self.tell = folder, tell
        self.failed = False
        threading.excepthook = _no_traceback_of_the_disk
        path = folder / "log.jsonl"
        records = [(line, _iteration(line)) for line in _lines(path)]
        damaged = sum(at is None for _, at in records)
        if damaged:
            tell(f"{path}: {damaged:,} damaged lines are left out; all others stay")
        kept = [line for line, at in records if at is not None and at <= iteration]
        self.records: list[dict[str, Any]] = [json.loads(line) for line in kept]
        with replacing(path) as file:
            file.write(b"".join(kept))
        self.file = path.open("a", buffering=1)
        self.board = SummaryWriter(folder / "tensorboard", purge_step=iteration + 1)

    def write(self, iteration: int, record: dict[str, Any]) -> None:
        """Add one record: figures, and names of what was found."""
        self.records.append({"iteration": iteration, **record})
        with self._going_on():
            self.file.write(json.dumps(self.records[-1]) + "\n")
            for name, value in record.items():
                if isinstance(value, list):
                    self.board.add_text(name, ", ".join(value), iteration)
                else:
                    self.board.add_scalar(name, value, iteration)

    def show(self, iteration: int, sheet: Image.Image) -> None:
        """Add a sample grid."""
        with self._going_on():
            write_image(sheet, self.folder / "samples" / f"{iteration:06d}.png")
            self.board.add_image("samples", np.asarray(sheet), iteration, dataformats="HWC")

    def close(self) -> None:
        """Flush and close both."""
        with self._going_on():
            self.file.close()
        with self._going_on():
            self.board.close()

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self.failed:
                self.tell(f"{self.folder}: grids and log miss some ({error}); training goes on")
            self.failed = True


def _no_traceback_of_the_disk(args: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread is to raise its OSError at the next record only, where it is told."""
    if not issubclass(args.exc_type, OSError):
        threading.__excepthook__(args)


def _lines(path: Path) -> list[bytes]:
    """Return the lines of a log, without the half of one that a killed run may end with."""
    if not os.path.lexists(path):
        return []
    lines = read_regular(path).splitlines(keepends=True)
    return lines[:-1] if lines and not lines[-1].endswith(b"\n") else lines


def _iteration(line: bytes) -> int | None:
    """Return which iteration a record is of; None where the line is none, as after a power cut."""
    try:
        found = json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if type(found) is int else None


class SampleSheet:
    """The same faces from first to last: z and noise are drawn once, from the run's seed."""

    def __init__(self, G: Generator, seed: int, device: torch.device) -> None:
        n_row, self.n_col = GRID
        rng = torch.Generator(device).manual_seed(seed)
        self.z = torch.randn(n_row * self.n_col, G.config.z_dim, generator=rng, device=device)
        self.noise = G.draw_noise(len(self.z), G.config.resolution, rng)
        self.resolution = G.config.resolution

    @torch.no_grad()
    def draw(self, G: Generator, stage: Stage, dtype: torch.dtype) -> Image.Image:
        """Return the sheet at the largest resolution, whatever the stage's is.

        Truncated as generate.py's are by default: what is seen here is what one gets there.
        """
        ws = G.truncate(G.broadcast(G.mapping(self.z)), PSI)
        images = G.synthesis(ws, stage, self.noise, dtype)
        times = self.resolution // stage.resolution
        return grid(
            to_uint8(images).repeat_interleave(times, 2).repeat_interleave(times, 3), self.n_col
        )
