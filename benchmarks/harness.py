"""What the benchmarks share: flags, alternating runs, ratios, the machine's peak, tables, JSON."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from common.cli import Parser, integer, number, resolution

if TYPE_CHECKING:  # torch takes seconds to import: not before the flags are known to be good
    import torch

ROOT = Path(__file__).parent.parent
Timer = Callable[[], float]  # does something once and returns the seconds it took
NETWORK: dict[str, tuple[Callable[[str], object], str, str]] = {
    "width": (number(0, 4, above=True), "X", "as in train.py"),
    "batch": (integer(2, 4096), "N", "images an iteration"),
    "resolution": (resolution, "PX", "of the images"),
}


def parser(description: str, examples: str, **defaults: object) -> Parser:
    """Return a parser with the flags of all benchmarks, and those of NETWORK with `defaults`."""
    made = Parser(description, examples)
    peer = "checkout of rosinality/style-based-gan-pytorch to measure too"
    made.add_argument("--peer", type=peer_checkout, metavar="DIR", help=peer)
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    rounds = "measurements of each side, in turn"
    made.add_argument("--rounds", type=integer(1, 1000), default=3, metavar="N", help=rounds)
    for name, default in defaults.items():
        parse, metavar, text = NETWORK[name]
        nargs = "+" if isinstance(default, list) else None
        made.add_argument(
            f"--{name}", type=parse, nargs=nargs, default=default, metavar=metavar, help=text
        )
    return made


def peer_checkout(text: str) -> Path:
    """Parse the folder of a peer's checkout."""
    folder = Path(text).resolve()
    if not (folder / "train.py").is_file() or not (folder / "model.py").is_file():
        raise argparse.ArgumentTypeError(f"{text!r} holds no train.py and model.py")
    return folder


class Range(NamedTuple):
    """The median of some numbers, the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Range:
        """Return the range of these numbers."""
        return cls(median(numbers), min(numbers), max(numbers))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def alternate(sides: Mapping[str, Timer], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each side, measured A B A B: other load on the machine slows both."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, timer in sides.items():
            seconds[name].append(timer())
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> Range:
    """Return the range of the ratios of numbers measured in the same rounds."""
    return Range.of([a / b for a, b in zip(above, below, strict=True)])


def compare(seconds: dict[str, list[float]], amount: float | None = None) -> dict[str, Any]:
    """Return the median of each side, and the ratio; with `amount`, medians are amount/second."""
    result: dict[str, Any] = {side: median(times) for side, times in seconds.items()}
    if amount is not None:
        result = {side: amount / time for side, time in result.items()}
    if "peer" in seconds:
        result["ratio"], *result["ratio_range"] = ratio(seconds["peer"], seconds["ours"])
    return result


def cells(result: dict[str, Any]) -> list[str | None]:
    """Return the table cells of ours, the peer's and the ratio."""
    if "peer" not in result:
        return [f"{result['ours']:.2f}", None, None]
    shown = Range(result["ratio"], *result["ratio_range"])
    return [f"{result['ours']:.2f}", f"{result['peer']:.2f}", str(shown)]


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return lines of aligned columns; None is shown as a dash."""
    cells = [header] + [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(lines)


def report(args: argparse.Namespace, lines: str, results: dict[str, Any]) -> None:
    """Print lines, and write the results to the file of --json."""
    print(lines, flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def seconds_of(command: Sequence[object], folder: Path) -> float:
    """Return how long a Python process takes, run in `folder`; RuntimeError if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()[-500:]}")
    return seconds


def convolution_peak(dtype: torch.dtype) -> float:
    """Return the FLOP/s of the machine's fastest 3 x 3 convolution, with 512 or 256 channels."""
    import torch
    import torch.nn.functional as F

    best = 0.0
    for channels, size in ((512, 16), (256, 32)):
        x = torch.randn(16, channels, size, size, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, dtype=dtype)
        weight = weight.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            F.conv2d(x, weight, padding=1)
            for _ in range(5):
                start = time.perf_counter()
                F.conv2d(x, weight, padding=1)
                seconds = time.perf_counter() - start
                best = max(best, 2 * 9 * x.numel() * channels / seconds)
    return best


def draw_database(path: Path, count: int, sizes: Sequence[int]) -> Path:
    """Write an LMDB of coloured noise that both projects can read, and return its path."""
    import numpy as np
    from PIL import Image

    from data.lmdb_writer import Writer
    from data.photos import encode

    rng = np.random.default_rng(0)
    with Writer(path, sizes, ["drawn"]) as writer:
        for index in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
            images = [coarse.resize((size, size), Image.Resampling.BICUBIC) for size in sizes]
            writer.add([encode(image, 95) for image in images], b"%d" % index, 0)
    return path
