"""A generator with prepared weights gives the same images."""

import pytest
import torch

from checkpoints import rosinality
from model import Conv, Generator, Stage, UpConv
from sampling.folded import folded
from sampling.sampler import Faces
from tests.support.generators import untrained


@pytest.fixture
def G() -> Generator:
    made = untrained()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stage", [Stage(16, 1.0), Stage(8, 0.3)])
def test_folded_weights_give_the_same_images(
    G: Generator, stage: Stage, dtype: torch.dtype
) -> None:
    plain = Faces(G, stage, batch=2, dtype=dtype)
    ready = Faces(folded(G, dtype), stage, batch=2, dtype=dtype)
    ws, noise = plain.ws([1, 2, 3], 1.0), plain.noise([4])
    assert torch.equal(ready.ws([1, 2, 3], 1.0), ws)
    assert torch.equal(ready.render(ws, noise), plain.render(ws, noise))
    assert not any(isinstance(m, Conv) for m in ready.G.synthesis.modules())
    assert any(isinstance(m, UpConv) for m in G.synthesis.modules())  # which itself is unchanged


def test_layers_of_other_programs_stay_as_they_are(G: Generator) -> None:
    rosinality.adapt(G)
    with torch.no_grad():
        for parameter in G.synthesis.layers.parameters():
            parameter.normal_()
    plain = Faces(G, Stage(16, 1.0), batch=1)
    ready = Faces(folded(G, torch.float32), plain.stage, batch=1)
    ws, noise = plain.ws([1], 1.0), plain.noise([4])
    assert torch.equal(ready.render(ws, noise), plain.render(ws, noise))
