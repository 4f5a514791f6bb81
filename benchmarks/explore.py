"""Milliseconds from a slider of the page to the third face, without Gradio and the browser."""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import harness
from benchmarks.generate import our_checkpoint
from common.cli import integer

if TYPE_CHECKING:  # torch takes seconds to import: not before the flags are known to be good
    from web.handlers import Handlers

MOVES = 15  # of a slider, in each round
WARMUP = 3  # further moves before them, which do not count
EXAMPLES = """  python -m benchmarks.explore
  python -m benchmarks.explore --width 0.25 --threads 1 --json explore.json

`slider` moves layers or a direction and draws the heat maps; `psi` changes all three faces.
The generator is untrained, which makes no difference to the time."""


def parse_args() -> argparse.Namespace:
    """Return the flags."""
    text = "Measure how fast the third face follows a slider."
    parser = harness.parser(text, EXAMPLES, width=1.0, resolution=64)
    add = parser.add_argument
    add("--threads", type=integer(1, 256), nargs="+", default=[1, 2], metavar="N", help="of torch")
    return parser.parse_args()


def open_handlers(folder: Path, args: argparse.Namespace) -> Handlers:
    """Return the page's handlers for an untrained generator."""
    import torch

    from sampling.sampler import load_faces
    from web.backend import Backend
    from web.handlers import Handlers

    our_checkpoint(folder / "ours.pt", args)
    faces, file, entries = load_faces(folder / "ours.pt", torch.device("cpu"), print)
    return Handlers(Backend(faces, file, entries, steps=1), folder)


def milliseconds(move: Callable[[float], object]) -> tuple[float, float]:
    """Return the median wall and CPU time of moves to different places in 0..1."""
    walls, cpus = [], []
    for place in range(WARMUP + MOVES):
        wall, cpu = time.perf_counter(), time.process_time()
        move(place / (WARMUP + MOVES))
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    return median(walls[WARMUP:]), median(cpus[WARMUP:])


def main() -> None:
    """Measure, print a table and write the results."""
    args = parse_args()
    import torch

    from common.device import DTYPES

    with tempfile.TemporaryDirectory() as name:
        handlers = open_handlers(Path(name), args)

        def values(**changed: float) -> list[float]:
            return [changed.get(slider.name, slider.default) for slider in handlers.sliders]

        def slider(share: float) -> str:
            return handlers.third((0, 1), "English", *values(coarse=100 * share))

        fresh = itertools.count()  # seeds of noise: otherwise A and B are cached from round 2 on

        def psi(share: float) -> tuple[str, str, str]:
            moved = values(psi=0.5 + share, noise_seed=next(fresh))
            return handlers.all_faces((0, 1), "English", *moved)

        results: dict[str, Any] = {}
        rows = []
        for threads in args.threads:
            torch.set_num_threads(threads)
            for move in (slider, psi):
                rounds = [milliseconds(move) for _ in range(args.rounds)]
                wall, cpu = (harness.Range.of(times) for times in zip(*rounds, strict=True))
                results[f"{move.__name__}_threads_{threads}"] = {"ms": wall, "cpu_ms": cpu}
                rows.append([move.__name__, threads, wall, cpu])
    kind = next(name for name, dtype in DTYPES.items() if dtype == handlers.backend.dtype)
    shown = f"explore.py, width {args.width:g}, {args.resolution} px, {kind}"
    lines = harness.table(["", "threads", "ms", "ms of CPU"], rows)
    harness.report(args, f"{shown}\n{lines}", results)


if __name__ == "__main__":
    main()
