"""Our training, timed step by step."""

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
MIN_SECONDS = 1.0  # for which plain steps are timed


class OurTraining:
    """Training of networks up to `max_size` px, at `resolution` px, fully faded in."""

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
        """Return the dtype of the convolutions."""
        return self.config.dtype

    def step(self, iteration: int) -> float:
        """Return the seconds of one training step: with R1 for iteration 0, without for 1."""
        self.state.iteration, self.state.nimg = iteration, self.nimg
        start = time.perf_counter()
        train_step(self.state, self.config, self.bank)
        return time.perf_counter() - start

    def seconds(self) -> float:
        """Return the mean seconds of a step, with as many R1 steps as in training."""
        with_r1, plain = self.step(0), [self.step(1)]
        while sum(plain) < MIN_SECONDS:
            plain.append(self.step(1))
        return self._mean(with_r1, mean(plain))

    def flops(self) -> float:
        """Return the mean floating-point operations of convolutions and products in a step."""
        counts = []
        for iteration in (0, 1):
            with FlopCounter() as counter:
                self.step(iteration)
            counts.append(counter.total)
        return self._mean(*counts)

    def _mean(self, with_r1: float, plain: float) -> float:
        every = self.config.r1_every
        return (with_r1 + (every - 1) * plain) / every
