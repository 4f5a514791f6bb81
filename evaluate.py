"""Command line: checkpoints of train.py and the photos they learned from -> how good they are.

Here are the flags, what is told and what is written; the measuring is evaluation.py's.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from common.cli import Parser, device, integer, number, run_script

PROGRAM = "evaluate.py"
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


def work(args: argparse.Namespace) -> None:
    """Measure, tell and write everything."""
    from metrics.report import evaluate  # here, for torch takes seconds to import

    evaluate(args)


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    args = parse_args(argv)
    run_script(
        PROGRAM,
        partial(work, args),
        interrupted="interrupted; finished features of the photos stay",
        out_of_memory="out of memory; try fewer --samples, or --device cpu",
    )


if __name__ == "__main__":
    main()
