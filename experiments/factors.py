"""Drawn faces with their factors, and a small network that reads the factors from an image.

The factors are the columns of faces.csv, which demo/draw_faces.py writes. Here a colour has three
columns and every other factor has one.
"""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.images import to_float

LONG = {"long", "bob"}  # hair styles that are visible beside the face
COLUMNS = {  # factor -> its columns
    "pose": 1, "smile": 1, "glasses": 1, "hat": 1, "long hair": 1, "age": 1, "skin": 1,
    "hair colour": 3, "background": 3,
}  # fmt: skip
RESOLUTION = 64  # px
CHANNELS = (3, 32, 64, 96, 128)
HIDDEN = 256
BATCH, LR = 64, 2e-3
NOISE = (
    0.1  # largest standard deviation, on [-1, 1]: generated images have noise, drawn ones do not
)


class DrawnFaces(NamedTuple):
    """Images uint8 [N, 3, 64, 64] and their factors [N, columns]."""

    images: Tensor
    factors: Tensor

    def select(self, rows: Tensor) -> "DrawnFaces":
        """Return the faces with these indices, or where a mask is true."""
        return DrawnFaces(self.images[rows], self.factors[rows])


def read_table(path: Path) -> dict[str, list[float]]:
    """Return the columns of each image listed in a faces.csv, by its file name.

    Raises OSError, KeyError or ValueError.
    """
    with open(path, newline="", encoding="utf-8") as file:
        return {row["file"]: columns_of(row) for row in csv.DictReader(file)}


