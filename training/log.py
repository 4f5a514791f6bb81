"""What a run tells: one record per log line, as JSON and for TensorBoard, and the sample grids."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from checkpoints.run_folder import LOG, SAMPLES
from common.files import read_regular, replacing
from common.images import write_image


class RunLog:
    """Writes each record to log.jsonl and to TensorBoard, and each sample grid.

    Records after `iteration` are of a time that a killed run did not save: they are dropped.
    What cannot be written is told once and does not end the run.
    """

    def __init__(self, folder: Path, iteration: int, tell: Callable[[str], None]) -> None:
        self.folder, self.tell = folder, tell
        self.failed = False
        threading.excepthook = _no_traceback_of_the_disk
        path = folder / LOG
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
            write_image(sheet, self.folder / SAMPLES / f"{iteration:06d}.png")
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
