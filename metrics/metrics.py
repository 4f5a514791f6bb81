"""Metrics of generated images against real ones: pure functions of images or of their features.

Images are uint8 [N, 3, R, R]; features are float [N, F] of any network in features.py. A distance
is lower for more similar sets, but not zero for two sets of reals: compare it with its floor, the
distance between as many other reals and the same ones.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.cli import UserError

PATCH_PX = 7  # this and the three below: Karras et al. 2018, sec. 5 and the official code
PATCHES = 128  # per image and pyramid level
DIRECTIONS = 512
SMALLEST_LEVEL = 16  # px
ROUGH_DIRECTIONS = 64  # enough for the interval of the distance
NEIGHBOURS = 3  # k of Kynkäänniemi et al. 2019, sec. 3.1
HALVES = 10  # random halves behind an interval
T_95 = 2.262  # of Student's distribution with HALVES - 1 degrees of freedom
MIN_IMAGES = 100  # in each set; metrics of fewer mean nothing
ROWS = 1000  # rows of a distance matrix in memory at once


class Estimate(NamedTuple):
    """A metric's value and the half-width of its 95 % interval."""

    value: float
    interval: float


Metrics = dict[str, Estimate]
Values = dict[str, Tensor]  # scalars by the metric's name


def require(count: int, what: str) -> None:
    """Raise UserError if `count` images are too few to measure."""
    if count < MIN_IMAGES:
        raise UserError(f"{count} {what}; expected at least {MIN_IMAGES} for meaningful metrics")


def estimate(statistic: Callable[[Tensor, Tensor], Values], a: Tensor, b: Tensor) -> Metrics:
    """Return each metric in `statistic(a, b)` with its interval."""
    return with_intervals(statistic(a, b), [statistic(*pair) for pair in halves(a, b)])


