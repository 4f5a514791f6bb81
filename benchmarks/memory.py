"""Peak memory of training, each side in a process of its own."""

import argparse
import multiprocessing
import resource
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import harness

EXAMPLES = """  python -m benchmarks.memory
  python -m benchmarks.memory --batch 8 --peer style-based-gan-pytorch"""


def parse_args() -> argparse.Namespace:
    """Return the flags."""
    text = "Measure the peak memory of training."
    return harness.parser(text, EXAMPLES, width=1.0, batch=16, resolution=64).parse_args()


def peak(side: str, args: argparse.Namespace, database: Path) -> float:
    """Return the peak memory of this process, MB, after two training steps."""
    size = args.resolution
    if side == "ours":
        from benchmarks.ours import OurTraining

        ours = OurTraining(database, args.width, args.batch, size, size)
        for iteration in (0, 1):
            ours.step(iteration)
    else:
        from benchmarks.peer import PeerTraining

        peer = PeerTraining(args.peer, database, args.width, args.batch, size)
        for _ in range(2):
            peer.seconds()
    units = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return units / 2**20 if sys.platform == "darwin" else units / 2**10  # bytes on macOS, else KB


def main() -> None:
    """Measure, print a table and write the results."""
    args = parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        database = harness.draw_database(Path(folder) / "faces", 64, [args.resolution])
        for side in ["ours", "peer"] if args.peer else ["ours"]:
            # Spawned, not forked: a fork begins with the memory of its parent.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, context) as process:
                result[side] = process.submit(peak, side, args, database).result()
    if args.peer:
        result["ratio"] = result["ours"] / result["peer"]
    shown = [f"{result[key]:.2f}" if key in result else None for key in ("ours", "peer", "ratio")]
    title = f"training, width {args.width:g}, {args.resolution} px, batch {args.batch}"
    lines = harness.table(["ours, MB", "peer, MB", "ratio"], [shown])
    harness.report(args, f"{title}\n{lines}", result)


if __name__ == "__main__":
    main()
