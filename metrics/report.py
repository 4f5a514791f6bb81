"""The work of evaluate.py: measures a checkpoint or a run, prints a table, writes the results."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from checkpoints.run_folder import EVALUATION, FIGURES, average_of, run_of
from common.cli import say
from common.device import choose_device
from common.files import replacing
from metrics import choice, plots
from metrics.evaluation import (
    CheckpointMetrics,
    Evaluator,
    Reals,
    check_same_photos,
    measure_all,
    read_reals,
    warn,
)
from metrics.features import load_networks
from metrics.memorisation import Memorisation, find_copies, write_pairs
from metrics.metrics import Metrics, require
from metrics.packages import INSTALL
from sampling.sampler import load_faces


class Evaluation(NamedTuple):
    """Metrics of each checkpoint and of unseen photos, and how near the best one's samples are."""

    checkpoints: Sequence[CheckpointMetrics]
    floor: Metrics
    best: CheckpointMetrics
    copies: Sequence[Memorisation]  # by one network each, the most telling first; may be none


def evaluate(args: argparse.Namespace) -> None:
    """Measure what the flags of evaluate.py ask for; print and write the results.

    Raises UserError or OSError.
    """
    require(args.samples, "samples")
    device = choose_device(args.device)
    faces, newest, _ = load_faces(args.checkpoint, device, warn)
    run = run_of(newest)
    reals = read_reals(args.lmdb, faces.G.config.resolution)
    check_same_photos(run, reals, args.lmdb)
    networks = load_networks(args.inception, device, warn)
    count = min(args.samples, len(reals.training), len(reals.unseen))
    say(introduction(reals, count, args))
    out = args.out or run / EVALUATION
    out.mkdir(parents=True, exist_ok=True)
    evaluator = Evaluator(reals, networks, out, count)
    with tqdm(unit=" images", leave=False, disable=None) as bar:
        evaluator.prepare(bar.update)
        floor = evaluator.floor()
        checkpoints = measure_all(args.checkpoint, args.psi, evaluator, device, bar.update)
        best = checkpoints[choice.best_of([each.metrics for each in checkpoints])]
        copies = find_copies(evaluator, best, bar.update)
    say(table(checkpoints, floor))
    if len(checkpoints) > 1:
        files = [str(each.file) for each in checkpoints]
        say(choice.sentences(files, [each.metrics for each in checkpoints]))
    say([each.sentence for each in copies])
    say(write_files(out, args.psi, reals, Evaluation(checkpoints, floor, best, copies)))


def introduction(reals: Reals, count: int, args: argparse.Namespace) -> list[str]:
    """Return lines that say what is compared with what."""
    lines = [
        f"{count:,} samples (psi {args.psi:g}) against as many of {len(reals.training):,} photos "
        f"trained on; floor: {count:,} of {len(reals.unseen):,} unseen photos against the same"
    ]
    if not reals.has_holdout:
        lines.append(
            "no photos are held out: every second one stands in for unseen ones, though the model "
            "has seen them, so copies of those are not found (prepare_data.py --holdout)"
        )
    if count < args.samples:
        lines.append(f"--samples {args.samples:,}: only {count:,}, since there are no more photos")
    return lines


def table(checkpoints: Sequence[CheckpointMetrics], floor: Metrics) -> list[str]:
    """Return the lines of a table: networks, metrics, a row for each checkpoint, and the floor.

    Levels of SWD are left out, and so is Lite0 where the networks that decide were used.
    """
    decided = any(name in floor for name in choice.DECIDING)
    left_out = (" px", "(Lite0)") if decided else (" px",)
    names = [name for name in floor if not name.endswith(left_out)]
    metrics, networks = zip(*(name.rstrip(")").partition(" (")[::2] for name in names), strict=True)
    rows = [["", "", *networks], ["iteration", "images", *metrics]]
    for each in checkpoints:
        iteration = f"{average_of(each.file)} {each.iteration:,}".strip()
        rows.append([iteration, f"{each.nimg:,}", *cells(each.metrics, names)])
    rows.append(["floor", "", *cells(floor, names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows[not any(networks) :]
    ]


def cells(metrics: Metrics, names: Sequence[str]) -> list[str]:
    """Return metrics with their intervals, as text."""
    shown = []
    for value, interval in (metrics[name] for name in names):
        digits = 1 if abs(value) + interval > 10 else 3
        shown.append(f"{value:.{digits}f} ± {interval:.{digits}f}")
    return shown


def write_files(out: Path, psi: float, reals: Reals, evaluation: Evaluation) -> list[str]:
    """Write metrics and pictures; return the line that names them."""
    checkpoints, floor, best, copies = evaluation
    write_json(out / FIGURES, psi, evaluation)
    written = [FIGURES]
    if copies:
        written.append("nearest.png")
        write_pairs(out / "nearest.png", best.samples, reals.training, copies[0])
    if not plots.are_available():
        return [f"{out}: {', '.join(written)}; for plots: {INSTALL}"]
    snapshots = [each for each in checkpoints if not average_of(each.file)]
    if len(snapshots) > 1:
        written.append("figures.png")
        nimg = [each.nimg for each in snapshots]
        plots.write_curves(out / "figures.png", nimg, [each.metrics for each in snapshots], floor)
    if copies:
        written.append("copies.png")
        plots.write_distances(out / "copies.png", copies[0])
    return [f"{out}: {', '.join(written)}"]


def write_json(path: Path, psi: float, evaluation: Evaluation) -> None:
    """Write every metric as [value, half-width of its 95 % interval]."""
    checkpoints = [
        {"file": str(c.file), "iteration": c.iteration, "nimg": c.nimg, "figures": c.metrics}
        for c in evaluation.checkpoints
    ]
    record: dict[str, object] = {"psi": psi, "floor": evaluation.floor, "checkpoints": checkpoints}
    if evaluation.copies:
        found = {c.network: {"count": c.count, "of": len(c.distances)} for c in evaluation.copies}
        record |= {"copies": found[evaluation.copies[0].network], "copies by network": found}
    with replacing(path) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())