def halves(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield HALVES random halves of both sets, the same ones for sets of the same sizes.

    A bootstrap without replacement: a metric varies over halves as it does over whole sets (for a
    mean exactly; Shao and Wu 1989). No image is drawn twice, which would spoil nearest neighbours
    and unbiased estimates.
    """
    rng = torch.Generator().manual_seed(0)
    for _ in range(HALVES):
        rows_a, rows_b = (
            torch.randperm(len(x), generator=rng)[: len(x) // 2].sort().values for x in (a, b)
        )
        yield a[rows_a], b[rows_b]


def with_intervals(values: Values, of_halves: Sequence[Values]) -> Metrics:
    """Return each value with the half-width of its 95 % interval, from its values on halves."""
    table = torch.stack([torch.stack([half[name] for name in values]) for half in of_halves])
    widths = T_95 * table.std(dim=0)  # [metrics]
    pairs = zip(values.items(), widths.tolist(), strict=True)
    return {name: Estimate(value.item(), width) for (name, value), width in pairs}


def swd(reals: Tensor, fakes: Tensor) -> Metrics:
    """Return the sliced Wasserstein distance times 1,000: the mean over levels, and each level."""
    resolution = reals.shape[-1]

    def named(levels: Tensor) -> Values:
        by_size = {f"SWD {resolution >> n} px": level for n, level in enumerate(levels)}
        return {"SWD": levels.mean(), **by_size}

    of_halves = [named(levels) for levels in sliced_wasserstein_of_halves(reals, fakes)]
    return with_intervals(named(sliced_wasserstein(reals, fakes)), of_halves)


def sliced_wasserstein(reals: Tensor, fakes: Tensor, directions: int = DIRECTIONS) -> Tensor:
    """Return the distance at each level of a Laplacian pyramid, largest first, times 1,000.

    The levels go from R down to 16 px; images of 8 px have one level. The distance is the sliced
    Wasserstein distance of patches of 7 x 7 px, normalised per colour (Karras et al. 2018, sec. 5).
    As many reals are used as there are fakes, or the reverse. Raises UserError below 8 px.
    """
    levels = patch_levels(reals, fakes, directions)
    return 1000 * torch.stack([sliced_distance(a, b, axes) for a, b, axes in levels])


def sliced_wasserstein_of_halves(reals: Tensor, fakes: Tensor) -> Tensor:
    """Return about `sliced_wasserstein` of each pair of `halves`: [HALVES, levels].

    Patches are drawn only once and fewer directions are used: its variation is what is needed.
    """
    levels = []
    for a, b, axes in patch_levels(reals, fakes, ROUGH_DIRECTIONS):
        levels.append(torch.stack([sliced_distance(x, y, axes) for x, y in halves(a, b)]))
    return 1000 * torch.stack(levels, dim=1)


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
    """Return the detail that each halving removes, largest first, and what is left: 16 px or R."""
    levels, here = [], images.float()
    while here.shape[-1] > SMALLEST_LEVEL:
        smaller = binomial_filter(here)[..., ::2, ::2]
        upsampled = torch.zeros_like(here)
        upsampled[..., ::2, ::2] = 4 * smaller
        levels.append(here - binomial_filter(upsampled))
        here = smaller
    return [*levels, here]


def binomial_filter(images: Tensor) -> Tensor:
    """Return images filtered with [1, 4, 6, 4, 1] / 16 along both axes, reflected at borders."""
    taps = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    kernel = (taps[:, None] * taps).expand(images.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=images.shape[1])


def patches(images: Tensor, rng: torch.Generator) -> Tensor:
    """Return 128 random 7 x 7 patches of each image [N, C, R, R]: [N, 128, C, 7, 7]."""
    n, _, side, _ = images.shape
    windows = images.unfold(2, PATCH_PX, 1).unfold(3, PATCH_PX, 1)  # a view [N, C, h, w, 7, 7]
    rows, columns = torch.randint(side - PATCH_PX + 1, (2, n, PATCHES), generator=rng)
    return windows[torch.arange(n)[:, None], :, rows, columns]


def unit_axes(features: int, count: int, rng: torch.Generator) -> Tensor:
    """Return `count` random directions of unit length: [features, count]."""
    return F.normalize(torch.randn(features, count, generator=rng), dim=0)


def normalised(patches: Tensor) -> Tensor:
    """Return patches [N, P, C, 7, 7] as [N * P, C * 49], each colour of mean 0 and deviation 1."""
    mean = patches.mean(dim=(0, 1, 3, 4), keepdim=True)
    std = patches.std(dim=(0, 1, 3, 4), keepdim=True, correction=0).clamp(min=1e-8)
    return ((patches - mean) / std).flatten(2).flatten(0, 1)


def sliced_distance(reals: Tensor, fakes: Tensor, axes: Tensor) -> Tensor:
    """Return the mean over `axes` [C * 49, D] of W1 between projected patches [N, P, C, 7, 7]."""
    a, b = normalised(reals), normalised(fakes)
    return torch.stack([mean_w1(a @ v, b @ v) for v in axes.split(64, dim=1)]).mean()


def mean_w1(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean over D axes of W1 between coordinates a and b [N, D]."""
    return (ascending(a) - ascending(b)).abs().mean()


def ascending(values: Tensor) -> Tensor:
    """Return each column of values [N, D] in ascending order, as rows [D, N].

    Sorted by numpy: its vectorised sort takes 10 ms for 640,000 numbers where torch takes 180 ms.
    """
    return torch.from_numpy(np.sort(values.T.contiguous().numpy(), axis=1))


def kid(reals: Tensor, fakes: Tensor) -> Tensor:
    """Return the unbiased squared MMD with the kernel (x . y / F + 1)^3, which may be negative.

    Binkowski et al. 2018, sec. 3 and eq. 4, over all pairs rather than a mean over subsets.
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
    """Return the sum of the kernel over the pairs of a row with itself, in float64."""
    return (a.square().sum(dim=1) / a.shape[1] + 1).pow(3).sum(dtype=torch.float64)


def frechet_distance(reals: Tensor, fakes: Tensor) -> Tensor:
    """Return the Fréchet distance of two Gaussians fitted to features (Heusel et al. 2017, eq. 6).

    On Inception's features this is FID. It is biased upwards, more so for fewer images.
    """
    a, b = reals.double(), fakes.double()
    difference = a.mean(dim=0) - b.mean(dim=0)
    root_a, root_b = root_of_covariance(a), root_of_covariance(b)
    # tr (A B)^(1/2) with A = R'R and B = S'S is the sum of the singular values of R S'.
    cross = torch.linalg.svdvals(root_a @ root_b.T).sum()
    spread = root_a.square().sum() + root_b.square().sum()
    return difference.square().sum() + spread - 2 * cross


def root_of_covariance(features: Tensor) -> Tensor:
    """Return R with R'R the covariance of features [N, F]; R is [N or F, F], whichever is less."""
    centred = (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
    few = len(features) <= features.shape[1]
    return centred if few else torch.linalg.qr(centred, mode="r").R


def precision_recall(reals: Tensor, fakes: Tensor) -> Tensor:
    """Return precision and recall [2], each in [0, 1], higher is better.

    Precision is the share of fakes inside the balls around reals, recall that of reals inside the
    balls around fakes. A ball reaches to the third nearest neighbour in its own set (Kynkäänniemi
    et al. 2019, eqs. 1 and 2).
    """
    return torch.stack([share_within(fakes, reals), share_within(reals, fakes)])


def share_within(points: Tensor, centres: Tensor) -> Tensor:
    """Return the share of `points` inside the ball around any of `centres`."""
    radii = torch.cat(
        [
            distances(rows, centres).topk(NEIGHBOURS + 1, largest=False).values[:, -1]
            for rows in centres.split(ROWS)
        ]
    )  # fmt: skip - one more, as each centre is its own nearest
    inside = [(distances(rows, centres) <= radii).any(dim=1) for rows in points.split(ROWS)]
    return torch.cat(inside).double().mean()


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the Euclidean distances [N, M] between the rows of a and b."""
    return torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist")


def nearest(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance of each point to the nearest of `others`, and that one's index."""
    found = [distances(rows, others).min(dim=1) for rows in points.split(ROWS)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
