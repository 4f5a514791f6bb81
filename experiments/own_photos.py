"""Command line: how near projections come to photos that a run has not seen, and their mixes."""

import argparse
from pathlib import Path

from common.cli import STEPS, Parser, device, integer, run_script

PROGRAM = "own_photos"
EXAMPLES = """\
  python prepare_data.py celeba celeba5k.lmdb --per_source 5000 --holdout 1000
  python -m experiments.own_photos runs/celeba5k celeba5k.lmdb"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the flags."""
    parser = Parser("Project photos that a run has not seen, and mix them.", EXAMPLES)
    parser.prog = f"python -m experiments.{PROGRAM}"
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="RUN", help="run folder, with its discriminator")
    add("lmdb", type=Path, metavar="LMDB", help="its database, with photos held out")
    add("--out", type=Path, default=Path(PROGRAM), metavar="DIR", help="folder to write to")
    add("--photos", type=integer(2), default=50, metavar="N", help="photos to project")
    add("--pairs", type=integer(1, 100), default=10, metavar="N", help="pairs of them to mix")
    add("--steps", type=integer(1), default=STEPS, metavar="N", help="of each projection")
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    args = parser.parse_args(argv)
    if 2 * args.pairs > args.photos:
        parser.error(f"--pairs {args.pairs}: expected at most half of --photos {args.photos}")
    return args


def main() -> None:
    """Run the experiment."""
    args = parse_args()

    def work() -> None:
        from experiments.projections import project_held_out  # not above: torch is slow to import

        project_held_out(args)

    run_script(PROGRAM, work, "interrupted; nothing was made")


if __name__ == "__main__":
    main()
