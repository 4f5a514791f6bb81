"""Checkpoints such as rosinality/style-based-gan-pytorch writes, small and untrained."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CODE = 32
CHANNELS = [32, 32, 32, 32, 16, 8, 4, 2, 1]  # 1/16 of its own: 4 to 1024 px
FUSED = 5  # the first block, of 128 px, whose upsampling is stored fused


def its_state(trained: int) -> dict[str, Tensor]:
    """Return a state dict with the keys of its generator, as if trained up to block `trained`."""
    rng = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    state: dict[str, Tensor] = {}
    for i in range(1, 17, 2):
        state[f"style.{i}.linear.weight_orig"] = normal(CODE, CODE)
        state[f"style.{i}.linear.bias"] = 0.1 * normal(CODE)
    state["generator.progression.0.conv1.input"] = 0.01 * normal(1, CHANNELS[0], 4, 4)
    for k, c in enumerate(CHANNELS):
        block, below = f"generator.progression.{k}", CHANNELS[max(0, k - 1)]
        learned = float(k <= trained)
        if 0 < k < FUSED:
            state[f"{block}.conv1.1.conv.weight_orig"] = normal(c, below, 3, 3)
            state[f"{block}.conv1.1.conv.bias"] = learned * normal(c)
            state[f"{block}.conv1.2.weight"] = torch.zeros(c, 1, 3, 3)
        elif k >= FUSED:
            state[f"{block}.conv1.0.weight"] = normal(below, c, 3, 3)
            state[f"{block}.conv1.0.bias"] = learned * normal(c)
        state[f"{block}.conv2.conv.weight_orig"] = normal(c, c, 3, 3)
        state[f"{block}.conv2.conv.bias"] = learned * 0.1 * normal(c)
        for n in (1, 2):
            state[f"{block}.noise{n}.weight_orig"] = learned * normal(1, c, 1, 1)
            state[f"{block}.adain{n}.style.linear.weight_orig"] = normal(2 * c, CODE)
            ones = torch.cat([torch.ones(c), torch.zeros(c)])
            state[f"{block}.adain{n}.style.linear.bias"] = ones + learned * 0.1 * normal(2 * c)
        state[f"generator.to_rgb.{k}.conv.weight_orig"] = normal(3, c, 1, 1)
        state[f"generator.to_rgb.{k}.conv.bias"] = learned * normal(3)
    return state


def save(path: Path, layout: str, state: dict[str, Tensor]) -> Path:
    """Save a state dict in one of its layouts: bare, phase or old (torch before 1.6)."""
    entries: dict[str, Any] = state
    if layout == "phase":
        unused = {"linear.linear.bias": torch.zeros(1)}
        entries = {"generator": state, "discriminator": unused, "g_running": state}
        entries |= {"g_optimizer": {"state": {}}, "d_optimizer": {"state": {}}}
    torch.save(entries, path, _use_new_zipfile_serialization=layout != "old")
    return path
