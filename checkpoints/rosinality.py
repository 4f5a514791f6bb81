"""Generators trained with rosinality/style-based-gan-pytorch, as generators of this program.

Both of its layouts are read: the dict with `g_running` that ends a phase, and the bare state dict
of its periodic files. Differences in constants (sqrt(2 / fan_in) everywhere, a style scale that
starts at 1, an epsilon of 1e-5) are folded into the weights; the one difference left is that its
bias is blurred. Its files lack the mean w, which is measured here, and alpha, which is taken as 1;
its D is not converted. Its two layers of a resolution shared their noise.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import Conv, Dense, Generator, Mapping, ModelConfig, SynthesisLayer, UpConv
from ops.conv import blur, fuse_up

MEAN_SAMPLES = 10_000  # z whose mean w is w_avg
# Instance norm divides by sqrt(variance + epsilon): maps k times smaller give the same result with
# an epsilon k^2 times smaller. Leaky ReLU is linear in k, so the weights can take the factor.
SHRINK = math.sqrt(1e-8 / 1e-5)  # our epsilon over its


class BlurredBias(UpConv):
    """An UpConv whose bias is added before the blur, and so fades at the borders."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, c_out, 2H, 2W]."""
        weight = fuse_up(self.weight, self.scale, x.dtype)
        return blur(F.conv_transpose2d(x, weight, self.bias.to(x.dtype), stride=2, padding=1))


def find_state(entries: Any) -> dict[str, Any] | None:
    """Return the generator's state dict if `entries` have either layout, else None."""
    if not isinstance(entries, dict):
        return None
    state = entries.get("g_running", entries)
    known = isinstance(state, dict) and "generator.progression.0.conv1.input" in state
    return state if known else None


def adapt(G: Generator) -> None:
    """Make `G` upsample as these generators do."""
    for layer in G.synthesis.layers:
        if isinstance(layer, SynthesisLayer) and isinstance(layer.conv, UpConv):
            c_out, c_in = layer.conv.weight.shape[:2]
            layer.conv = BlurredBias(c_in, c_out)


def convert(state: dict[str, Any]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return our config and state dict of G for its state dict, up to the trained resolution.

    Raises KeyError, ValueError, TypeError, RuntimeError or AttributeError if it does not fit.
    """
    config = config_of(state)
    with torch.device("meta"):
        G = Generator(config)
    ours: dict[str, Tensor] = {}
    for i, dense in enumerate(G.mapping.layers):
        assert isinstance(dense, Dense)
        theirs = f"style.{2 * i + 1}.linear"
        weight = equalized(state[f"{theirs}.weight_orig"])
        ours[f"mapping.layers.{i}.weight"] = weight / dense.scale
        ours[f"mapping.layers.{i}.bias"] = state[f"{theirs}.bias"] / dense.lr_mul
    ours["synthesis.const"] = state["generator.progression.0.conv1.input"] * SHRINK
    for i, layer in enumerate(G.synthesis.layers):
        folded = fold_layer(state, i, layer)
        ours |= {f"synthesis.layers.{i}.{name}": tensor for name, tensor in folded.items()}
    for k, resolution in enumerate(config.resolutions):
        theirs, name = f"generator.to_rgb.{k}.conv", f"synthesis.to_rgb.{resolution}"
        conv = G.synthesis.to_rgb[str(resolution)]
        assert isinstance(conv, Conv)
        ours[f"{name}.weight"] = equalized(state[f"{theirs}.weight_orig"]) / conv.scale
        ours[f"{name}.bias"] = state[f"{theirs}.bias"]
    ours["w_avg"] = mean_w(config, ours)
    return config, {name: tensor.float().contiguous() for name, tensor in ours.items()}


def config_of(state: dict[str, Any]) -> ModelConfig:
    """Return the config, with the resolution up to which it was trained.

    Its networks are always built for 1024 px; the bias of a ToRGB never used is still zero.
    """
    biases: list[Tensor] = []
    while f"generator.to_rgb.{len(biases)}.conv.bias" in state:
        biases.append(state[f"generator.to_rgb.{len(biases)}.conv.bias"])
    trained = [k for k, bias in enumerate(biases) if bool(bias.any())] or [len(biases) - 1]
    layers = sum(1 for name in state if name.startswith("style.") and name.endswith(".weight_orig"))
    w_dim, z_dim = state["style.1.linear.weight_orig"].shape
    channels = state["generator.progression.0.conv1.input"].shape[1]
    return ModelConfig(4 << trained[-1], channels / 512, z_dim, w_dim, layers)


def equalized(weight: Tensor) -> Tensor:
    """Return the effective weight: the parameter times sqrt(2 / fan_in)."""
    return weight * math.sqrt(2 / weight[0].numel())


def fold_layer(state: dict[str, Any], index: int, layer: Any) -> dict[str, Tensor]:
    """Return the parameters of our layer `index`, one of the two in a block of its."""
    block, place = f"generator.progression.{index // 2}", index % 2 + 1
    noise = state[f"{block}.noise{place}.weight_orig"]  # [1, C, 1, 1]
    style = f"{block}.adain{place}.style.linear"
    bias = state[f"{style}.bias"].clone()
    bias[: len(bias) // 2] -= 1  # our scale is 1 + y_s
    folded = {
        "noise_strength": noise[0] * math.sqrt(2 / noise.shape[1]) * SHRINK / layer.noise_scale,
        "style.weight": equalized(state[f"{style}.weight_orig"]) / layer.style.scale,
        "style.bias": bias / layer.style.lr_mul,
    }
    if index > 0:
        weight, conv_bias = read_conv(state, block, place)
        folded["conv.weight"] = weight * SHRINK / layer.conv.scale
        folded["conv.bias"] = conv_bias * SHRINK
    return folded


def read_conv(state: dict[str, Any], block: str, place: int) -> tuple[Tensor, Tensor]:
    """Return the weight [c_out, c_in, 3, 3] and bias of a convolution, plain or fused.

    From 128 px on it is fused: stored as a transposed convolution, halved in both directions.
    """
    fused = f"{block}.conv1.0"
    if place == 1 and f"{fused}.weight" in state:
        weight = state[f"{fused}.weight"]  # [c_in, c_out, 3, 3]
        weight = weight * math.sqrt(2 / (weight.shape[0] * 9)) / 4
        return weight.transpose(0, 1).flip(2, 3), state[f"{fused}.bias"]
    plain = f"{block}.conv1.1.conv" if place == 1 else f"{block}.conv2.conv"
    return equalized(state[f"{plain}.weight_orig"]), state[f"{plain}.bias"]


@torch.no_grad()
def mean_w(config: ModelConfig, ours: dict[str, Tensor]) -> Tensor:
    """Return the mean w [w_dim] of MEAN_SAMPLES fixed z."""
    mapping: nn.Module = Mapping(config)
    prefix = "mapping."
    mapping.load_state_dict({k[len(prefix) :]: v for k, v in ours.items() if k.startswith(prefix)})
    z = torch.randn(MEAN_SAMPLES, config.z_dim, generator=torch.Generator().manual_seed(0))
    return mapping(z).mean(dim=0)
