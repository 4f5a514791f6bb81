"""Whether a face detector of others finds faces in samples, beside how often it does in photos.

The detector is OpenCV's cascade of Haar features (Viola and Jones 2001), which comes with its
package and knows nothing of the generator. It misses faces in photos of 64 px, too: what counts
is the ratio of the two rates.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import Parser, UserError, device, integer, number, run_script, say, tell

if TYPE_CHECKING:  # torch takes seconds to import: not before the flags are known to be good
    from torch import Tensor

PROGRAM = "detect"
CASCADE = "haarcascade_frontalface_default.xml"
INSTALL = 'pip install "opencv-python-headless<5"'  # version 5 has no cascades
SEEN_PX = 256  # what pictures are enlarged to: the cascade's smallest face has 24 px
SMALLEST = 0.4  # of the side, that a face must have: half of one is not found in its place
STEP, NEIGHBOURS = 1.05, 5  # between the scales searched; places that must agree
Z_95 = 1.96
EXAMPLES = """\
  python -m experiments.detect runs/faces faces.lmdb
  python -m experiments.detect runs/faces/best.pt faces.lmdb --samples 1000 --psi 1"""


def read_arguments() -> argparse.Namespace:
    """Return the flags."""
    parser = Parser("Measure how often a face detector finds a face in samples.", EXAMPLES)
    parser.prog = f"python -m experiments.{PROGRAM}"
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CKPT|RUN", help="whose samples to look at")
    add("lmdb", type=Path, metavar="LMDB", help="photos to compare with: those held out, if any")
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    add("--samples", type=integer(1), default=1000, metavar="N", help="samples and photos, at most")
    add("--psi", type=number(-2, 2), default=0.7, metavar="X", help="truncation of the samples")
    return parser.parse_args()


def detect(args: argparse.Namespace) -> None:
    """Count faces in samples and photos and tell the rates.

    Raises UserError.
    """
    import numpy as np

    from common.device import choose_device
    from data.lmdb_format import HOLDOUT, TRAINING
    from dataset import ImageBank
    from sampling.sampler import load_faces

    detector = Detector()
    faces, file, _ = load_faces(args.checkpoint, choose_device(args.device), partial(tell, PROGRAM))
    bank = ImageBank(args.lmdb, faces.G.config.resolution)
    part = HOLDOUT if bank.held_out else TRAINING
    bank = ImageBank(args.lmdb, faces.G.config.resolution, part=part)
    count = min(args.samples, bank.count)
    photos = bank.take(np.linspace(0, bank.count - 1, count).round().astype(int))
    seeds = range(args.samples)
    samples = faces.render(faces.ws(seeds, args.psi), faces.noise(seeds))
    of = "held out" if bank.part == HOLDOUT else "trained on"
    found = {f"photos {of}": detector(photos), f"samples of {file}": detector(samples)}
    say([f"{name}: {told(each)}" for name, each in found.items()])
    say([f"ratio: {ratio(*found.values())}"])


class Detector:
    """OpenCV's frontal faces."""

    def __init__(self) -> None:
        try:
            import cv2.data

            self.cascade = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)
        except (ImportError, AttributeError) as error:
            raise UserError(f"OpenCV's cascades are not installed: {INSTALL}") from error

    def __call__(self, images: Tensor) -> list[bool]:
        """Return for each of uint8 images [N, 3, R, R] whether a face is found that fills it."""
        import cv2

        least = (round(SMALLEST * SEEN_PX),) * 2
        found = []
        for image in images.permute(0, 2, 3, 1).contiguous().numpy():
            grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
            large = cv2.resize(grey, (SEEN_PX, SEEN_PX), interpolation=cv2.INTER_CUBIC)
            places = self.cascade.detectMultiScale(large, STEP, NEIGHBOURS, minSize=least)
            found.append(len(places) > 0)
        return found


def rate(found: Sequence[bool]) -> tuple[float, float, float]:
    """Return the share found and its 95 % interval (Wilson 1927)."""
    n, share = len(found), sum(found) / len(found)
    middle = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    reach = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2)) / (1 + Z_95**2 / n)
    return share, middle - reach, middle + reach


def told(found: Sequence[bool]) -> str:
    """Return a rate as a line."""
    share, low, high = rate(found)
    return f"a face is found in {share:.1%} ({low:.1%} to {high:.1%}) of {len(found):,}"


def ratio(photos: Sequence[bool], samples: Sequence[bool]) -> str:
    """Return the samples' rate by the photos', with its 95 % interval.

    That of a ratio of two binomial shares, by its logarithm (Katz et al. 1978).
    """
    (a, n), (b, m) = ((sum(found), len(found)) for found in (samples, photos))
    if not a or not b:
        return f"{a:,} of {n:,} to {b:,} of {m:,}"
    reach = math.exp(Z_95 * math.sqrt(1 / a - 1 / n + 1 / b - 1 / m))
    value = (a / n) / (b / m)
    return f"{value:.3f} ({value / reach:.3f} to {value * reach:.3f})"


def main() -> None:
    """Run the experiment, and end with one line if something is wrong."""
    args = read_arguments()
    run_script(PROGRAM, partial(detect, args), "interrupted; nothing was made")


if __name__ == "__main__":
    main()
