"""Our training, step by step under a clock."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import mean

import torch

from benchmarks.flops import FlopCounter
from common.device import choose_precision
from dataset import ImageBank
from model import ModelConfig
from training.config import TrainConfig
from training.state import TrainState
from training.step import train_step

PHASE = 1_000_000  # images: no resolution ends while it is timed
FIRST_SIZE = 8  # px, where growth begins
AT_LEAST = 1.0  # seconds that plain steps are timed for, in all


class OurTraining:
    """A training of networks up to `max_size` px, at `resolution` px, fully faded in."""

    def __init__(
        self, database: Path, width: float, batch: int, resolution: int, max_size: int
    ) -> None:
        device = torch.device("cpu")
        self.config = TrainConfig(
            init_size=min(FIRST_SIZE, max_size),
            max_size=max_size,
            iterations=PHASE,
            batch=batch,
            phase=PHASE,
            lr=0.001,
            d_lr=0.001,
            loss="r1",
            r1_gamma=1.0,
            r1_every=16,
            mixing=0.9,
            ema=10_000,
            more_ema=False,
            augment="none",
            augment_p=0.0,
            freeze_d=0,
            mirror=True,
            precision=choose_precision("auto", device),
            seed=0,
        )
        self.nimg = 2 * PHASE * (resolution.bit_length() - self.config.init_size.bit_length())
        self.state = TrainState(ModelConfig.of(max_size, width), self.config, device)
        self.bank = ImageBank(database, max_size, device)

    @property
    def dtype(self) -> torch.dtype:
        """Return what convolutions compute in."""
        return self.config.dtype

    def step(self, iteration: int) -> float:
        """Return the seconds of the training step of an iteration; 0 has R1, 1 has not."""
        self.state.iteration, self.state.nimg = iteration, self.nimg
        start = time.perf_counter()
        train_step(self.state, self.config, self.bank)
        return time.perf_counter() - start

    def seconds(self) -> float:
        """Return the mean seconds of a step, those with R1 at their true share."""
        with_r1, plain = self.step(0), [self.step(1)]
        while sum(plain) < AT_LEAST:
            plain.append(self.step(1))
        return self._mean(with_r1, mean(plain))

    def flops(self) -> float:
        """Return the floating-point operations of convolutions and products in a mean step."""
        counts = []
        for iteration in (0, 1):
            with FlopCounter() as counter:
                self.step(iteration)
            counts.append(counter.total)
        return self._mean(*counts)

    def _mean(self, with_r1: float, plain: float) -> float:
        every = self.config.r1_every
        return (with_r1 + (every - 1) * plain) / every
