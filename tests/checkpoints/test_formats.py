"""Checkpoints of every format so far still load: tests/fixtures keeps one file of each.

format_1.pt is a full state of 8 px after two steps, with noise strengths of zero and a random
constant; format_1.png is what generate.py drew from it at the time.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train
from checkpoints import checkpoint
from model import ModelConfig
from tests.support.run import fork
from training.config import train_config
from training.state import TrainState

DATA = Path(__file__).parents[1] / "fixtures"
FORMATS = sorted(DATA.glob("format_*.pt"))


def test_a_file_of_every_format_is_kept():
    assert [path.stem for path in FORMATS] == [
        f"format_{n}" for n in range(1, checkpoint.FORMAT + 1)
    ]


@pytest.mark.parametrize("path", FORMATS, ids=lambda path: path.stem)
def test_an_older_checkpoint_gives_the_pictures_that_it_gave(path, tmp_path):
    assert path.stat().st_size < 200_000
    flags = ("--seeds", "0-7", "--mix_seeds", "0", "1", "--precision", "fp32", "--out", tmp_path)
    ended = fork("generate.py", path, *flags).succeeded()
    assert "8 px (50% faded in) after 2 iterations" in ended.out
    now, then = (
        np.asarray(Image.open(file)).astype(int)
        for file in (tmp_path / "sample.png", path.with_suffix(".png"))
    )
    assert now.shape == then.shape
    assert np.abs(now - then).max() <= 2
    assert len(np.unique(then)) > 50


@pytest.mark.parametrize("path", FORMATS, ids=lambda path: path.stem)
def test_the_whole_state_of_an_older_run_is_restored(path, tmp_path):
    entries = checkpoint.load(path)
    args = train.parse_args([str(tmp_path), "--init_size", "4", "--max_size", "8"])
    cpu = torch.device("cpu")
    state = TrainState(ModelConfig(**entries["model"]), train_config(args, cpu, {}), cpu)
    state.restore(entries)
    assert (state.iteration, state.nimg) == (2, 12)
    for key, value in state.entries()["G"].items():
        assert torch.equal(value, entries["G"][key])
    moments = state.opt_D.state_dict()["state"]
    assert moments
    assert all(
        torch.equal(m["exp_avg"], entries["opt_D"]["state"][i]["exp_avg"])
        for i, m in moments.items()
    )
