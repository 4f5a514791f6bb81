"""The share of samples in which a face detector finds a face, beside its share of photos.

The detector is OpenCV's cascade of Haar features (Viola and Jones 2001), which comes with its
package and knows nothing of the generator. It misses faces in photos of 64 px too: what counts is
the ratio of the two rates.
"""

import argparse
import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from torch import Tensor

from common.cli import UserError, say, tell
from common.device import choose_device
from data.lmdb_format import HOLDOUT, TRAINING
from dataset import ImageBank
from sampling.sampler import load_faces

CASCADE = "haarcascade_frontalface_default.xml"
INSTALL = 'pip install "opencv-python-headless<5"'  # version 5 has no cascades
INPUT_PX = 256  # images are enlarged to this: the cascade's smallest face has 24 px
MIN_FACE = 0.4  # of the side: smaller finds are not the face that fills the image
SCALE_STEP, NEIGHBOURS = 1.05, 5  # between the scales searched; overlapping finds that must agree
Z_95 = 1.96


def compare(args: argparse.Namespace) -> None:
    """Count faces in samples and photos and print the rates. Raises UserError."""
    detector = Detector()
    device = choose_device(args.device)
    faces, file, _ = load_faces(args.checkpoint, device, partial(tell, "detect"))
    resolution = faces.G.config.resolution
    part = HOLDOUT if ImageBank(args.lmdb, resolution).held_out else TRAINING
    bank = ImageBank(args.lmdb, resolution, part=part)
    count = min(args.samples, bank.count)
    photos = detector(bank.take(np.linspace(0, bank.count - 1, count).round().astype(int)))
    seeds = range(args.samples)
    samples = detector(faces.render(faces.ws(seeds, args.psi), faces.noise(seeds)))
    of = "held out" if part == HOLDOUT else "trained on"
    say([f"photos {of}: {describe(photos)}", f"samples of {file}: {describe(samples)}"])
    say([f"ratio: {ratio(photos, samples)}"])


class Detector:
    """OpenCV's detector of frontal faces."""

    def __init__(self) -> None:
        try:
            import cv2.data  # optional

            self.cv2 = cv2
            self.cascade = cv2.CascadeClassifier(cv2.data.haarcascades + CASCADE)
        except (ImportError, AttributeError) as error:
            raise UserError(f"OpenCV's cascades are not installed: {INSTALL}") from error

    def __call__(self, images: Tensor) -> list[bool]:
        """Return for each of uint8 images [N, 3, R, R] whether a face that fills it is found."""
        size = (round(MIN_FACE * INPUT_PX),) * 2
        found = []
        for image in images.permute(0, 2, 3, 1).contiguous().numpy():
            grey = self.cv2.cvtColor(image, self.cv2.COLOR_RGB2GRAY)
            cubic = self.cv2.INTER_CUBIC
            large = self.cv2.resize(grey, (INPUT_PX, INPUT_PX), interpolation=cubic)
            places = self.cascade.detectMultiScale(large, SCALE_STEP, NEIGHBOURS, minSize=size)
            found.append(len(places) > 0)
        return found


def rate(found: Sequence[bool]) -> tuple[float, float, float]:
    """Return the share found, and the ends of its 95 % interval (Wilson 1927)."""
    n, share = len(found), sum(found) / len(found)
    middle = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    reach = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2)) / (1 + Z_95**2 / n)
    return share, middle - reach, middle + reach


def describe(found: Sequence[bool]) -> str:
    """Return the rate as text."""
    share, low, high = rate(found)
    return f"a face is found in {share:.1%} ({low:.1%} to {high:.1%}) of {len(found):,}"


def ratio(photos: Sequence[bool], samples: Sequence[bool]) -> str:
    """Return the rate of samples divided by that of photos, with its 95 % interval, as text.

    The interval is that of a ratio of binomial shares, from its logarithm (Katz et al. 1978).
    """
    (a, n), (b, m) = ((sum(found), len(found)) for found in (samples, photos))
    if not a or not b:
        return f"{a:,} of {n:,} to {b:,} of {m:,}"
    reach = math.exp(Z_95 * math.sqrt(1 / a - 1 / n + 1 / b - 1 / m))
    value = (a / n) / (b / m)
    return f"{value:.3f} ({value / reach:.3f} to {value * reach:.3f})"
