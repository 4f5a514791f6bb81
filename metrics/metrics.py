"""How near generated pictures are to real ones: pure functions of images or of their features.

Images are uint8 [N, 3, R, R]; features are float [N, F], of whatever network, see features.py.
Every distance is lower for nearer sets and is not zero for two sets of reals: compare it with its
floor, reals against other reals of the same count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.cli import UserError

PATCH_PX = 7  # this and the three below: Karras et al. 2018, sec. 5 and the official code
PATCHES = 128  # of an image, at each level of the pyramid
DIRECTIONS = 512
SMALLEST_LEVEL = 16  # px
ROUGH_DIRECTIONS = 64  # where only the spread of the distance is wanted
NEIGHBOURS = 3  # k of Kynkäänniemi et al. 2019, sec. 3.1
HALVES = 10  # that an interval is from
T_95 = 2.262  # of Student's distribution with HALVES - 1 degrees of freedom
LEAST = 100  # images of each set, below which no figure means anything
ROWS = 1000  # of a matrix of distances that are held at once


class Value(NamedTuple):
    """A figure and how far up and down its 95 % interval reaches."""

    value: float
    interval: float


Figures = dict[str, Value]


def require(count: int, what: str) -> None:
    """Raise UserError if `count` images are too few."""
    if count < LEAST:
        raise UserError(f"{count} {what}; expected at least {LEAST}, or no figure means anything")


def interval(statistic: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Return how far up and down the 95 % interval reaches of each of `statistic(a, b)` [K]."""
    return half_width(of_halves(statistic, a, b))


