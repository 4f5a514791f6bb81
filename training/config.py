"""What the numbers of a run depend on: the settings, and how they follow from the flags."""

import argparse
import math
from dataclasses import dataclass, fields
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
    """Return what the networks are built from; a resumed run keeps what `before` has."""
    w_dim = args.w_dim or before.get("w_dim")
    layers = args.mapping_layers or before.get("mapping_layers")
    return ModelConfig.of(args.max_size, args.width, w_dim, layers)


def train_config(
    args: argparse.Namespace, device: torch.device, before: dict[str, Any]
) -> TrainConfig:
    """Return the settings, with everything that the flags leave open decided.

    A resumed run keeps the growth in `before`, its config.json: making it longer must not move it.
    One step of Adam changes a layer's output by about the rate times the square root of its
    inputs, so narrow networks learn at higher rates.
    """
    init_size = args.init_size or before.get("init_size") or min(FIRST_SIZE, args.max_size)
    doublings = (args.max_size // init_size).bit_length() - 1
    half_run = args.iterations * args.batch // 2
    lr = args.lr or before.get("lr") or round(0.001 / math.sqrt(args.width), 6)
    decided = {
        "init_size": init_size,
        "phase": args.phase or before.get("phase") or max(1, half_run // max(1, 2 * doublings)),
        "lr": lr,
        "d_lr": args.d_lr or lr,
        "mirror": not args.no_mirror,
        "precision": choose_precision(args.precision, device),
    }
    names = {field.name for field in fields(TrainConfig)} - decided.keys()
    return TrainConfig(**{name: getattr(args, name) for name in names}, **decided)
