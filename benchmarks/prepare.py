"""Photos/s of the whole process of prepare_data.py, for small photos and for those of a camera."""

import argparse
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import harness
from common.cli import integer
from data.workers import usable_cores

CAMERA = (4000, 3000)  # px
SMALL = (178, 218)  # px, as CelebA's aligned photos are
EXAMPLES = """  python -m benchmarks.prepare
  python -m benchmarks.prepare --photos celeba --large 40 --peer style-based-gan-pytorch

The large photos of 12 megapixels are always drawn, with detail of every size and grain."""


def parse_args() -> argparse.Namespace:
    """Return the flags."""
    parser = harness.parser("Measure prepare_data.py at 64 px.", EXAMPLES)
    add = parser.add_argument
    photos = "folder of small photos (default: drawn ones)"
    add("--photos", type=Path, metavar="DIR", help=photos)
    add("--small", type=integer(1), default=500, metavar="N", help="small photos to draw")
    add("--large", type=integer(1), default=16, metavar="N", help="12-megapixel photos to draw")
    workers = "processes of either side"
    add("--workers", type=integer(1, 64), default=usable_cores(), metavar="N", help=workers)
    return parser.parse_args()


def draw(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Draw JPEGs of noise in octaves, with detail of every size and grain, below `folder`."""
    rng = np.random.default_rng(0)
    photos = folder / "photos"  # the peer wants a folder of folders
    photos.mkdir(parents=True)
    for index in range(count):
        picture = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8)).resize(size)
        cells = 8
        while cells < min(size):
            octave = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
            octave = octave.resize(size, Image.Resampling.BILINEAR)
            picture = Image.blend(picture, octave, 0.12)
            cells *= 3
        picture.save(photos / f"{index:05d}.jpg", quality=90)
    return folder


def run(side: str, args: argparse.Namespace, source: Path, scratch: Path) -> float:
    """Return the seconds that a side takes to prepare a folder."""
    database = scratch / "database"
    if side == "ours":
        script: list[object] = [harness.ROOT / "prepare_data.py", source, database]
        script += ["--sizes", 64, "--workers", args.workers]
    else:
        script = ["-m", "benchmarks.peer", args.peer, "prepare", source, database]
        script += [args.workers, 64]
    seconds = harness.seconds_of(script, scratch)
    shutil.rmtree(database)
    return seconds


def measure(args: argparse.Namespace, source: Path, scratch: Path) -> dict[str, Any]:
    """Return the results for one folder of photos."""
    count = sum(1 for path in source.rglob("*") if path.is_file())
    sides = ["ours", "peer"] if args.peer else ["ours"]
    runs = {side: partial(run, side, args, source, scratch) for side in sides}
    return {"photos": count, **harness.compare(harness.alternate(runs, args.rounds), count)}


def main() -> None:
    """Measure, print a table and write the results."""
    args = parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = args.photos.resolve() if args.photos else draw(folder / "a", args.small, SMALL)
        sources = {"small": small, "12_megapixels": draw(folder / "b", args.large, CAMERA)}
        results = {kind: measure(args, source, folder) for kind, source in sources.items()}
    header = ["photos", "number", "ours/s", "peer/s", "ratio"]
    rows = [[kind, r["photos"], *harness.cells(r)] for kind, r in results.items()]
    shown = f"prepare_data.py at 64 px, {args.workers} workers, whole process"
    harness.report(args, f"{shown}\n{harness.table(header, rows)}", results)


if __name__ == "__main__":
    main()
