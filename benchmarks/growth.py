"""Images/s of training at each resolution on the way to the last: whether growth pays."""

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import harness

SIZES = (8, 16, 32, 64)  # px
EXAMPLES = """  python -m benchmarks.growth
  python -m benchmarks.growth --width 0.125 --batch 32 --json growth.json

The networks always have layers up to 64 px; ratios are to the images/s at 64 px."""


def parse_args() -> argparse.Namespace:
    """Return the flags."""
    text = "Measure images/s of training at 8, 16, 32 and 64 px."
    return harness.parser(text, EXAMPLES, width=0.25, batch=16).parse_args()


def timers(args: argparse.Namespace, database: Path) -> dict[str, dict[str, harness.Timer]]:
    """Return a timer of a training step, warmed up, for each side and resolution."""
    from benchmarks.ours import OurTraining
    from benchmarks.peer import PeerTraining

    sides: dict[str, dict[str, harness.Timer]] = {"ours": {}, "peer": {}}
    for size in SIZES:
        ours = OurTraining(database, args.width, args.batch, size, max(SIZES))
        sides["ours"][str(size)] = ours.seconds
        if args.peer:
            peer = PeerTraining(args.peer, database, args.width, args.batch, size)
            sides["peer"][str(size)] = peer.seconds
    for side in sides.values():
        for timer in side.values():
            timer()
    return sides


def cells(result: dict[str, Any], side: str) -> list[str | None]:
    """Return the two cells of one side in a row."""
    if side not in result:
        return [None, None]
    return [f"{result[side]:.2f}", str(result[f"{side}_ratio"])]


def main() -> None:
    """Measure, print a table and write the results."""
    args = parse_args()
    import torch

    results: dict[str, dict[str, Any]] = {str(size): {} for size in SIZES}
    with tempfile.TemporaryDirectory() as folder:
        database = harness.draw_database(Path(folder) / "faces", 256, SIZES)
        for side, by_size in timers(args, database).items():
            seconds = harness.alternate(by_size, args.rounds)
            for size, times in seconds.items():
                results[size][side] = args.batch / median(times)
                results[size][f"{side}_ratio"] = harness.ratio(seconds[str(max(SIZES))], times)
    header = ["px", "ours/s", "to 64 px", "peer/s", "to 64 px"]
    rows = [[size, *cells(r, "ours"), *cells(r, "peer")] for size, r in results.items()]
    shown = f"training, width {args.width:g}, batch {args.batch}, {torch.get_num_threads()} threads"
    harness.report(args, f"{shown}\n{harness.table(header, rows)}", results)


if __name__ == "__main__":
    main()
