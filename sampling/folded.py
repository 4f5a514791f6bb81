"""A generator with its weights prepared in advance, for showing one face after another.

In training the networks scale, expand and convert their weights in every pass. For a single image
at width 1 that is half of the work.
"""

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model import Conv, Generator, SynthesisLayer, UpConv
from ops.conv import blur, fuse_up


class ReadyConv(nn.Module):
    """A Conv whose effective weight is computed once and kept in `dtype`."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: Conv, dtype: torch.dtype) -> None:
        super().__init__()
        weight = self.effective(conv).detach().to(dtype)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", conv.bias.detach().to(dtype))

    @staticmethod
    def effective(conv: Conv) -> Tensor:
        """Return the weight [c_out, c_in, k, k]."""
        return conv.effective_weight()

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, c_out, H, W] in x's dtype."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


class ReadyUpConv(ReadyConv):
    """An UpConv whose effective weight is computed once."""

    @staticmethod
    def effective(conv: Conv) -> Tensor:
        """Return the weight [c_in, c_out, 4, 4] of the transposed convolution."""
        return fuse_up(conv.weight, conv.scale, torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, c_out, 2H, 2W] in x's dtype."""
        return blur(F.conv_transpose2d(x, self.weight.to(x.dtype), stride=2, padding=1), self.bias)


READY: dict[type[nn.Module], type[ReadyConv]] = {Conv: ReadyConv, UpConv: ReadyUpConv}


def folded(G: Generator, dtype: torch.dtype) -> Generator:
    """Return a copy of `G` that gives the same images, bit for bit, in passes in `dtype` only.

    Layers of other types, as in generators of other programs, stay as they are.
    """
    made = copy.deepcopy(G).eval().requires_grad_(False)
    for layer in made.synthesis.layers:
        layer = cast(SynthesisLayer, layer)
        layer.conv = None if layer.conv is None else ready(layer.conv, dtype)
    for resolution, conv in made.synthesis.to_rgb.items():
        made.synthesis.to_rgb[resolution] = ready(conv, dtype)
    return made


def ready(conv: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return `conv` with its weight prepared, or itself if it is of another type."""
    kind = READY.get(type(conv))
    return kind(cast(Conv, conv), dtype) if kind else conv
