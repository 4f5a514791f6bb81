"""A run folder: which file is which.

config.json      what was asked for
log.jsonl        one record per line, see records.py; TensorBoard events beside it
samples/         sample grids of G_ema, always of the same z and noise
snapshots/       G_ema alone, for generate.py
ema_short.pt     G_ema over a quarter of its time, ema_long.pt over four times it: --more_ema
best.pt          the G_ema nearest to the photos, as measured by --metric_every
latest.pt        the full state; previous.pt is the one before it
evaluation/      figures.json, by evaluate.py
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from checkpoints import checkpoint
from checkpoints.checkpoint import CheckpointError
from common.cli import UserError
from common.files import read_regular, replacing, sync
from model import ModelConfig

CONFIG, LOG = "config.json", "log.jsonl"
LATEST, PREVIOUS, NEXT, DAMAGED = "latest.pt", "previous.pt", "next.pt", "damaged.pt"
BEST = "best.pt"
AVERAGES = {"short": "ema_short.pt", "long": "ema_long.pt"}  # further ones of --more_ema
SAMPLES, SNAPSHOTS, EVALUATION = "samples", "snapshots", "evaluation"
FIGURES = "figures.json"  # in EVALUATION
# What runs did before these flags existed.
EARLIER = {"augment": "none", "augment_p": 0.3, "freeze_d": 0, "more_ema": False}
EARLIER |= {"w_dim": 512, "mapping_layers": 8}


def run_of(file: Path) -> Path:
    """Return the run folder of a checkpoint; the folder it lies in if that is none."""
    folder = file.parent
    if folder.absolute().name != SNAPSHOTS:
        return folder
    return folder.parent if folder.name else Path("..")


def snapshots(run: Path) -> list[Path]:
    """Return the snapshots in a run folder, first to last."""
    return sorted((run / SNAPSHOTS).glob("*.pt"), key=lambda p: (len(p.name), p.name))


def snapshot(run: Path, iteration: int) -> Path:
    """Return the path of one snapshot."""
    return run / SNAPSHOTS / f"{iteration:06d}.pt"


def average_of(file: Path) -> str:
    """Return which of a run's further averages a checkpoint is: short, long or, for none, ""."""
    return next((name for name, other in AVERAGES.items() if file.name == other), "")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the settings a run was started with; empty for a new run. Raises UserError."""
    path = folder / CONFIG
    if not os.path.lexists(path):
        return {}
    cure = "Restore it, or take another run folder"
    try:
        stored = json.loads(read_regular(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). {cure}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}). {cure}") from error
    phase = stored.get("phase") if isinstance(stored, dict) else None
    if type(phase) is not int or phase < 1:
        raise UserError(f"{path}: not the settings of a run ({brief(stored)}). {cure}")
    return {**EARLIER, **stored}


def read_recipe(run: Path) -> dict[str, int]:
    """Return how photos became what the run learned from, as data.photos.Recipe names it.

    Nothing where that is not known: there is no config.json, or it is of before recipes were kept.
    """
    stored = read_config(run).get("recipe", {})
    known = stored if isinstance(stored, dict) else {}
    return {name: value for name, value in known.items() if type(value) is int and value > 0}


def write_config(folder: Path, asked: dict[str, Any]) -> None:
    """Write the settings of a run. Raises OSError."""
    with replacing(folder / CONFIG) as file:
        file.write((json.dumps(asked, indent=1) + "\n").encode())


def save_latest(run: Path, config: ModelConfig, entries: dict[str, Any]) -> None:
    """Write latest.pt and keep the one before as previous.pt. Raises OSError or NotFiniteError."""
    latest = run / LATEST
    fresh = run / NEXT
    checkpoint.save(fresh, config, entries)
    if latest.exists():
        os.replace(latest, run / PREVIOUS)
    os.replace(fresh, latest)
    sync(run)


def load_latest(run: Path, tell: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the newest undamaged full state of a run, or None if there is none yet.

    A damaged latest.pt is told and renamed to damaged.pt, and previous.pt is used. Raises
    CheckpointError if that is damaged, too, and OSError.
    """
    latest, previous = run / LATEST, run / PREVIOUS
    if not os.path.lexists(latest):  # a dangling link counts as a damaged file
        return checkpoint.load(previous) if previous.exists() else None
    try:
        return checkpoint.load(latest)
    except CheckpointError as error:
        if not previous.exists():
            raise
        entries = checkpoint.load(previous)
        os.replace(latest, run / DAMAGED)
        tell(f"{error}; it is now {DAMAGED}; using {PREVIOUS}")
        return entries


def find(path: Path) -> Path:
    """Return `path`, or for a run folder its newest checkpoint.

    Raises CheckpointError for a folder without any.
    """
    return candidates(path)[0]


def candidates(path: Path) -> list[Path]:
    """Return `path`, or for a run folder its full states and then its snapshots, newest first.

    Raises CheckpointError for a folder without any.
    """
    if not path.is_dir():
        return [path]
    states = [path / LATEST, path / PREVIOUS]
    found = [p for p in (*states, *reversed(snapshots(path))) if p.exists()]
    if not found:
        raise CheckpointError(f"{path}: no checkpoint in this folder; expected a run of train.py")
    return found
