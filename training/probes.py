"""best.pt: of all that a run measures, the generator whose samples are nearest to the photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from checkpoints import checkpoint
from checkpoints.run_folder import BEST
from common.cli import PSI
from common.images import grid, shrink, to_float, to_uint8
from dataset import ImageBank
from metrics.metrics import require, sliced_wasserstein
from model import Generator, Stage
from training.state import TrainState

PHOTOS = 128  # whose differences are the measure of variety
SAMPLES = 16
COARSE = 8  # px: below, differences are of faces and colours; noise and sharpness do not count
GRID = (4, 8)  # rows and columns of a sample grid
IMAGES = 1000  # that are compared, at most
AT_ONCE = 50
DIRECTIONS = 128  # a quarter of the paper's: a distance takes about 4 s of one core


class SampleSheet:
    """The same faces from first to last: z and noise are drawn once, from the run's seed."""

    def __init__(self, G: Generator, seed: int, device: torch.device) -> None:
        n_row, self.n_col = GRID
        rng = torch.Generator(device).manual_seed(seed)
        self.z = torch.randn(n_row * self.n_col, G.config.z_dim, generator=rng, device=device)
        self.noise = G.draw_noise(len(self.z), G.config.resolution, rng)
        self.resolution = G.config.resolution

    @torch.no_grad()
    def draw(self, G: Generator, stage: Stage, dtype: torch.dtype) -> Image.Image:
        """Return the sheet at the largest resolution, whatever the stage's is.

        Truncated as generate.py's are by default: what is seen here is what one gets there.
        """
        ws = G.truncate(G.broadcast(G.mapping(self.z)), PSI)
        images = G.synthesis(ws, stage, self.noise, dtype)
        times = self.resolution // stage.resolution
        return grid(
            to_uint8(images).repeat_interleave(times, 2).repeat_interleave(times, 3), self.n_col
        )


class Best:
    """Measures G_ema by the sliced Wasserstein distance and keeps the one with the lowest.

    Random numbers are its own and the same each time: training goes on as if it were not there.
    Raises UserError for too few photos, or photos below 8 px.
    """

    def __init__(self, folder: Path, bank: ImageBank, G: Generator) -> None:
        require(bank.count, "training photos")
        count = min(IMAGES, bank.count)
        chosen = np.linspace(0, bank.count - 1, count).round().astype(int)
        self.reals = bank.take(chosen).cpu()
        sliced_wasserstein(self.reals[:1], self.reals[:1], directions=1)  # too small is told now
        self.path = folder / BEST
        rng = torch.Generator(G.w_avg.device).manual_seed(0)
        self.z = torch.randn(count, G.config.z_dim, generator=rng, device=rng.device)
        self.lowest = float("inf")
        if self.path.exists():
            self.lowest = float(checkpoint.load(self.path).get("swd", "inf"))

    def measure(self, state: TrainState, stage: Stage, dtype: torch.dtype) -> float:
        """Return the distance, in thousandths, of samples of `stage`; keep G_ema if it is lower."""
        distance = self.distance(state.G_ema, stage, dtype)
        if distance < self.lowest:
            entries = {name: state.entries()[name] for name in ("G_ema", "iteration", "nimg")}
            entries |= {"stage": list(stage), "swd": distance}
            checkpoint.save(self.path, state.config, entries)
            self.lowest = distance
        return distance

    def distance(self, G: Generator, stage: Stage, dtype: torch.dtype) -> float:
        """Return the distance, in thousandths, between photos and samples of `stage`."""
        samples = self.samples(G, stage, dtype)
        return sliced_wasserstein(self.reals, samples, DIRECTIONS).mean().item()

    @torch.no_grad()
    def samples(self, G: Generator, stage: Stage, dtype: torch.dtype) -> Tensor:
        """Return uint8 samples as large as the photos, whatever the stage: [N, 3, R, R]."""
        rng = torch.Generator(self.z.device).manual_seed(1)
        parts = []
        for z in self.z.split(AT_ONCE):
            noise = G.draw_noise(len(z), stage.resolution, rng)
            images = G.synthesis(G.broadcast(G.mapping(z)), stage, noise, dtype)
            parts.append(to_uint8(images).cpu())
        times = self.reals.shape[-1] // stage.resolution
        return torch.cat(parts).repeat_interleave(times, 2).repeat_interleave(times, 3)


class Variety:
    """How much samples differ from each other, in terms of how much the photos do: about 1."""

    def __init__(self, bank: ImageBank, G: Generator, seed: int) -> None:
        chosen = np.linspace(0, bank.count - 1, min(PHOTOS, bank.count)).round().astype(int)
        self.photos = to_float(bank.take(chosen))
        rng = torch.Generator(self.photos.device).manual_seed(seed)
        self.z = torch.randn(SAMPLES, G.config.z_dim, generator=rng, device=rng.device)
        self.noise = G.draw_noise(SAMPLES, G.config.resolution, rng)

    @torch.no_grad()
    def measure(self, G: Generator, stage: Stage, dtype: torch.dtype) -> float | None:
        """Return the ratio for samples of `stage`; None where the photos are alike themselves.

        The z and noise are the same each time, and nobody else's.
        """
        size = min(COARSE, stage.resolution)
        photos = spread(self.photos, size)
        if not photos > 0:
            return None
        samples = G.synthesis(G.broadcast(G.mapping(self.z)), stage, self.noise, dtype)
        return spread(samples.clamp(-1, 1), size) / photos


def spread(images: Tensor, size: int) -> float:
    """Return the mean distance of two of the images [N, 3, R, R] at `size` px; NaN for one."""
    return float(torch.pdist(shrink(images.float(), size).flatten(1)).mean())
