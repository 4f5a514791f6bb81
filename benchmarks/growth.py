"""Images/s of training at each resolution on the way to the last: whether growth pays."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import common
from common.cli import integer, number

SIZES = (8, 16, 32, 64)  # px
EXAMPLES = """  python -m benchmarks.growth
  python -m benchmarks.growth --width 0.125 --batch 32 --json growth.json

The networks reach to 64 px all the while, and the ratios are to the images/s at 64 px."""


def read_arguments() -> argparse.Namespace:
    """Return the flags."""
    parser = common.parser("Measure images/s of training at 8, 16, 32 and 64 px.", EXAMPLES)
    add = parser.add_argument
    width = number(0, 4, above=True)
    add("--width", type=width, default=0.25, metavar="X", help="as in train.py")
    add("--batch", type=integer(2, 4096), default=16, metavar="N", help="images an iteration")
    return parser.parse_args()


def clocks(args: argparse.Namespace, database: Path) -> dict[str, dict[str, common.Clock]]:
    """Return for each side and resolution what tells the seconds of a step, warmed up."""
    from benchmarks.ours import OurTraining
    from benchmarks.peer import PeerTraining

    sides: dict[str, dict[str, common.Clock]] = {"ours": {}, "peer": {}}
    for size in SIZES:
        ours = OurTraining(database, args.width, args.batch, size, max(SIZES))
        sides["ours"][str(size)] = ours.seconds
        if args.peer:
            peer = PeerTraining(args.peer, database, args.width, args.batch, size)
            sides["peer"][str(size)] = peer.seconds
    for side in sides.values():
        for measure in side.values():
            measure()
    return sides


def cells(figures: dict[str, Any], side: str) -> list[str | None]:
    """Return the two cells of one side in a row."""
    if side not in figures:
        return [None, None]
    return [f"{figures[side]:.2f}", str(figures[f"{side}_ratio"])]


def main() -> None:
    """Measure, print a table and write the figures."""
    args = read_arguments()
    import torch

    figures: dict[str, dict[str, Any]] = {str(size): {} for size in SIZES}
    with tempfile.TemporaryDirectory() as folder:
        database = common.draw_database(Path(folder) / "faces", 256, SIZES)
        for side, measures in clocks(args, database).items():
            seconds = common.paired(measures, args.rounds)
            for size, times in seconds.items():
                figures[size][side] = args.batch / median(times)
                figures[size][f"{side}_ratio"] = common.ratio(seconds[str(max(SIZES))], times)
    header = ["px", "ours/s", "to 64 px", "peer/s", "to 64 px"]
    rows = [[size, *cells(f, "ours"), *cells(f, "peer")] for size, f in figures.items()]
    shown = f"training, width {args.width:g}, batch {args.batch}, {torch.get_num_threads()} threads"
    common.finish(args, f"{shown}\n{common.table(header, rows)}", figures)


if __name__ == "__main__":
    main()
