"""What D sees is not what G draws: samples of a run under strong augmentation, measured."""

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from common.images import to_float
from data.lmdb_writer import Writer
from dataset import ImageBank
from model import ModelConfig, Stage
from training.augment import P_MAX, augment, draw
from training.config import TrainConfig
from training.state import TrainState
from training.step import train_step

SIDE = 16  # px
FACE = (200, 140, 110)
CONFIG = TrainConfig(
    init_size=8, max_size=SIDE, iterations=1500, batch=8, phase=1600, lr=0.003, d_lr=0.003,
    loss="r1", r1_gamma=1.0, r1_every=4, mixing=0.0, ema=2000, more_ema=False, augment="fixed",
    augment_p=P_MAX, freeze_d=0, mirror=True, precision="fp32", seed=1,
)  # fmt: skip


def head(index: int) -> bytes:
    """A disc of one colour in the middle of white; only its size varies."""
    image = Image.new("RGB", (8 * SIDE, 8 * SIDE), "white")
    radius, centre = 8 * random.Random(index).uniform(3.5, 5.5), 4 * SIDE
    box = (centre - radius, centre - radius, centre + radius, centre + radius)
    ImageDraw.Draw(image).ellipse(box, fill=FACE)
    record = io.BytesIO()
    image.resize((SIDE, SIDE), Image.Resampling.BOX).save(record, "JPEG", quality=95)
    return record.getvalue()


def off(images: Tensor) -> dict[str, float]:
    """How far, on average, the ground is from white, the head from the middle (px), its colour."""
    ground = torch.cat([images[:, :, :2], images[:, :, -2:]], dim=2)
    dark = (1 - images).mean(dim=1)
    dark = dark * (dark > 0.1)
    place, mass = torch.arange(SIDE) - (SIDE - 1) / 2, dark.sum((1, 2)).clamp(min=1e-6)
    x, y = ((dark.sum(dim) * place).sum(1) / mass for dim in (1, 2))
    colour = images[:, :, 6:10, 6:10].mean((2, 3)) - (torch.tensor(FACE) / 127.5 - 1)
    return {
        "ground": (1 - ground).mean().item(),
        "place": (x.square() + y.square()).sqrt().mean().item(),
        "colour": colour.abs().mean().item(),
    }


def samples(config: TrainConfig, bank: ImageBank) -> Tensor:
    """300 samples of the averaged generator after a run."""
    state = TrainState(ModelConfig(SIDE, 0.06, 16, 16, 2), config, torch.device("cpu"))
    for _ in range(config.iterations):
        train_step(state, config, bank)
    rng = torch.Generator().manual_seed(1)
    G = state.G_ema
    with torch.no_grad():
        ws = G.broadcast(G.mapping(torch.randn(300, 16, generator=rng)))
        return G.synthesis(ws, Stage(SIDE, 1.0), G.draw_noise(300, SIDE, rng)).clamp(-1, 1)


@pytest.mark.slow
def test_a_trained_run_shows_no_artefacts_of_augmentation(tmp_path):
    """White stays white, nothing is shifted or tinted: well below what D was shown.

    Measured, photos, what D is shown, samples after 1,500 and 2,500 steps: ground 0.013, 0.064,
    0.042, 0.029; place 0.00, 0.53, 0.26, 0.24 px; colour 0.009, 0.102, 0.039, 0.024.
    """
    with Writer(tmp_path / "heads.lmdb", [SIDE], ["drawn"]) as writer:
        for index in range(200):
            writer.add([head(index)], b"%d.png" % index, 0)
    bank = ImageBank(tmp_path / "heads.lmdb", SIDE)
    photos = to_float(bank.take(np.arange(200))).repeat(3, 1, 1, 1)
    rng = torch.Generator().manual_seed(0)
    shown = augment(photos, draw(len(photos), P_MAX, rng)).clamp(-1, 1)
    right, leaked, found = off(photos), off(shown), off(samples(CONFIG, bank))
    for name, value in found.items():
        assert value - right[name] < 0.65 * (leaked[name] - right[name]), name
