"""Command line: checkpoints of train.py and the photos they learned from -> how good they are.

Here are the flags, what is told and what is written; the measuring is evaluation.py's.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common.cli import Parser, UserError, device, integer, number, run_script, say, tell
from common.files import replacing

if TYPE_CHECKING:  # torch takes seconds to import: not before the flags are known to be good
    import torch

    from metrics.evaluation import Copies, Measured, Photos, Reference
    from metrics.features import Network
    from metrics.metrics import Figures

PROGRAM = "evaluate.py"
AVERAGES = ("ema_short.pt", "ema_long.pt")  # of train.py --more_ema
CHOSEN_BY = ("KID (Lite0)", "KID (Inception)", "SWD")  # the best one is, by the first there is
EXAMPLES = """\
  python evaluate.py runs/faces faces.lmdb
  python evaluate.py runs/faces/snapshots/010000.pt faces.lmdb --samples 3000

SWD is the sliced Wasserstein distance, KID the kernel distance of features, both in thousandths:
lower is better. Precision is the share of samples that look real, recall the share of photos that
the generator might have made: higher is better. (Lite0) is on features of EfficientNet-Lite0, which
are not those of FID and of published KIDs: they compare within this program only. Each figure has
its 95 % interval, and a floor: what photos held out of training get (prepare_data.py --holdout).
Figures of different numbers of samples do not compare. Of a run with --more_ema its short
and long averages have rows, too. Written are figures.json, nearest.png with the best checkpoint's
samples that are most like a training photo beside that photo and, where matplotlib is installed,
the plots figures.png and copies.png."""


class Result(NamedTuple):
    """What was found: figures of each checkpoint, of unseen photos, and copies of the best."""

    measured: Sequence[Measured]
    floor: Figures
    best: Measured
    copies: Copies | None


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the flags; here stands every default."""
    parser = Parser("Measure how good the samples of a generator are.", EXAMPLES)
    parser.prog = PROGRAM
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CKPT|RUN", help="a file, or a run for all its snapshots")
    add("lmdb", type=Path, metavar="LMDB", help="what it was trained on")
    add("--out", type=Path, metavar="DIR", help="folder (default: `evaluation` in the run folder)")
    add(
        "--device",
        type=device,
        default="auto",
        help="auto, cpu, cuda, cuda:1 or mps: for the generator",
    )
    add("--samples", type=integer(1), default=1000, metavar="N", help="samples to measure")
    psi = "truncation of the samples; 1: none, as figures are given in papers"
    add("--psi", type=number(-2, 2), default=1.0, metavar="X", help=psi)
    inception = "for FID and KID as in papers: a file of torch-fidelity's weights, or `download`"
    add("--inception", type=Path, metavar="FILE", help=inception)
    return parser.parse_args(argv)


def evaluate(args: argparse.Namespace) -> None:
    """Measure, tell and write everything.

    Raises UserError or OSError.
    """
    from tqdm import tqdm

    from common.device import choose_device
    from metrics.evaluation import Reference, find_copies, read_photos
    from metrics.metrics import require
    from sampling.sampler import load_faces

    require(args.samples, "samples")
    device = choose_device(args.device)
    faces, newest, _ = load_faces(args.checkpoint, device, partial(tell, PROGRAM))
    run = newest.parent.parent if newest.parent.name == "snapshots" else newest.parent
    photos = read_photos(args.lmdb, faces.G.config.resolution)
    refuse_other_data(run, photos, args.lmdb)
    networks = load_networks(args.inception)
    count = min(args.samples, len(photos.training), len(photos.unseen))
    say(introduction(photos, count, args))
    out = args.out or run / "evaluation"
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
    write_json(out / "figures.json", args.psi, result)
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
    from checkpoints.checkpoint import PREVIOUS, CheckpointError, candidates
    from metrics.evaluation import COPY_SAMPLES, Measured, sample
    from sampling.sampler import load_faces

    files = [path for path in candidates(args.checkpoint) if path.name != PREVIOUS]
    beside = [args.checkpoint / name for name in ("best.pt", *AVERAGES)]
    files += [path for path in beside if path.exists()]
    files.sort(key=lambda path: path.parent.name != "snapshots")  # latest.pt is soon another
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


def average_of(file: Path) -> str:
    """Return which of a run's further averages a checkpoint is: short, long or none."""
    return file.stem.removeprefix("ema_") if file.name in AVERAGES else ""


def clock(entry: object) -> int:
    """Return the time that a checkpoint says it was saved at, or 0 where it says none."""
    return entry if isinstance(entry, int) else 0


def refuse_other_data(run: Path, photos: Photos, lmdb: Path) -> None:
    """Raise UserError if a run is known to have learned from other photos."""
    from checkpoints.run_folder import read_config
    from data.lmdb_format import printable

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
    from metrics.features import found_inception, load_inception, load_lite0

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
    from metrics.evaluation import write_pairs
    from metrics.features import INSTALL

    measured, floor, best, copies = result
    written = ["figures.json"]
    if copies:
        written.append("nearest.png")
        write_pairs(out / written[-1], best.images, photos.training, copies)
    if not importlib.util.find_spec("matplotlib"):
        return [f"{out}: {', '.join(written)}; for plots: {INSTALL}"]
    from metrics import plots

    course = [each for each in measured if not average_of(each.file)]
    if len(course) > 1:
        written.append("figures.png")
        seen = [each.nimg for each in course]
        plots.write_curves(out / written[-1], seen, [m.figures for m in course], floor)
    if copies:
        written.append("copies.png")
        plots.write_distances(out / written[-1], copies.samples, copies.unseen, copies.limit)
    return [f"{out}: {', '.join(written)}"]


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    args = parse_args(argv)
    run_script(
        PROGRAM,
        partial(evaluate, args),
        interrupted="interrupted; finished features of the photos stay",
        out_of_memory="out of memory; try fewer --samples, or --device cpu",
    )


if __name__ == "__main__":
    main()
