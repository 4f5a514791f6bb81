"""Seconds until a script shows its --help, and until training has made its first step."""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import harness
from common.cli import integer

SCRIPTS = ("prepare_data.py", "train.py", "generate.py", "project.py", "evaluate.py")
# train.py itself, which exits after its first training step.
FIRST_STEP = """
import os, sys, train
from training import step as training
step = training.train_step
training.train_step = lambda *state: (step(*state), os._exit(0))
train.main(sys.argv[1:])
"""
EXAMPLES = """  python -m benchmarks.startup
  python -m benchmarks.startup --images 20000 --rounds 5"""


def parse_args() -> argparse.Namespace:
    """Return the flags."""
    text = "Measure --help, and train.py up to its first step."
    parser = harness.parser(text, EXAMPLES, width=0.25)
    images = "in the database, at 64 px"
    parser.add_argument("--images", type=integer(16), default=5000, metavar="N", help=images)
    return parser.parse_args()


def first_step(args: argparse.Namespace, database: Path, folder: Path) -> float:
    """Return the seconds from the command to the end of the first training step."""
    flags = ["--out", tempfile.mkdtemp(dir=folder), "--width", args.width]
    return harness.seconds_of(["-c", FIRST_STEP, database, *flags], folder)


def main() -> None:
    """Measure, print a table and write the results."""
    args = parse_args()
    waits: dict[str, list[object]] = {
        f"{script} --help": [harness.ROOT / script, "--help"] for script in SCRIPTS
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = harness.draw_database(folder / "faces", args.images, [64])
        runs = {
            wait: partial(harness.seconds_of, command, folder) for wait, command in waits.items()
        }
        runs["first step of train.py"] = partial(first_step, args, database, folder)
        seconds = harness.alternate(runs, args.rounds)
    medians = {wait: median(times) for wait, times in seconds.items()}
    rows = [[wait, f"{value:.2f}"] for wait, value in medians.items()]
    harness.report(args, harness.table(["", "seconds"], rows), medians)


if __name__ == "__main__":
    main()
