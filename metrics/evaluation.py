"""What evaluate.py measures: photos, samples, their features, the figures with floors, the copies.

A figure compares samples with as many training photos; its floor compares photos held out of
training with the same. What a figure is, is metrics.py's; nothing is printed or drawn here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checkpoints import checkpoint
from common.cli import UserError
from common.images import grid, write_image
from data.lmdb_format import HOLDOUT, printable
from dataset import ImageBank
from metrics import metrics
from metrics.features import Network
from metrics.metrics import Figures, Value, half_width, interval, require
from sampling.sampler import Faces

COPY_SAMPLES = 1000  # whose nearest training photos are looked for
CACHE_FORMAT = 1
RENDERED_AT_ONCE = 256
PAIRS = 32  # samples beside their photos on a sheet
PAIRS_A_ROW = 4

Count = Callable[[int], object]


@dataclass(frozen=True)
class Photos:
    """uint8 photos [N, 3, R, R] that the model has seen and others, and what names them all."""

    training: Tensor
    unseen: Tensor
    held_out: bool  # whether training never saw `unseen`
    trained_on: str  # the digest that train.py stores
    digest: str  # of all of them

    @property
    def resolution(self) -> int:
        """Return R, px."""
        return self.training.shape[-1]

    def even(self, count: int) -> Tensor:
        """Return `count` of the training photos, evenly spread: which they are."""
        return torch.from_numpy(np.linspace(0, len(self.training) - 1, count).round().astype(int))


def read_photos(lmdb: Path, resolution: int) -> Photos:
    """Return the photos of a database; without a holdout every second one counts as unseen.

    Raises UserError, and UserError if they are too few.
    """
    bank = ImageBank(lmdb, resolution)
    training = bank.take(np.arange(bank.count))
    if bank.held_out:
        other = ImageBank(lmdb, resolution, part=HOLDOUT)
        unseen, digest = other.take(np.arange(other.count)), f"{bank.digest}+{other.digest}"
    else:
        training, unseen, digest = training[::2], training[1::2], f"{bank.digest} halved"
    require(len(training), f"training photos in {printable(lmdb)}")
    require(len(unseen), f"unseen photos in {printable(lmdb)}")
    digest += f" {resolution} px"
    return Photos(training, unseen, bool(bank.held_out), bank.digest, digest)


def sample(faces: Faces, count: int, psi: float, photos: Photos, done: Count) -> Tensor:
    """Return the uint8 samples of seeds 0 to count - 1, as large as the photos: [N, 3, R, R].

    A stage below it is shown as larger pixels, as in the sheets of a run. `done` is told how many
    more there are. Raises UserError.
    """
    parts = []
    for start in range(0, count, RENDERED_AT_ONCE):
        seeds = range(start, min(start + RENDERED_AT_ONCE, count))
        parts.append(faces.render(faces.ws(seeds, psi), faces.noise(seeds)))
        done(len(seeds))
    times = photos.resolution // faces.stage.resolution
    return torch.cat(parts).repeat_interleave(times, 2).repeat_interleave(times, 3)


class Reference:
    """Photos with their features by each network, which are computed once and kept in `folder`."""

    def __init__(self, photos: Photos, networks: Sequence[Network], folder: Path) -> None:
        self.photos = photos
        self.networks = networks
        self.folder = folder
        self.features: dict[str, dict[str, Tensor]] = {}

    def prepare(self, done: Count) -> None:
        """Compute the features of the photos, or read them where they are kept.

        Raises UserError for a file of features of anything else than these photos.
        """
        for network in self.networks:
            path = self.folder / f"features-{network.label.lower()}.pt"
            kept = read_features(path, network, self.photos) if path.exists() else {}
            wanted = {
                "training": self.photos.training,
                "unseen": self.photos.unseen,
                "mirrored": self.photos.unseen[:COPY_SAMPLES].flip(3),
            }
            for name, images in wanted.items():
                if name not in kept:
                    kept[name] = extract(network, images, done)
            if not path.exists():
                write_features(path, network, self.photos, kept)
            self.features[network.label] = kept

    def floor(self, count: int) -> Figures:
        """Return the figures of unseen photos."""
        features = [kept["unseen"][:count] for kept in self.features.values()]
        return self.figures(self.photos.unseen[:count], features)

    def measure(self, images: Tensor, done: Count) -> tuple[Figures, Tensor]:
        """Return figures of uint8 samples, and the first network's features for `find_copies`."""
        features = [extract(network, images, done) for network in self.networks]
        first = features[0] if features else torch.empty(len(images), 0)
        return self.figures(images, features), first[:COPY_SAMPLES]

    def figures(self, images: Tensor, features: Sequence[Tensor]) -> Figures:
        """Return every figure of uint8 images [N, 3, R, R] with features [N, F] of each network."""
        rows = self.photos.even(len(images))
        found = swd_figures(self.photos.training[rows], images)
        for network, own in zip(self.networks, features, strict=True):
            reals = self.features[network.label]["training"][rows]
            found |= feature_figures(network.label, reals, own)
        return found


@dataclass(frozen=True)
class Measured:
    """A checkpoint, its clock, its figures, and the samples that copies are looked for among."""

    file: Path
    iteration: int
    nimg: int
    figures: Figures
    images: Tensor  # uint8 [N, 3, R, R], at most COPY_SAMPLES
    features: Tensor  # of them [N, F], by the first network; F is 0 where there is none


