"""Command line: checkpoints of train.py and the photos they were trained on -> metrics."""

import argparse
from functools import partial
from pathlib import Path

from common.cli import Parser, device, integer, number, run_script

PROGRAM = "evaluate.py"
EXAMPLES = """\
  python evaluate.py runs/faces faces.lmdb
  python evaluate.py runs/faces/snapshots/010000.pt faces.lmdb --samples 3000

SWD is the sliced Wasserstein distance of patches, KID the kernel distance of features. Both are in
thousandths; lower is better. Precision is the share of samples that look real, recall the share of
photos that the generator could have made; higher is better. Metrics marked (Lite0) use features of
EfficientNet-Lite0, not of Inception as published KIDs do: compare them with each other only.

Each metric comes with its 95 % interval and a floor, the value for photos held out of training
(prepare_data.py --holdout). Values for different numbers of samples do not compare. The averages
that train.py --more_ema keeps, short and long, have rows of their own.

Writes figures.json and nearest.png, which shows the samples of the best checkpoint that are most
like a training photo, each beside that photo; with matplotlib also figures.png and copies.png."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the flags."""
    parser = Parser("Measure how good the samples of a generator are.", EXAMPLES)
    parser.prog = PROGRAM
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CKPT|RUN", help="a file, or a run for all its snapshots")
    add("lmdb", type=Path, metavar="LMDB", help="database that it was trained on")
    out = "folder to write to (default: `evaluation` in the run folder)"
    add("--out", type=Path, metavar="DIR", help=out)
    where = "where the generator runs: auto, cpu, cuda, cuda:1 or mps"
    add("--device", type=device, default="auto", help=where)
    add("--samples", type=integer(1), default=1000, metavar="N", help="samples to measure")
    psi = "truncation of the samples; papers report metrics without any, at 1"
    add("--psi", type=number(-2, 2), default=1.0, metavar="X", help=psi)
    inception = "weights for FID and KID as in papers: torch-fidelity's file, or `download`"
    add("--inception", type=Path, metavar="FILE", help=inception)
    return parser.parse_args(argv)


def work(args: argparse.Namespace) -> None:
    """Measure; print and write the results."""
    from metrics.report import evaluate  # not above: torch takes seconds to import

    evaluate(args)


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    args = parse_args(argv)
    run_script(
        PROGRAM,
        partial(work, args),
        interrupted="interrupted; features of the photos that were finished are kept",
        out_of_memory="out of memory; try fewer --samples, or --device cpu",
    )


if __name__ == "__main__":
    main()
