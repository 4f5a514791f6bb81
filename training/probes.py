"""What a run looks at while it trains: the sample grid, the variety of samples, the best so far."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from checkpoints import checkpoint
from checkpoints.run_folder import BEST
from common.cli import PSI
from common.images import grid, repeat_pixels, shrink, to_float, to_uint8
from dataset import ImageBank
from metrics.metrics import require, sliced_wasserstein
from model import Generator, Stage
from training.state import TrainState

AT_ONCE = 50  # images in one pass
GRID = (4, 8)  # rows and columns of a sample grid
# Variety compares 16 samples with 128 photos. Below 8 px, faces and colours differ; noise and
# sharpness do not count.
VARIETY_SAMPLES, VARIETY_PHOTOS, VARIETY_PX = 16, 128, 8
BEST_IMAGES = 1000  # samples and photos that are compared, at most
DIRECTIONS = 128  # a quarter of the paper's: a distance takes about 4 s of one core


class FixedSamples:
    """Samples of the same z and noise each time: only the generator changes in between.

    The random numbers follow from the seed alone and touch no others: training goes on as if
    nothing were sampled.
    """

    def __init__(self, G: Generator, count: int, seed: int) -> None:
        self.rng = torch.Generator(G.w_avg.device).manual_seed(seed)
        self.z = torch.randn(count, G.config.z_dim, generator=self.rng, device=self.rng.device)
        self.rng_after_z = self.rng.get_state()

    @torch.no_grad()
    def batches(
        self, G: Generator, stage: Stage, dtype: torch.dtype, psi: float = 1.0
    ) -> Iterator[Tensor]:
        """Yield float32 images [N, 3, R, R], about [-1, 1], R being the stage's resolution."""
        self.rng.set_state(self.rng_after_z)
        for z in self.z.split(AT_ONCE):
            ws = G.truncate(G.broadcast(G.mapping(z)), psi)
            noise = G.draw_noise(len(z), stage.resolution, self.rng)
            yield G.synthesis(ws, stage, noise, dtype)

    def uint8(self, G: Generator, stage: Stage, dtype: torch.dtype, psi: float = 1.0) -> Tensor:
        """Return all of them as uint8 [N, 3, R, R] on the CPU, R being G's largest resolution."""
        images = torch.cat([to_uint8(b).cpu() for b in self.batches(G, stage, dtype, psi)])
        return repeat_pixels(images, G.config.resolution)


class SampleSheet:
    """The same faces from the first grid of a run to the last."""

    def __init__(self, G: Generator, seed: int) -> None:
        self.samples = FixedSamples(G, GRID[0] * GRID[1], seed)

    def draw(self, G: Generator, stage: Stage, dtype: torch.dtype) -> Image.Image:
        """Return the grid at the largest resolution, whatever the stage's is.

        Truncated as generate.py's samples are by default, so that both look alike.
        """
        return grid(self.samples.uint8(G, stage, dtype, PSI), GRID[1])


class Best:
    """Measures G_ema by the sliced Wasserstein distance and keeps the lowest as best.pt.

    Raises UserError for too few photos, or photos below 8 px.
    """

    def __init__(self, folder: Path, bank: ImageBank, G: Generator) -> None:
        require(bank.count, "training photos")
        self.reals = evenly_spaced(bank, BEST_IMAGES).cpu()
        sliced_wasserstein(self.reals[:1], self.reals[:1], directions=1)  # raises if too small
        self.path = folder / BEST
        self.samples = FixedSamples(G, len(self.reals), seed=0)
        self.lowest = float("inf")
        if self.path.exists():
            self.lowest = float(checkpoint.load(self.path).get("swd", "inf"))

    def measure(self, state: TrainState, stage: Stage, dtype: torch.dtype) -> float:
        """Return the distance, in thousandths, of samples of `stage`; keep G_ema if it is lower."""
        distance = self.distance(state.G_ema, stage, dtype)
        if distance < self.lowest:
            checkpoint.save(self.path, state.model, state.snapshot(stage) | {"swd": distance})
            self.lowest = distance
        return distance

    def distance(self, G: Generator, stage: Stage, dtype: torch.dtype) -> float:
        """Return the distance, in thousandths, between photos and samples of `stage`."""
        samples = self.samples.uint8(G, stage, dtype)
        return sliced_wasserstein(self.reals, samples, DIRECTIONS).mean().item()


class Variety:
    """How much samples differ from each other, relative to photos: about 1, 0 after a collapse."""

    def __init__(self, bank: ImageBank, G: Generator, seed: int) -> None:
        self.photos = to_float(evenly_spaced(bank, VARIETY_PHOTOS))
        self.samples = FixedSamples(G, VARIETY_SAMPLES, seed)

    def measure(self, G: Generator, stage: Stage, dtype: torch.dtype) -> float | None:
        """Return the ratio for samples of `stage`; None where all photos are the same."""
        size = min(VARIETY_PX, stage.resolution)
        of_photos = mean_distance(self.photos, size)
        if not of_photos > 0:
            return None
        samples = torch.cat(list(self.samples.batches(G, stage, dtype)))
        return mean_distance(samples.clamp(-1, 1), size) / of_photos


def evenly_spaced(bank: ImageBank, count: int) -> Tensor:
    """Return `count` photos from all over the bank, or all: uint8 [N, 3, R, R]."""
    return bank.take(np.linspace(0, bank.count - 1, min(count, bank.count)).round().astype(int))


def mean_distance(images: Tensor, size: int) -> float:
    """Return the mean distance between two of the images [N, 3, R, R] at `size` px; NaN for one."""
    return float(torch.pdist(shrink(images.float(), size).flatten(1)).mean())