def columns_of(row: dict[str, str]) -> list[float]:
    """Return the columns of a row of faces.csv: colours in 0..1, other numbers unchanged."""
    found: list[float] = []
    for factor in COLUMNS:
        if factor == "long hair":
            found.append(float(row["hair_style"] in LONG))
        elif COLUMNS[factor] == 3:
            text = row[factor.removesuffix(" colour")]
            found += [int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        else:
            found.append(float(row[factor]))
    return found


def span(factor: str) -> slice:
    """Return the columns of a factor."""
    before = list(COLUMNS)[: list(COLUMNS).index(factor)]
    start = sum(COLUMNS[name] for name in before)
    return slice(start, start + COLUMNS[factor])


class Reader(nn.Module):
    """A network that reads the factors from images."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        columns = sum(COLUMNS.values())
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("std", torch.ones(columns))
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(CHANNELS):
            layers += [nn.Conv2d(c_in, c_out, 3, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU()]
        side = RESOLUTION >> len(CHANNELS) - 1
        layers += [nn.Flatten(), nn.Linear(CHANNELS[-1] * side**2, HIDDEN), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(HIDDEN, columns))

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised factors [N, columns] of x in [-1, 1], [N, 3, 64, 64]."""
        return self.layers(x)

    @torch.no_grad()
    def read(self, images: Tensor) -> Tensor:
        """Return the factors [N, columns], in their own units, of uint8 images [N, 3, 64, 64]."""
        self.eval()
        read = [self(to_float(batch)) for batch in images.split(BATCH)]
        return torch.cat(read) * self.std + self.mean


def train_reader(
    drawn: DrawnFaces, epochs: int, seed: int, progress: Callable[[int], object] = int
) -> Reader:
    """Return a reader trained on `drawn`; `progress` is called with the size of each batch.

    Images are mirrored, blurred and made noisy at random, since generated ones are both softer and
    noisier than drawn ones.
    """
    torch.manual_seed(seed)
    reader = Reader()
    reader.mean.copy_(drawn.factors.mean(0))
    reader.std.copy_(drawn.factors.std(0).clamp(min=1e-6))
    targets = (drawn.factors - reader.mean) / reader.std
    steps = epochs * (len(targets) // BATCH)
    adam = torch.optim.Adam(reader.parameters(), LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, LR, total_steps=steps)
    for step in range(steps):
        if step % (len(targets) // BATCH) == 0:
            order = torch.randperm(len(targets))
        rows = order[step * BATCH % (len(order) // BATCH * BATCH) :][:BATCH]
        x, y = augment(to_float(drawn.images[rows]), targets[rows], reader)
        loss = F.mse_loss(reader(x), y)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        progress(len(rows))
    return reader


def augment(x: Tensor, y: Tensor, reader: Reader) -> tuple[Tensor, Tensor]:
    """Return images x, half of them mirrored, half blurred and all with noise, and their targets.

    y are standardised factors.
    """
    mirrored, blurred = (torch.rand(len(x)) < 0.5 for _ in range(2))
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    at = span("pose")  # changes its sign in a mirror
    y = y.clone()
    y[mirrored, at] = -y[mirrored, at] - 2 * reader.mean[at] / reader.std[at]
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.where(blurred[:, None, None, None], soft, x)
    return x + NOISE * torch.rand(len(x), 1, 1, 1) * torch.randn_like(x), y


@dataclass(frozen=True)
class ReaderScore:
    """How well a factor is read: R², NaN for a factor that does not vary.

    `error` (root mean square) and `std`, the factor's standard deviation, are in its own unit.
    """

    r2: float
    error: float
    std: float


def score_reader(reader: Reader, drawn: DrawnFaces) -> dict[str, ReaderScore]:
    """Return how well the reader reads each factor of faces that it was not trained on."""
    errors = reader.read(drawn.images) - drawn.factors
    deviations = drawn.factors - drawn.factors.mean(0)
    scores = {}
    for factor in COLUMNS:
        at = span(factor)
        std = deviations[:, at].square().mean().sqrt().item()
        error = errors[:, at].square().mean().sqrt().item()
        scores[factor] = ReaderScore(1 - (error / std) ** 2 if std else math.nan, error, std)
    return scores


class Shares(NamedTuple):
    """How much of a factor of the third faces comes from A and from B, at each border: [borders].

    `half_width` is that of the 95 % interval of A's share. What is missing to 1 comes from neither.
    """

    a: Tensor
    b: Tensor
    half_width: Tensor


def fit_shares(a: Tensor, b: Tensor, thirds: Tensor, samples: int, seed: int) -> Shares:
    """Return the shares of A and B in a factor, as read from `thirds` [borders, N, columns].

    `a` and `b` [N, columns] are the factor as read from the N pairs of faces themselves. At each
    border the shares are alpha and beta of the least-squares fit c = alpha a + beta b, all centred.
    The interval is from a bootstrap over the pairs with `samples` resamples.
    """
    a, b, c = (part.double() - part.double().mean(-2, keepdim=True) for part in (a, b, thirds))
    products = torch.stack([(x * y).sum(1) for x, y in ((a, a), (a, b), (b, b))])  # [3, N]
    with_c = torch.stack([(c * x).sum(2) for x in (a, b)])  # [2, borders, N]
    rng = torch.Generator().manual_seed(seed)
    resamples = torch.randint(len(a), (samples, len(a)), generator=rng)
    counts = torch.stack([torch.bincount(rows, minlength=len(a)) for rows in resamples])
    counts = torch.cat([torch.ones(1, len(a)), counts]).double()
    aa, ab, bb = (products @ counts.T)[:, None]  # [1, 1 + samples] each
    ca, cb = with_c @ counts.T  # [borders, 1 + samples] each
    determinant = aa * bb - ab.square()
    alpha, beta = (ca * bb - cb * ab) / determinant, (cb * aa - ca * ab) / determinant
    return Shares(alpha[:, 0], beta[:, 0], 1.96 * alpha[:, 1:].std(1))


def agreement(one: Tensor, other: Tensor) -> float:
    """Return the correlation between two readings [N, columns] of the same faces."""
    one, other = (part - part.mean(0) for part in (one, other))
    scale = (one.square().sum() * other.square().sum()).sqrt().clamp(min=1e-12)
    return ((one * other).sum() / scale).item()
