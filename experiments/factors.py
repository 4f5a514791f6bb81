"""Drawn faces with what was drawn into them, and a small network that reads it from a picture.

The factors are columns of the faces.csv that demo/draw_faces.py writes. A colour has three columns,
every other factor one.
"""

from __future__ import annotations

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

LONG = {"long", "bob"}  # hair styles that show beside the face
COLUMNS = {  # factor -> its columns
    "pose": 1, "smile": 1, "glasses": 1, "hat": 1, "long hair": 1, "age": 1, "skin": 1,
    "hair colour": 3, "background": 3,
}  # fmt: skip
SIZE = 64  # px of what the reader reads
CHANNELS = (3, 32, 64, 96, 128)
BATCH, RATE = 64, 2e-3
NOISE = 0.1  # standard deviation, on [-1, 1], of what generated pictures may have and drawn do not


class Drawn(NamedTuple):
    """Pictures uint8 [N, 3, 64, 64], and their factors [N, columns]."""

    pictures: Tensor
    factors: Tensor

    def part(self, rows: Tensor) -> Drawn:
        """Return some of them."""
        return Drawn(self.pictures[rows], self.factors[rows])


def read_table(path: Path) -> dict[str, list[float]]:
    """Return the columns of each picture that a faces.csv lists.

    Raises OSError, KeyError or ValueError.
    """
    with open(path, newline="", encoding="utf-8") as file:
        return {row["file"]: columns_of(row) for row in csv.DictReader(file)}


def columns_of(row: dict[str, str]) -> list[float]:
    """Return the columns of a row of faces.csv: numbers as they are, colours in 0..1."""
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
    """Return which columns are those of a factor."""
    before = list(COLUMNS)[: list(COLUMNS).index(factor)]
    start = sum(COLUMNS[name] for name in before)
    return slice(start, start + COLUMNS[factor])


class Reader(nn.Module):
    """A network that reads the factors from pictures."""

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        columns = sum(COLUMNS.values())
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("spread", torch.ones(columns))
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(CHANNELS):
            layers += [nn.Conv2d(c_in, c_out, 3, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU()]
        side = SIZE >> len(CHANNELS) - 1
        hidden = 256
        layers += [nn.Flatten(), nn.Linear(CHANNELS[-1] * side**2, hidden), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, columns))

    def forward(self, x: Tensor) -> Tensor:
        """Return factors [N, columns], in standard deviations from their mean, of x in [-1, 1]."""
        return self.layers(x)

    @torch.no_grad()
    def read(self, pictures: Tensor) -> Tensor:
        """Return the factors [N, columns], in their own units, of uint8 pictures [N, 3, 64, 64]."""
        self.eval()
        read = [self(to_float(batch)) for batch in pictures.split(BATCH)]
        return torch.cat(read) * self.spread + self.mean


def train_reader(
    drawn: Drawn, epochs: int, seed: int, done: Callable[[int], object] = int
) -> Reader:
    """Return a reader that has learned from `drawn`; `done` is told each batch's size.

    Pictures are mirrored, blurred and made noisy at random: generated ones are softer and rougher.
    """
    torch.manual_seed(seed)
    reader = Reader()
    reader.mean.copy_(drawn.factors.mean(0))
    reader.spread.copy_(drawn.factors.std(0).clamp(min=1e-6))
    targets = (drawn.factors - reader.mean) / reader.spread
    steps = epochs * (len(targets) // BATCH)
    adam = torch.optim.Adam(reader.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, total_steps=steps)
    for step in range(steps):
        if step % (len(targets) // BATCH) == 0:
            order = torch.randperm(len(targets))
        rows = order[step * BATCH % (len(order) // BATCH * BATCH) :][:BATCH]
        x, y = worn(to_float(drawn.pictures[rows]), targets[rows], reader)
        loss = F.mse_loss(reader(x), y)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
        done(len(rows))
    return reader


def worn(x: Tensor, y: Tensor, reader: Reader) -> tuple[Tensor, Tensor]:
    """Return half of the pictures x mirrored, half blurred, all with noise, and their targets."""
    mirrored, blurred = (torch.rand(len(x)) < 0.5 for _ in range(2))
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    at = span("pose")  # whose sign a mirror turns
    y = y.clone()
    y[mirrored, at] = -y[mirrored, at] - 2 * reader.mean[at] / reader.spread[at]
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.where(blurred[:, None, None, None], soft, x)
    return x + NOISE * torch.rand(len(x), 1, 1, 1) * torch.randn_like(x), y


@dataclass(frozen=True)
class Reading:
    """How well a factor is read: the share of its variance that is, NaN where it has none.

    `error` and `spread` are the root mean square error and the factor's standard deviation, in its
    own unit.
    """

    explained: float
    error: float
    spread: float


def examine(reader: Reader, drawn: Drawn) -> dict[str, Reading]:
    """Return how well each factor of pictures that the reader has not seen is read."""
    wrong = reader.read(drawn.pictures) - drawn.factors
    around = drawn.factors - drawn.factors.mean(0)
    found = {}
    for factor in COLUMNS:
        at = span(factor)
        spread = around[:, at].square().mean().sqrt().item()
        error = wrong[:, at].square().mean().sqrt().item()
        found[factor] = Reading(1 - (error / spread) ** 2 if spread else math.nan, error, spread)
    return found


class Origins(NamedTuple):
    """Of whom a factor of the third faces is, at each border: shares [borders] of A and of B.

    `half` is half the 95 % interval of A's share. What neither gives is what the two shares leave.
    """

    a: Tensor
    b: Tensor
    half: Tensor


def origins(a: Tensor, b: Tensor, thirds: Tensor, samples: int, seed: int) -> Origins:
    """Return of whom the factor read as `thirds` [borders, N, columns] is.

    `a` and `b` [N, columns] are the factor as read from the N pairs of faces themselves. At each
    border the shares are alpha and beta of the least-squares c = alpha a + beta b, each about its
    mean; the interval is a bootstrap's over the pairs.
    """
    a, b, c = (part.double() - part.double().mean(-2, keepdim=True) for part in (a, b, thirds))
    products = torch.stack([(x * y).sum(1) for x, y in ((a, a), (a, b), (b, b))])  # [3, N]
    with_c = torch.stack([(c * x).sum(2) for x in (a, b)])  # [2, borders, N]
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(a), (samples, len(a)), generator=rng)
    counts = torch.stack([torch.bincount(rows, minlength=len(a)) for rows in drawn])
    counts = torch.cat([torch.ones(1, len(a)), counts]).double()
    aa, ab, bb = (products @ counts.T)[:, None]  # [1, 1 + samples] each
    ca, cb = with_c @ counts.T  # [borders, 1 + samples] each
    whole = aa * bb - ab.square()
    alpha, beta = (ca * bb - cb * ab) / whole, (cb * aa - ca * ab) / whole
    return Origins(alpha[:, 0], beta[:, 0], 1.96 * alpha[:, 1:].std(1))


def agreement(one: Tensor, other: Tensor) -> float:
    """Return the correlation of two readings [N, columns] of the same faces."""
    one, other = (part - part.mean(0) for part in (one, other))
    scale = (one.square().sum() * other.square().sum()).sqrt().clamp(min=1e-12)
    return ((one * other).sum() / scale).item()
