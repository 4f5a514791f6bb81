"""Compiled steps are those of plain PyTorch, and compiled once a stage, not once a step."""

from collections.abc import Callable

import pytest
import torch

from model import ModelConfig
from tests.support.run import ENV, command, run
from tests.support.training import flags, train
from training.config import TrainConfig
from training.state import TrainState
from training.step import train_step


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
@pytest.mark.parametrize("steps", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_compiled_steps_agree_and_nothing_is_compiled_again(tiny_bank, steps):
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        graphs.append(len(inputs))
        return graph.forward

    plain, compiled, bank = begun(), begun(), tiny_bank(16)
    compiled.compile(backend=count)
    made = []
    for iteration in range(steps):
        stats = train_step(plain, config(30), bank)
        same = train_step(compiled, config(30), bank)
        made.append(len(graphs))
        if iteration < 6:  # later Adam makes rounding grow
            for name, value in stats.items():
                torch.testing.assert_close(same[name], value, rtol=2e-3, atol=1e-4, msg=name)
    assert made[0] > 0
    for first, last in ((0, 1), (0, 5), (7, 11), (12, 17), (19, 23), (24, 29)):
        if last < steps:
            assert made[first] == made[last]  # nothing within a phase, but its second alpha
    assert made[-1] <= 35


SAID = "train.py: torch.compile finds no compiler here; going on without it"


def test_where_nothing_can_be_compiled_training_goes_on(tiny_lmdb, tmp_path, monkeypatch):
    monkeypatch.setattr("training.loop.can_compile", lambda device: False)
    ended = train(tiny_lmdb, tmp_path / "run", "--iterations", 1, "--compile", "on").succeeded()
    assert ended.messages == [SAID]


@pytest.mark.slow
def test_a_missing_compiler_is_noticed(tiny_lmdb, tmp_path):
    given = flags(tiny_lmdb, tmp_path / "run", "--max_size", 4, "--iterations", 1)
    env = {**ENV, "CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    ended = run(command("train.py", *given, "--compile", "on"), env=env).succeeded()
    assert ended.messages == [SAID]
