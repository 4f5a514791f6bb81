"""Command line: how often a face detector finds a face in samples, and how often in photos."""

import argparse
from pathlib import Path

from common.cli import PSI, Parser, device, integer, number, run_script

PROGRAM = "detect"
EXAMPLES = """\
  python -m experiments.detect runs/faces faces.lmdb
  python -m experiments.detect runs/faces/best.pt faces.lmdb --samples 1000 --psi 1"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the flags."""
    parser = Parser("Measure how often a face detector finds a face in samples.", EXAMPLES)
    parser.prog = f"python -m experiments.{PROGRAM}"
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CKPT|RUN", help="whose samples to look at")
    add("lmdb", type=Path, metavar="LMDB", help="photos to compare with: those held out, if any")
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    add("--samples", type=integer(1), default=1000, metavar="N", help="samples and photos, at most")
    add("--psi", type=number(-2, 2), default=PSI, metavar="X", help="truncation of the samples")
    return parser.parse_args(argv)


def main() -> None:
    """Run the experiment."""
    args = parse_args()

    def work() -> None:
        from experiments.face_detector import compare  # not above: torch is slow to import

        compare(args)

    run_script(PROGRAM, work, "interrupted; nothing was made")


if __name__ == "__main__":
    main()
