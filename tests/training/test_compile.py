"""Compiled steps are those of plain PyTorch, and compiled once a stage, not once a step."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dataset import ImageBank
from model import ModelConfig
from training.config import TrainConfig
from training.state import TrainState
from training.step import train_step

ROOT = Path(__file__).parents[2]


def config(iterations: int) -> TrainConfig:
    return TrainConfig(
        init_size=4, max_size=16, iterations=iterations, batch=4, phase=24, lr=0.002, d_lr=0.002,
        loss="r1", r1_gamma=1.0, r1_every=4, mixing=0.9, ema=100, more_ema=False, augment="ada",
        augment_p=0.0, freeze_d=0, mirror=True, precision="fp32",
        seed=3,
    )  # fmt: skip


def begun() -> TrainState:
    state = TrainState(ModelConfig(16, 0.03, 16, 16, 2), config(1), torch.device("cpu"))
    with torch.no_grad():  # AdaIN of maps without variance makes 1e4 times as much of rounding
        state.G.synthesis.const.copy_(torch.linspace(-2, 2, 16).sin().view(4, 4))
    return state


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo's own look at parameters
def test_compiled_steps_agree_and_nothing_is_compiled_again(
    tiny_bank: Callable[[int], ImageBank],
) -> None:
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        graphs.append(len(inputs))
        return graph.forward

    plain, compiled, bank = begun(), begun(), tiny_bank(16)
    compiled.compile(backend=count)
    made = []
    for iteration in range(30):
        stats = train_step(plain, config(30), bank)
        same = train_step(compiled, config(30), bank)
        made.append(len(graphs))
        if iteration < 6:  # later Adam makes rounding grow
            for name, value in stats.items():
                torch.testing.assert_close(same[name], value, rtol=2e-3, atol=1e-4, msg=name)
    assert made[0] > 0
    for first, last in ((0, 5), (7, 11), (12, 17), (19, 23), (24, 29)):
        assert made[first] == made[last]  # nothing within a phase, but its second alpha
    assert made[29] <= 35


def test_without_a_compiler_training_goes_on(tiny_lmdb: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), str(tiny_lmdb), "--out", str(tmp_path / "r")]
    command += ["--width", "0.03", "--init_size", "4", "--max_size", "4", "--batch", "4"]
    command += ["--iterations", "1", "--compile", "on"]
    env = {**os.environ, "CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    assert "train.py: torch.compile finds no compiler here; going on without it" in done.stderr
    assert "Traceback" not in done.stderr
