"""A small run folder for the page to open."""

from pathlib import Path

import pytest
import torch

from checkpoints import checkpoint
from critic import Discriminator
from model import Generator, ModelConfig

CONFIG = ModelConfig(64, 0.02, z_dim=16, w_dim=16, mapping_layers=2)


def generator(seed: int) -> Generator:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        G = Generator(CONFIG)
        for layer in G.synthesis.layers:
            layer.noise_strength.normal_(0, 1 / layer.noise_scale)
        G.w_avg.normal_(0, 0.1)
    return G


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: a full state, and three snapshots at growing resolutions."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "snapshots").mkdir()
    latest, D = generator(0).state_dict(), Discriminator(CONFIG).state_dict()
    checkpoint.save(folder / "latest.pt", CONFIG, {"G_ema": latest, "D": D, "iteration": 12_000})
    for iteration, resolution in ((4_000, 8), (8_000, 32), (12_000, 64)):
        entries = {"G_ema": generator(iteration).state_dict(), "iteration": iteration}
        path = folder / "snapshots" / f"{iteration:06d}.pt"
        checkpoint.save(path, CONFIG, {**entries, "stage": [resolution, 1.0]})
    return folder
