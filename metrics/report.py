"""Measures the checkpoints of a run, and tells and writes what was found: evaluate.py's work."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from checkpoints.checkpoint import CheckpointError
from checkpoints.run_folder import (
    AVERAGES,
    BEST,
    EVALUATION,
    FIGURES,
    PREVIOUS,
    SNAPSHOTS,
    average_of,
    candidates,
    read_config,
    run_of,
)
from common.cli import UserError, say, tell
from common.device import choose_device
from common.files import replacing
from data.lmdb_format import printable
from metrics import plots
from metrics.evaluation import (
    COPY_SAMPLES,
    Copies,
    Measured,
    Photos,
    Reference,
    find_copies,
    read_photos,
    sample,
    write_pairs,
)
from metrics.features import INSTALL, Network, found_inception, load_inception, load_lite0
from metrics.metrics import Figures, require
from sampling.sampler import load_faces

PROGRAM = "evaluate.py"


CHOSEN_BY = ("KID (Lite0)", "KID (Inception)", "SWD")  # the best one is, by the first there is


class Result(NamedTuple):
    """What was found: figures of each checkpoint, of unseen photos, and copies of the best."""

    measured: Sequence[Measured]
    floor: Figures
    best: Measured
    copies: Copies | None


def evaluate(args: argparse.Namespace) -> None:
    """Measure, tell and write everything.

    Raises UserError or OSError.
    """

    require(args.samples, "samples")
    device = choose_device(args.device)
    faces, newest, _ = load_faces(args.checkpoint, device, partial(tell, PROGRAM))
    run = run_of(newest)
    photos = read_photos(args.lmdb, faces.G.config.resolution)
    refuse_other_data(run, photos, args.lmdb)
    networks = load_networks(args.inception)
    count = min(args.samples, len(photos.training), len(photos.unseen))
    say(introduction(photos, count, args))
    out = args.out or run / EVALUATION
    out.mkdir(parents=True, exist_ok=True)
    reference = Reference(photos, networks, out)
    with tqdm(unit=" images", leave=False, disable=None) as bar:
        reference.prepare(bar.update)
        floor = reference.floor(count)
        measured = measure_all(args, device, reference, count, bar.update)
        chosen_by = next(name for name in CHOSEN_BY if name in floor)
        best = min(measured, key=lambda each: each.figures[chosen_by].value)
        copies = find_copies(reference, best, bar.update) if networks else None
    say(table(measured, floor))
    if len(measured) > 1:
        say([f"best, by {chosen_by}: {best.file}"])
    if copies:
        say([copies.sentence])
    result = Result(measured, floor, best, copies)
    write_json(out / FIGURES, args.psi, result)
    say(write_pictures(out, photos, result))


def measure_all(
    args: argparse.Namespace,
    device: torch.device,
    reference: Reference,
    count: int,
    done: Callable[[int], object],
) -> list[Measured]:
    """Return the figures of the checkpoint, or of all those of a run, by iteration.

    A damaged one of a run is told and passed over. Raises CheckpointError if there is no other.
    """

    files = [path for path in candidates(args.checkpoint) if path.name != PREVIOUS]
    beside = [args.checkpoint / name for name in (BEST, *AVERAGES.values())]
    files += [path for path in beside if path.exists()]
    files.sort(key=lambda path: path.parent.name != SNAPSHOTS)  # latest.pt is soon another
    found: dict[tuple[int, str], Measured] = {}
    for file in files:
        try:
            faces, _, entries = load_faces(file, device, partial(tell, PROGRAM))
        except CheckpointError as error:
            if file == files[-1] and not found:
                raise
            tell(PROGRAM, f"{error}; passed over")
            continue
        iteration, nimg = (clock(entries.get(name)) for name in ("iteration", "nimg"))
        if (iteration, average_of(file)) not in found:
            images = sample(faces, count, args.psi, reference.photos, done)
            figures, features = reference.measure(images, done)
            kept = images[:COPY_SAMPLES]
            measured = Measured(file, iteration, nimg, figures, kept, features)
            found[iteration, average_of(file)] = measured
    return [found[key] for key in sorted(found)]


def clock(entry: object) -> int:
    """Return the time that a checkpoint says it was saved at, or 0 where it says none."""
    return entry if isinstance(entry, int) else 0


def refuse_other_data(run: Path, photos: Photos, lmdb: Path) -> None:
    """Raise UserError if a run is known to have learned from other photos."""

    trained_on = read_config(run).get("data")
    if trained_on is None:
        tell(PROGRAM, f"{run}: no config.json; what it was trained on is not known")
    elif trained_on != photos.trained_on:
        raise UserError(
            f"{printable(lmdb)}: other photos than those of {run} (digest {photos.trained_on}); "
            f"expected the database it was trained on (digest {trained_on}). Give that one"
        )


def load_networks(inception: Path | None) -> list[Network]:
    """Return the feature networks that are to be had; tell what the others need.

    Raises UserError where --inception names a file that cannot be used.
    """

    found: list[Network] = []
    try:
        found.append(load_lite0())
    except UserError as error:
        tell(PROGRAM, f"{error}; going on without")
    download = inception == Path("download")
    weights = found_inception() if inception is None or download else inception
    if weights is None and not download:
        tell(PROGRAM, "FID: no weights of Inception here, give --inception; going on without")
        return found
    try:
        found.append(load_inception(weights))
    except UserError as error:
        if inception and not download:
            raise
        tell(PROGRAM, f"{error}; going on without")
    return found


def introduction(photos: Photos, count: int, args: argparse.Namespace) -> list[str]:
    """Return the lines that say what is compared."""
    lines = [
        f"{count:,} samples (psi {args.psi:g}) against as many of {len(photos.training):,} photos "
        f"trained on; floor: {count:,} of {len(photos.unseen):,} unseen photos against the same"
    ]
    if not photos.held_out:
        lines.append(
            "no photos are held out: every second one stands in for unseen ones, though the model "
            "has seen them, so copies of those are not found (prepare_data.py --holdout)"
        )
    if count < args.samples:
        lines.append(f"--samples {args.samples:,}: {count:,}, as there are no more such photos")
    return lines


def table(measured: Sequence[Measured], floor: Figures) -> list[str]:
    """Return a row of figures for each checkpoint, and one for the floor."""
    names = [name for name in floor if not name.endswith(" px")]
    heads = ["iteration", "images", *names]
    rows = [
        [f"{average_of(m.file)} {m.iteration:,}".strip(), f"{m.nimg:,}", *cells(m.figures, names)]
        for m in measured
    ]
    rows.append(["floor", "", *cells(floor, names)])
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in [heads, *rows]
    ]


def cells(figures: Figures, names: Sequence[str]) -> list[str]:
    """Return figures with their intervals."""
    shown = []
    for value, interval in (figures[name] for name in names):
        digits = 1 if abs(value) + interval > 10 else 3
        shown.append(f"{value:.{digits}f} ± {interval:.{digits}f}")
    return shown


def write_json(path: Path, psi: float, result: Result) -> None:
    """Write every figure, each as [value, 95 % interval]."""
    checkpoints = [
        {"file": str(m.file), "iteration": m.iteration, "nimg": m.nimg, "figures": m.figures}
        for m in result.measured
    ]
    record: dict[str, object] = {"psi": psi, "floor": result.floor, "checkpoints": checkpoints}
    if result.copies:
        record["copies"] = {"count": result.copies.count, "of": len(result.copies.samples)}
    with replacing(path) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())


def write_pictures(out: Path, photos: Photos, result: Result) -> list[str]:
    """Write plots, and the best samples beside their photos; return what was written."""

    measured, floor, best, copies = result
    written = [FIGURES]
    if copies:
        written.append("nearest.png")
        write_pairs(out / written[-1], best.images, photos.training, copies)
    if not importlib.util.find_spec("matplotlib"):
        return [f"{out}: {', '.join(written)}; for plots: {INSTALL}"]

    course = [each for each in measured if not average_of(each.file)]
    if len(course) > 1:
        written.append("figures.png")
        seen = [each.nimg for each in course]
        plots.write_curves(out / written[-1], seen, [m.figures for m in course], floor)
    if copies:
        written.append("copies.png")
        plots.write_distances(out / written[-1], copies.samples, copies.unseen, copies.limit)
    return [f"{out}: {', '.join(written)}"]
