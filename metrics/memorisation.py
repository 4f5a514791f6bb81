"""Whether samples copy training photos, from the distance of each to its nearest photo."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.images import grid, write_image
from metrics import metrics
from metrics.evaluation import CheckpointMetrics, Evaluator, Progress, extract
from metrics.features import Network

BY_CHANCE = 0.01  # share of new faces that count as copies
PAIRS = 32  # samples on the sheet, each beside its photo
PAIRS_A_ROW = 4


@dataclass(frozen=True)
class Memorisation:
    """How near samples and unseen photos are to their nearest training photos."""

    network: str  # label of the one whose features are compared
    distances: Tensor  # of samples [N]
    nearest: Tensor  # index of the training photo nearest to each sample [N]
    unseen_distances: Tensor  # of unseen photos [M]
    threshold: float  # distance that 99 % of unseen photos exceed
    count: int  # samples nearer than that

    @property
    def sentence(self) -> str:
        """Return the line to report."""
        of, by_chance = len(self.distances), round(BY_CHANCE * len(self.distances))
        found = f"{self.count:,} of {of:,} samples are closer to a training face than 99 % of "
        found += f"unseen real faces are (by chance: {by_chance:,})"
        seen = "" if more_than_chance(self.count, of) else "none seen; "
        return f"copies ({self.network}): {seen}{found}"


def find_copies(
    evaluator: Evaluator, measured: CheckpointMetrics, progress: Progress
) -> list[Memorisation]:
    """Return how near samples are to training photos, by the face network and by Inception.

    Without them it is by the last network there is, if any. Training mirrors photos at random, so
    a face is as near as the nearer of itself and its mirror image.
    """
    networks = [each for each in evaluator.networks if each.frechet] or evaluator.networks[-1:]
    return [nearness(evaluator, each, measured, progress) for each in reversed(networks)]


def nearness(
    evaluator: Evaluator, network: Network, measured: CheckpointMetrics, progress: Progress
) -> Memorisation:
    """Return how near samples are to training photos by the features of one network."""
    photos = evaluator.features[network.label]
    mirrored = extract(network, measured.samples.flip(3), progress)
    own = measured.features[network.label]
    samples, which = nearest_mirrored(own, mirrored, photos["training"])
    count = len(photos["mirrored"])
    unseen, _ = nearest_mirrored(photos["unseen"][:count], photos["mirrored"], photos["training"])
    return Memorisation(network.label, samples, which, unseen, *closer_than(samples, unseen))


def nearest_mirrored(own: Tensor, mirrored: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """Return distance and index of the training photo nearest to each face or its mirror image."""
    (a, which_a), (b, which_b) = (metrics.nearest(x, training) for x in (own, mirrored))
    return torch.minimum(a, b), torch.where(a <= b, which_a, which_b)


def closer_than(samples: Tensor, unseen: Tensor) -> tuple[float, int]:
    """Return the 1 % quantile of the distances of unseen photos, and how many samples are below.

    A generator that copies no more than real faces resemble each other has about 1 % below.
    """
    threshold = unseen.double().quantile(BY_CHANCE).item()
    return threshold, int((samples < threshold).sum())


def more_than_chance(count: int, of: int) -> bool:
    """Return whether `count` of `of` at 1 % each is more than chance gives in 99 of 100 cases."""
    p = BY_CHANCE
    below = sum(math.comb(of, k) * p**k * (1 - p) ** (of - k) for k in range(min(count, of)))
    return count > 0 and below > 0.99


def write_pairs(path: Path, samples: Tensor, training: Tensor, copies: Memorisation) -> None:
    """Write the samples nearest to a training photo, each with that photo to its right."""
    nearest = copies.distances.argsort()[:PAIRS]
    pairs = torch.stack([samples[nearest], training[copies.nearest[nearest]]], dim=1)
    write_image(grid(pairs.flatten(0, 1), 2 * PAIRS_A_ROW), path)
