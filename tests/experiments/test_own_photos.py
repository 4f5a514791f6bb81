"""experiments/own_photos.py: figures of photos held out, and a sheet without any photo."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from checkpoints import checkpoint
from critic import Discriminator
from dataset import ImageBank
from experiments.own_photos import HEADS, shares
from model import Generator, ModelConfig, Stage
from sampling.sampler import Faces

ROOT = Path(__file__).parents[2]
CONFIG = ModelConfig(16, 0.03, z_dim=16, w_dim=16, mapping_layers=2)


def command(*args: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "experiments.own_photos", *map(str, args)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, held_out_lmdb: Path) -> Path:
    """A run that says it learned from the shapes."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    nets = {"G_ema": Generator(CONFIG).state_dict(), "D": Discriminator(CONFIG).state_dict()}
    checkpoint.save(folder / "latest.pt", CONFIG, {**nets, "nimg": 1234})
    digest = ImageBank(held_out_lmdb, 16).digest
    (folder / "config.json").write_text(json.dumps({"data": digest, "phase": 1}))
    return folder


def test_figures_of_photos_held_out_and_a_row_for_each_pair(
    tmp_path: Path, run: Path, held_out_lmdb: Path
) -> None:
    flags = ("--photos", 4, "--pairs", 2, "--steps", 3, "--out", tmp_path)
    done = command(run, held_out_lmdb, *flags)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "own_photos.md").read_text()
    assert text in done.stdout
    assert "after 1,234 images: 4 photos held out, 3 steps: PSNR " in text
    assert (tmp_path / "mixes.png").stat().st_size > 1000


def test_other_photos_are_refused(run: Path, tiny_lmdb: Path) -> None:
    done = command(run, tiny_lmdb)
    assert done.returncode == 1
    assert "not the photos of" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_more_photos_than_are_held_out_are_refused(run: Path, held_out_lmdb: Path) -> None:
    done = command(run, held_out_lmdb, "--photos", 101)
    assert done.returncode == 1
    assert "100 photos held out; expected --photos 101" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_mix_has_of_each_layer_what_its_heading_says() -> None:
    weights = dict(zip(HEADS, shares(Faces(Generator(CONFIG), Stage(16, 1.0))), strict=True))
    assert all(torch.equal(each.sum(0), torch.ones(6)) for each in weights.values())
    of_a = {head.replace("\n", " "): each[0].tolist() for head, each in weights.items()}
    assert of_a["A"] == [1] * 6
    assert of_a["B"] == [0] * 6
    assert of_a["coarse of A, rest of B"] == [1, 1, 1, 1, 0, 0]
    assert of_a["middle of A, rest of B"] == [0, 0, 0, 0, 1, 1]
    assert of_a["half of each"] == [0.5] * 6
