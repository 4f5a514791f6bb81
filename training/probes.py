"""best.pt: of all that a run measures, the generator whose samples are nearest to the photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from checkpoints import checkpoint
from common.images import to_uint8
from dataset import ImageBank
from metrics.metrics import require, sliced_wasserstein
from model import Generator, Stage
from training.step import TrainState

IMAGES = 1000  # that are compared, at most
AT_ONCE = 50
DIRECTIONS = 128  # a quarter of the paper's: a distance takes about 4 s of one core
FILE = "best.pt"


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
        self.path = folder / FILE
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
