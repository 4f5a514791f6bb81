"""Milliseconds from a slider of the page to the third face, without the way to the browser."""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import common
from benchmarks.generate import our_checkpoint
from common.cli import integer, number, resolution

if TYPE_CHECKING:  # torch takes seconds to import: not before the flags are known to be good
    from web.handlers import Handlers

MOVES = 15  # of a slider, in each round
WARM = 3  # before the first that counts
EXAMPLES = """  python -m benchmarks.explore
  python -m benchmarks.explore --width 0.25 --threads 1 --json explore.json

`slider` is a slider of layers or a direction, with the heat maps; `psi` changes all three faces.
The generator is untrained: that makes no difference to the time."""


def read_arguments() -> argparse.Namespace:
    """Return the flags."""
    parser = common.parser("Measure how fast the third face follows a slider.", EXAMPLES)
    add = parser.add_argument
    add("--width", type=number(0, 4, above=True), default=1.0, metavar="X", help="as in train.py")
    add("--resolution", type=resolution, default=64, metavar="PX", help="of the images")
    add("--threads", type=integer(1, 256), nargs="+", default=[1, 2], metavar="N", help="of torch")
    return parser.parse_args()


def open_handlers(folder: Path, args: argparse.Namespace) -> Handlers:
    """Return the page's handlers for a generator as it is before any training."""
    import torch

    from sampling.sampler import load_faces
    from web.backend import Backend
    from web.handlers import Handlers

    our_checkpoint(folder / "ours.pt", args)
    faces, file, entries = load_faces(folder / "ours.pt", torch.device("cpu"), print)
    return Handlers(Backend(faces, file, entries, steps=1), folder)


def milliseconds(move: Callable[[float], object]) -> tuple[float, float]:
    """Return how long a move takes and how much of all cores, in the median; no two are alike."""
    walls, works = [], []
    for place in range(WARM + MOVES):
        wall, work = time.perf_counter(), time.process_time()
        move(place / (WARM + MOVES))
        walls.append(1000 * (time.perf_counter() - wall))
        works.append(1000 * (time.process_time() - work))
    return median(walls[WARM:]), median(works[WARM:])


def main() -> None:
    """Measure, print a table and write the figures."""
    args = read_arguments()
    import torch

    from common.device import DTYPES

    with tempfile.TemporaryDirectory() as name:
        handlers = open_handlers(Path(name), args)

        def values(**changed: float) -> list[float]:
            return [changed.get(slider.name, slider.default) for slider in handlers.sliders]

        def slider(share: float) -> str:
            return handlers.third((0, 1), "English", *values(coarse=100 * share))

        fresh = itertools.count()  # seeds of noise: else A and B would be at hand from round 2 on

        def psi(share: float) -> tuple[str, str, str]:
            moved = values(psi=0.5 + share, noise_seed=next(fresh))
            return handlers.all_faces((0, 1), "English", *moved)

        figures: dict[str, Any] = {}
        rows = []
        for threads in args.threads:
            torch.set_num_threads(threads)
            for move in (slider, psi):
                found = [milliseconds(move) for _ in range(args.rounds)]
                spreads = [
                    common.Spread(median(ms), min(ms), max(ms)) for ms in zip(*found, strict=True)
                ]
                figures[f"{move.__name__}_threads_{threads}"] = dict(
                    zip(("ms", "cpu_ms"), spreads, strict=True)
                )
                rows.append([move.__name__, threads, *spreads])
    kind = next(name for name, dtype in DTYPES.items() if dtype == handlers.backend.dtype)
    shown = f"explore.py, width {args.width:g}, {args.resolution} px, {kind}"
    lines = common.table(["", "threads", "ms", "ms of CPU"], rows)
    common.finish(args, f"{shown}\n{lines}", figures)


if __name__ == "__main__":
    main()
