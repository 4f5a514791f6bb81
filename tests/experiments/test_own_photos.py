"""experiments.own_photos: metrics of photos held out, and a sheet without any photo."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from checkpoints import checkpoint
from common.cli import UserError
from critic import Discriminator
from dataset import ImageBank
from experiments.own_photos import parse_args
from experiments.projections import HEADS, mixing_weights, project_held_out
from model import Generator, ModelConfig, Stage
from sampling.sampler import Faces

CONFIG = ModelConfig(16, 0.03, z_dim=16, w_dim=16, mapping_layers=2)


def flags(*words: object) -> Namespace:
    return parse_args([*map(str, words)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, held_out_lmdb: Path) -> Path:
    """A run whose config.json names the shapes as its photos."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    nets = {"G_ema": Generator(CONFIG).state_dict(), "D": Discriminator(CONFIG).state_dict()}
    checkpoint.save(folder / "latest.pt", CONFIG, {**nets, "nimg": 1234})
    digest = ImageBank(held_out_lmdb, 16).digest
    (folder / "config.json").write_text(json.dumps({"data": digest, "phase": 1}))
    return folder


@pytest.mark.slow
def test_metrics_of_photos_held_out_and_a_sheet_of_mixes_are_written(
    tmp_path: Path, run: Path, held_out_lmdb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ("--photos", 2, "--pairs", 1, "--steps", 2)
    project_held_out(flags(run, held_out_lmdb, *sizes, "--out", tmp_path))
    text = (tmp_path / "own_photos.md").read_text()
    assert text in capsys.readouterr().out
    assert "after 1,234 images: 2 photos held out, 2 steps: PSNR " in text
    assert (tmp_path / "mixes.png").stat().st_size > 1000


def test_other_photos_and_too_few_held_out_are_refused(
    run: Path, tiny_lmdb: Path, held_out_lmdb: Path
) -> None:
    with pytest.raises(UserError, match="not the photos of"):
        project_held_out(flags(run, tiny_lmdb))
    with pytest.raises(UserError, match="100 photos held out; expected --photos 101"):
        project_held_out(flags(run, held_out_lmdb, "--photos", 101))


def test_each_layer_of_a_mix_comes_from_where_its_heading_says() -> None:
    mixes = mixing_weights(Faces(Generator(CONFIG), Stage(16, 1.0)))
    weights = dict(zip(HEADS, mixes, strict=True))
    assert all(torch.equal(each.sum(0), torch.ones(6)) for each in weights.values())
    of_a = {head.replace("\n", " "): each[0].tolist() for head, each in weights.items()}
    assert of_a["A"] == [1] * 6
    assert of_a["B"] == [0] * 6
    assert of_a["coarse of A, rest of B"] == [1, 1, 1, 1, 0, 0]
    assert of_a["middle of A, rest of B"] == [0, 0, 0, 0, 1, 1]
    assert of_a["half of each"] == [0.5] * 6
