"""What the numbers of a run depend on: the settings, and how they follow from the flags."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import torch

from common.cli import FIRST_SIZE
from common.device import DTYPES, choose_precision
from model import ModelConfig
from training.growth import Growth


@dataclass(frozen=True)
class TrainConfig:
    """Every setting that the numbers of a run depend on; train.py's flags hold the defaults.

    `phase` and `ema` are in images, `mixing` and `augment_p` are probabilities, `r1_every` is in
    iterations, `freeze_d` in resolutions.
    """

    init_size: int
    max_size: int
    iterations: int
    batch: int
    phase: int
    lr: float
    d_lr: float
    loss: str
    r1_gamma: float
    r1_every: int
    mixing: float
    ema: int
    more_ema: bool
    augment: str
    augment_p: float
    freeze_d: int
    mirror: bool
    precision: str
    seed: int

    @property
    def growth(self) -> Growth:
        """Return the resolution schedule."""
        return Growth(self.init_size, self.max_size, self.phase)

    @property
    def dtype(self) -> torch.dtype:
        """Return what convolutions compute in."""
        return DTYPES[self.precision]


def model_config(args: argparse.Namespace, before: dict[str, Any]) -> ModelConfig:
    """Return what the networks are built from; a run that goes on keeps what `before` has."""

    w_dim = args.w_dim or before.get("w_dim")
    layers = args.mapping_layers or before.get("mapping_layers")
    return ModelConfig.of(args.max_size, args.width, w_dim, layers)


def train_config(
    args: argparse.Namespace, device: torch.device, before: dict[str, Any]
) -> TrainConfig:
    """Return the settings with everything left open decided.

    A run that goes on keeps the growth of `before`: a longer one must not move it. A step
    of Adam moves what a layer gives by the rate times the square root of its inputs, so narrow
    networks take longer steps.
    """

    init_size = args.init_size or before.get("init_size") or min(FIRST_SIZE, args.max_size)
    doublings = (args.max_size // init_size).bit_length() - 1
    half_run = args.iterations * args.batch // 2
    lr = args.lr or before.get("lr") or round(0.001 / math.sqrt(args.width), 6)
    phase = args.phase or before.get("phase") or max(1, half_run // max(1, 2 * doublings))
    return TrainConfig(
        init_size=init_size,
        max_size=args.max_size,
        iterations=args.iterations,
        batch=args.batch,
        phase=phase,
        lr=lr,
        d_lr=args.d_lr or lr,
        loss=args.loss,
        r1_gamma=args.r1_gamma,
        r1_every=args.r1_every,
        mixing=args.mixing,
        ema=args.ema,
        more_ema=args.more_ema,
        augment=args.augment,
        augment_p=args.augment_p,
        freeze_d=args.freeze_d,
        mirror=not args.no_mirror,
        precision=choose_precision(args.precision, device),
        seed=args.seed,
    )