def of_halves(statistic: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """Return `statistic` of random halves of both sets: [HALVES, K].

    A bootstrap without replacement: the spread over halves is that of the whole sets' figure (for
    a mean exactly; Shao and Wu 1989), and no image comes twice, which would spoil nearest
    neighbours and unbiased estimates. Sets of the same sizes are halved alike.
    """
    rng = torch.Generator().manual_seed(0)
    values = []
    for _ in range(HALVES):
        half_a, half_b = (
            torch.randperm(len(x), generator=rng)[: len(x) // 2].sort().values for x in (a, b)
        )
        values.append(statistic(a[half_a], b[half_b]))
    return torch.stack(values)


def half_width(values: Tensor) -> Tensor:
    """Return how far the 95 % interval reaches of figures whose halves gave values [HALVES, K]."""
    return T_95 * values.std(dim=0)


def sliced_wasserstein(reals: Tensor, fakes: Tensor, directions: int = DIRECTIONS) -> Tensor:
    """Return the distance at each level of a Laplacian pyramid, largest first, times 1,000.

    Levels go from R down to 16 px (from 8 px: that one alone). Karras et al. 2018, sec. 5:
    patches of 7 x 7 px, normalised per colour, their sliced Wasserstein distance. As many reals
    as fakes are compared. Raises UserError below 8 px.
    """
    levels = patch_levels(reals, fakes, directions)
    return 1000 * torch.stack([sliced_distance(a, b, axes) for a, b, axes in levels])


def sliced_wasserstein_of_halves(reals: Tensor, fakes: Tensor) -> Tensor:
    """Return what `of_halves` gives for the distances, more quickly: [HALVES, levels].

    Patches are taken once, and few axes: the spread is wanted, not the value.
    """
    found = []
    for a, b, axes in patch_levels(reals, fakes, ROUGH_DIRECTIONS):
        found.append(of_halves(partial(sliced_distance, axes=axes), a, b))
    return 1000 * torch.stack(found, dim=1)


def patch_levels(
    reals: Tensor, fakes: Tensor, directions: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield for each level patches of reals and fakes [N, 128, 3, 7, 7], and axes [147, D]."""
    if reals.shape[-1] <= PATCH_PX:
        raise UserError(
            f"the sliced Wasserstein distance needs images of 8 px; they have {reals.shape[-1]}"
        )
    rng = torch.Generator().manual_seed(0)
    count = min(len(reals), len(fakes))
    pyramids = (laplacian_pyramid(images[:count]) for images in (reals, fakes))
    for level_reals, level_fakes in zip(*pyramids, strict=True):
        a, b = patches(level_reals, rng), patches(level_fakes, rng)
        yield a, b, unit_axes(a[0, 0].numel(), directions, rng)


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Return what each halving takes away, largest first, and last what remains (16 px or R)."""
    levels, here = [], images.float()
    while here.shape[-1] > SMALLEST_LEVEL:
        smaller = binomial_filter(here)[..., ::2, ::2]
        spread = torch.zeros_like(here)
        spread[..., ::2, ::2] = 4 * smaller
        levels.append(here - binomial_filter(spread))
        here = smaller
    return [*levels, here]


def binomial_filter(images: Tensor) -> Tensor:
    """Return images through [1, 4, 6, 4, 1] / 16 both ways, mirrored beyond the border."""
    taps = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    kernel = (taps[:, None] * taps).expand(images.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=images.shape[1])


def patches(images: Tensor, rng: torch.Generator) -> Tensor:
    """Return 128 random 7 x 7 patches of each image [N, C, R, R]: [N, 128, C, 7, 7]."""
    n, _, side, _ = images.shape
    windows = images.unfold(2, PATCH_PX, 1).unfold(3, PATCH_PX, 1)  # a view [N, C, h, w, 7, 7]
    places = torch.randint(side - PATCH_PX + 1, (2, n, PATCHES), generator=rng)
    image = torch.arange(n)[:, None]
    return windows[image, :, places[0], places[1]]


def unit_axes(features: int, count: int, rng: torch.Generator) -> Tensor:
    """Return random directions of unit length: [features, count]."""
    return F.normalize(torch.randn(features, count, generator=rng), dim=0)


def normalised(found: Tensor) -> Tensor:
    """Return patches [N, P, C, 7, 7] with each colour's mean 0 and deviation 1: [N * P, C * 49]."""
    mean = found.mean(dim=(0, 1, 3, 4), keepdim=True)
    std = found.std(dim=(0, 1, 3, 4), keepdim=True, correction=0).clamp(min=1e-8)
    return ((found - mean) / std).flatten(2).flatten(0, 1)


def sliced_distance(reals: Tensor, fakes: Tensor, axes: Tensor) -> Tensor:
    """Return the mean over `axes` [C * 49, D] of W1 between patches [N, P, C, 7, 7] along them."""
    a, b = normalised(reals), normalised(fakes)
    return torch.stack([along(a @ v, b @ v) for v in axes.split(64, dim=1)]).mean()


def along(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean over D axes of W1 between coordinates a and b [N, D]."""
    return (ascending(a) - ascending(b)).abs().mean()


def ascending(values: Tensor) -> Tensor:
    """Return each column of values [N, D] in ascending order, as rows [D, N].

    By numpy, whose vectorised sort takes 10 ms for 640,000 numbers, torch's 180 ms.
    """
    return torch.from_numpy(np.sort(values.T.contiguous().numpy(), axis=1))


def kid(reals: Tensor, fakes: Tensor) -> Tensor:
    """Return the unbiased squared MMD with the kernel (x . y / F + 1)^3, which may be negative.

    Binkowski et al. 2018, sec. 3 and eq. 4; on all pairs, not on subsets, whose mean it is.
    """
    n, m = len(reals), len(fakes)
    within_reals = kernel_sum(reals, reals) - diagonal_sum(reals)
    within_fakes = kernel_sum(fakes, fakes) - diagonal_sum(fakes)
    between = kernel_sum(reals, fakes)
    return within_reals / (n * (n - 1)) + within_fakes / (m * (m - 1)) - 2 * between / (n * m)


def kernel_sum(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of the polynomial kernel over all pairs, in float64."""
    sums = [(rows @ b.T / b.shape[1] + 1).pow(3).sum(dtype=torch.float64) for rows in a.split(ROWS)]
    return torch.stack(sums).sum()


def diagonal_sum(a: Tensor) -> Tensor:
    """Return the sum of the kernel over pairs of each row with itself."""
    return (a.square().sum(dim=1) / a.shape[1] + 1).pow(3).sum(dtype=torch.float64)


def frechet_distance(reals: Tensor, fakes: Tensor) -> Tensor:
    """Return the Fréchet distance of two Gaussians fitted to features (Heusel et al. 2017, eq. 6).

    On Inception's features this is FID. It is biased: higher for fewer images.
    """
    a, b = reals.double(), fakes.double()
    difference = a.mean(dim=0) - b.mean(dim=0)
    cov_a, cov_b = a.T.cov(), b.T.cov()
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # tr (A B)^(1/2) = tr (A^(1/2) B A^(1/2))^(1/2), of a symmetric matrix.
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return difference.square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross


def precision_recall(reals: Tensor, fakes: Tensor) -> Tensor:
    """Return precision and recall [2], each in [0, 1] and better if higher.

    The share of fakes within the balls of reals, and of reals within those of fakes; each ball
    reaches to the third nearest of its own set (Kynkäänniemi et al. 2019, eqs. 1 and 2).
    """
    return torch.stack([share_within(fakes, reals), share_within(reals, fakes)])


def share_within(points: Tensor, centres: Tensor) -> Tensor:
    """Return the share of `points` in a ball about any of `centres`."""
    radii = torch.cat(
        [
            distances(rows, centres).topk(NEIGHBOURS + 1, largest=False).values[:, -1]
            for rows in centres.split(ROWS)
        ]
    )  # fmt: skip - each centre is its own nearest: hence one more
    inside = [(distances(rows, centres) <= radii).any(dim=1) for rows in points.split(ROWS)]
    return torch.cat(inside).double().mean()


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the Euclidean distances [N, M] of rows."""
    return torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist")


def nearest(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance to the nearest of `others` for each point, and which it is."""
    found = [distances(rows, others).min(dim=1) for rows in points.split(ROWS)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def closer_than(samples: Tensor, unseen: Tensor, share: float = 0.01) -> tuple[int, float]:
    """Return how many distances lie below the `share` quantile of `unseen`, and that quantile.

    With distances to the nearest training face this counts memorised samples: where the
    generator copies as little as life does, it is about `share` of them.
    """
    limit = unseen.double().quantile(share).item()
    return int((samples < limit).sum()), limit


def more_than_chance(count: int, of: int, share: float = 0.01) -> bool:
    """Return whether `count` of `of` is above what `share` gives in 99 of 100 cases."""
    tail = sum(math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(min(count, of)))
    return count > 0 and tail > 0.99
