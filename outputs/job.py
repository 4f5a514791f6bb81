"""What there is to draw: the faces asked for, where pictures go, and the bar that moves."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from sampling.latents import Latents
from sampling.sampler import Faces


@dataclass(frozen=True)
class Job:
    """What to draw with, what was asked for, where it goes, and the bar that moves with it."""

    faces: Faces
    args: argparse.Namespace
    out: Path
    bar: tqdm[Any]

    latents: Latents | None = None  # what --w_in holds, in place of the seeds

    def some(self, numbers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Return styles and noise of some of the faces asked for: of --w_in, else of seeds."""
        if self.latents:
            chosen = torch.as_tensor(numbers)
            return self.latents.ws[chosen], [maps[chosen] for maps in self.latents.noise]
        return self.faces.ws(numbers, self.args.psi), self.faces.noise(numbers)

    def path(self, name: str) -> Path:
        """Return the path of a picture about to be written; its folder is there from now on."""
        self.out.mkdir(parents=True, exist_ok=True)
        return self.out / name

    def single(self, number: int) -> str:
        """Return the file name of one picture of --singles."""
        return f"{'face' if self.latents else 'seed'}{number:04d}.png"

    def label(self, number: int) -> str:
        """Return what one of the faces asked for is called on a sheet."""
        return f"{'face' if self.latents else 'seed'} {number}"

    def render(self, ws: Tensor, noise: list[Tensor]) -> Iterator[Tensor]:
        """Yield uint8 images batch by batch, as Faces.render does; they share one noise."""
        for batch in ws.split(self.faces.batch):
            yield self.faces.render(batch, noise)
            self.bar.update(len(batch))
