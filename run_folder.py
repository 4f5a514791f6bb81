"""A run on disk: its lock, its config, its log, its sample grids. What is saved when is train.py's.

config.json      what was asked for
log.jsonl        one record per log line; TensorBoard events beside it
samples/         grids of fixed z and noise from G_ema: comparable from first to last
snapshots/       G_ema alone, for generate.py
latest.pt        the full state; previous.pt is the one before
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from pathlib import Path
from types import FrameType
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from command_line import PSI
from growth import Stage
from images import grid, to_uint8, write_image
from model import Generator

GRID = (4, 8)  # rows and columns of a sample grid


class RunError(Exception):
    """A run folder that cannot be used as asked; the message is one line."""


def claim(folder: Path) -> IO[str]:
    """Make the run folder and lock it until the returned file is closed or the process ends."""
    for part in ("samples", "snapshots"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    lock = open(folder / ".lock", "w")  # noqa: SIM115 - held for the life of the run
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise RunError(f"{folder}: another train.py is at work here; give another --out") from error
    for stale in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp"), folder / "next.pt"]:
        stale.unlink(missing_ok=True)
    return lock


def read_config(folder: Path) -> dict[str, Any]:
    """Return what the run was started with; nothing if it is new."""
    path = folder / "config.json"
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise RunError(f"{path}: damaged ({error}); give another --out") from error


def write_config(folder: Path, asked: dict[str, Any], free: set[str]) -> None:
    """Write what the run is asked for; only the keys in `free` may differ from its start.

    Raises RunError naming the first flag that does.
    """
    before = read_config(folder)
    for key, value in asked.items():
        if before and key not in free and before.get(key) != value:
            raise RunError(
                f"--{key} {value}: the run in {folder} was started with {before.get(key)}. "
                "Give the same, or another --out"
            )
    path = folder / "config.json"
    partial = path.with_name(".config.json.tmp")
    partial.write_text(json.dumps(asked, indent=1) + "\n")
    os.replace(partial, path)


class Signals:
    """Remembers the first SIGINT, SIGTERM or SIGHUP in `received`; a second one quits at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._remember)

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.received = number
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)


class RunLog:
    """Writes each record to log.jsonl and to TensorBoard.

    Records after `iteration` are of a time that a killed run did not save: they are dropped.
    """

    def __init__(self, folder: Path, iteration: int) -> None:
        path = folder / "log.jsonl"
        kept = [line for line in _lines(path) if json.loads(line)["iteration"] <= iteration]
        path.write_text("".join(kept))
        self.file = path.open("a", buffering=1)
        self.board = SummaryWriter(folder / "tensorboard", purge_step=iteration + 1)

    def write(self, iteration: int, record: dict[str, float]) -> None:
        """Add one record of figures."""
        self.file.write(json.dumps({"iteration": iteration, **record}) + "\n")
        for name, value in record.items():
            self.board.add_scalar(name, value, iteration)

    def show(self, iteration: int, path: Path) -> None:
        """Add the sample grid at `path`."""
        with Image.open(path) as image:
            self.board.add_image("samples", np.asarray(image), iteration, dataformats="HWC")

    def close(self) -> None:
        """Flush and close both."""
        self.file.close()
        self.board.close()


def _lines(path: Path) -> list[str]:
    """Return the whole lines of a log that may end in half of one."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]


class SampleSheet:
    """The same faces from first to last: z and noise are drawn once, from the run's seed."""

    def __init__(self, G: Generator, seed: int, device: torch.device) -> None:
        n_row, self.n_col = GRID
        rng = torch.Generator(device).manual_seed(seed)
        self.z = torch.randn(n_row * self.n_col, G.config.z_dim, generator=rng, device=device)
        self.noise = G.draw_noise(len(self.z), G.config.resolution, rng)
        self.resolution = G.config.resolution

    @torch.no_grad()
    def draw(self, G: Generator, stage: Stage, dtype: torch.dtype) -> Tensor:
        """Return uint8 images at the largest resolution, whatever the stage's is.

        Truncated as generate.py's are by default: what is seen here is what one gets there.
        """
        ws = G.truncate(G.broadcast(G.mapping(self.z)), PSI)
        images = G.synthesis(ws, stage, self.noise, dtype)
        times = self.resolution // stage.resolution
        return to_uint8(images).repeat_interleave(times, 2).repeat_interleave(times, 3)

    def write(self, path: Path, G: Generator, stage: Stage, dtype: torch.dtype) -> None:
        """Write the sheet as a picture."""
        write_image(grid(self.draw(G, stage, dtype), self.n_col), path)