def swd_figures(reals: Tensor, images: Tensor) -> Figures:
    """Return the sliced Wasserstein distance, mean and at each level."""
    levels = metrics.sliced_wasserstein(reals, images)
    halves = metrics.sliced_wasserstein_of_halves(reals, images)
    values = torch.cat([levels.mean()[None], levels])
    spread = half_width(torch.cat([halves.mean(dim=1, keepdim=True), halves], dim=1))
    sizes = [f"SWD {reals.shape[-1] >> level} px" for level in range(len(levels))]
    return named(["SWD", *sizes], values, spread)


def feature_figures(label: str, reals: Tensor, fakes: Tensor) -> Figures:
    """Return KID (times 1,000), precision and recall on features, and on Inception's also FID."""

    def statistic(a: Tensor, b: Tensor) -> Tensor:
        found = [1000 * metrics.kid(a, b)[None], metrics.precision_recall(a, b)]
        if label == "Inception":
            found.append(metrics.frechet_distance(a, b)[None])
        return torch.cat(found)

    names = [f"KID ({label})", f"precision ({label})", f"recall ({label})", "FID"]
    values = statistic(reals, fakes)
    return named(names[: len(values)], values, interval(statistic, reals, fakes))


def named(names: Sequence[str], values: Tensor, spread: Tensor) -> Figures:
    """Return figures by name."""
    pairs = zip(values.tolist(), spread.tolist(), strict=True)
    return {name: Value(*pair) for name, pair in zip(names, pairs, strict=True)}


def extract(network: Network, images: Tensor, done: Count) -> Tensor:
    """Return the features of uint8 images, telling `done` how many more there are."""
    parts = []
    for batch in images.split(RENDERED_AT_ONCE):
        parts.append(network(batch))
        done(len(batch))
    return torch.cat(parts)


@dataclass(frozen=True)
class Copies:
    """How near each sample is to its nearest training photo, and how near unseen photos are."""

    samples: Tensor  # distances [N]
    which: Tensor  # training photo nearest to each sample [N]
    unseen: Tensor  # distances [M]
    count: int  # samples nearer than `limit`
    limit: float  # which 99 % of the unseen lie beyond

    @property
    def sentence(self) -> str:
        """Return what it comes to."""
        of, by_chance = len(self.samples), round(0.01 * len(self.samples))
        found = f"{self.count:,} of {of:,} samples are closer to a training face than 99 % of "
        found += f"unseen real faces are (by chance: {by_chance:,})"
        seen = metrics.more_than_chance(self.count, of)
        return f"copies: {found}" if seen else f"copies: none seen; {found}"


def find_copies(reference: Reference, measured: Measured, done: Count) -> Copies:
    """Return the copies among samples, by the first network's features.

    Photos are learned mirrored too: a face counts as near as the nearer of itself and its mirror
    image.
    """
    network = reference.networks[0]
    kept = reference.features[network.label]
    mirrored = extract(network, measured.images.flip(3), done)
    samples, which = nearer(measured.features, mirrored, kept["training"])
    count = len(kept["mirrored"])
    unseen, _ = nearer(kept["unseen"][:count], kept["mirrored"], kept["training"])
    closer, limit = metrics.closer_than(samples, unseen)
    return Copies(samples, which, unseen, closer, limit)


def write_pairs(path: Path, samples: Tensor, training: Tensor, copies: Copies) -> None:
    """Write the samples nearest to a training photo, each with that photo to its right."""
    nearest = copies.samples.argsort()[:PAIRS]
    pairs = torch.stack([samples[nearest], training[copies.which[nearest]]], dim=1)
    write_image(grid(pairs.flatten(0, 1), 2 * PAIRS_A_ROW), path)


def nearer(own: Tensor, mirrored: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """Return distance and place of the training features nearest to a face or its mirror image."""
    (a, which_a), (b, which_b) = (metrics.nearest(x, training) for x in (own, mirrored))
    return torch.minimum(a, b), torch.where(a <= b, which_a, which_b)


def read_features(path: Path, network: Network, photos: Photos) -> dict[str, Tensor]:
    """Return the features in a file; raise UserError unless they are of these photos."""
    try:
        stored = checkpoint.read(path)
    except checkpoint.CheckpointError as error:
        raise UserError(f"{printable(path)}: no file of features; remove it") from error
    expected = {"format": CACHE_FORMAT, "network": network.name, "photos": photos.digest}
    for name, want in expected.items():
        have = stored.get(name)
        if type(have) is not type(want) or have != want:
            raise UserError(
                f"{printable(path)}: features of another version or other photos ({brief(have)}); "
                f"expected {want}. Remove the file, or give another --out"
            )
    counts = {"training": len(photos.training), "unseen": len(photos.unseen)}
    counts["mirrored"] = min(COPY_SAMPLES, counts["unseen"])
    features: dict[str, Any] = {name: stored.get(name) for name in counts}
    if not fit(features, counts):
        raise UserError(f"{printable(path)}: damaged features; remove it")
    return features


def fit(features: dict[str, Any], counts: dict[str, int]) -> bool:
    """Return whether all are finite float32 [count, F], with one F."""
    for name, value in features.items():
        if not isinstance(value, Tensor) or value.dtype != torch.float32 or value.ndim != 2:
            return False
        if len(value) != counts[name] or not value.isfinite().all():
            return False
    return len({value.shape[1] for value in features.values()}) == 1


def write_features(
    path: Path, network: Network, photos: Photos, features: dict[str, Tensor]
) -> None:
    """Keep features for the next time; never half a file."""
    head = {"format": CACHE_FORMAT, "network": network.name, "photos": photos.digest}
    checkpoint.write(path, {**head, **features})
