"""Writes what a run logs: records as JSON lines and for TensorBoard, and sample grids."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from checkpoints.records import Record, read_log
from checkpoints.run_folder import LOG, SAMPLES
from common.files import replacing
from common.images import write_image


class RunLog:
    """Writes records to log.jsonl and TensorBoard, and sample grids.

    Records later than `iteration`, the resumed state, are dropped. A write that fails is told once
    and does not end the run.
    """

    def __init__(self, folder: Path, iteration: int, tell: Callable[[str], None]) -> None:
        self.folder, self.tell = folder, tell
        self.failed = False
        threading.excepthook = _no_traceback_of_the_disk
        path = folder / LOG
        lines = read_log(folder)
        damaged = sum(record is None for _, record in lines)
        if damaged:
            tell(f"{path}: {damaged:,} damaged lines are left out; all others stay")
        kept = [(line, r) for line, r in lines if r and r.iteration <= iteration]
        self.records = [record for _, record in kept]
        with replacing(path) as file:
            file.write(b"".join(line for line, _ in kept))
        self.file = path.open("a", buffering=1)
        self.board = SummaryWriter(folder / "tensorboard", purge_step=iteration + 1)

    def write(self, record: Record) -> None:
        """Add one record."""
        self.records.append(record)
        with self._going_on():
            self.file.write(record.line())
            for name, value in record.known().items():
                if isinstance(value, tuple):
                    self.board.add_text(name, ", ".join(value), record.iteration)
                else:
                    self.board.add_scalar(name, value, record.iteration)

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
                self.tell(f"{self.folder}: cannot write log or samples ({error}); training goes on")
            self.failed = True


def _no_traceback_of_the_disk(args: threading.ExceptHookArgs) -> None:
    """Keep TensorBoard's thread quiet about OSErrors: the next write raises them again."""
    if not issubclass(args.exc_type, OSError):
        threading.__excepthook__(args)
