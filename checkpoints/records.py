"""The lines of a run's log.jsonl, and how they are written and read."""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from checkpoints.run_folder import LOG
from common.files import read_regular


@dataclass(frozen=True)
class Record:
    """One line of the log; a field is None if the line lacks it.

    Most lines are of training steps, some hold `swd` or `end` alone. Losses, logits of D on photos
    and samples, r_t (how sure D is of photos), the gradient penalty without its weight, and p of
    augmentation are means over the steps since the line before.
    """

    iteration: int
    nimg: int | None = None
    resolution: int | None = None  # px, of the stage
    alpha: float | None = None
    G_loss: float | None = None
    D_loss: float | None = None
    real_logit: float | None = None
    fake_logit: float | None = None
    r_t: float | None = None
    penalty: float | None = None
    p: float | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    memory_gb: float | None = None
    lr: float | None = None
    d_lr: float | None = None
    variety: float | None = None  # of samples, relative to the photos'
    swd: float | None = None  # sliced Wasserstein distance, thousandths
    end: int | None = None  # iteration that a planned run was moved to end at
    findings: tuple[str, ...] = ()  # what the watchdog named for the first time

    @property
    def logit_gap(self) -> float | None:
        """Return by how much D's logits of photos are above those of samples."""
        if self.real_logit is None or self.fake_logit is None:
            return None
        return self.real_logit - self.fake_logit

    def known(self) -> dict[str, Any]:
        """Return what the line holds, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value not in (None, ())}

    def line(self) -> str:
        """Return the line as JSON."""
        return json.dumps(self.known()) + "\n"


def parse(line: bytes | str) -> Record | None:
    """Return the record in a line; None if the line is damaged, as after a power cut.

    Names that this version does not know are skipped.
    """
    try:
        stored = dict(json.loads(line))
        known = {f.name: stored[f.name] for f in fields(Record) if f.name in stored}
        findings = tuple(map(str, known.pop("findings", ())))
        sound = all(type(value) in (int, float) for value in known.values())
        if not sound or type(stored["iteration"]) is not int:
            return None
        return Record(**known, findings=findings)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_log(run: Path) -> list[tuple[bytes, Record | None]]:
    """Return the lines of a run's log and their records; empty without a log.

    Half a line at the end, as a killed run may leave, is skipped. Raises OSError.
    """
    path = run / LOG
    if not os.path.lexists(path):
        return []
    lines = read_regular(path).splitlines(keepends=True)
    whole = lines[:-1] if lines and not lines[-1].endswith(b"\n") else lines
    return [(line, parse(line)) for line in whole]
