"""face_network.py: dlib's format and sums, against random weights and dlib itself."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metrics.face_network import (
    LEVELS,
    PACKAGE_FILE,
    FaceNetwork,
    folded,
    load_face_network,
    read_layers,
    residual_block,
)

CPU = torch.device("cpu")


def integer(value: int) -> bytes:
    """A positive integer as dlib stores it."""
    size = max((value.bit_length() + 7) // 8, 1)
    return bytes([size]) + value.to_bytes(size, "little")


def layer(name: bytes, parameters: Tensor, *before: int) -> bytes:
    """A layer as dlib stores it: its name, integers, a tensor, and more integers."""
    numbers = (*before, 2, len(parameters), 1, 1, 1)
    header = integer(len(name)) + name + b"".join(map(integer, numbers))
    return integer(2) + header + parameters.numpy().astype("<f4").tobytes() + integer(32)


def stored_network() -> tuple[bytes, list[Tensor]]:
    """Random weights in dlib's format, and the same ones as tensors."""
    rng = torch.Generator().manual_seed(0)
    found, content, c_in = [], [b"\x01\x01\x01\x0dloss_metric_2"], 3

    def add(name: bytes, count: int, scale: float, *before: int) -> None:
        found.append(torch.randn(count, generator=rng) * scale)
        content.append(layer(name, found[-1], *before))

    sides = [(32, 7)]
    for channels, blocks, _ in LEVELS:
        sides += [(channels, 3)] * 2 * blocks
    for c_out, side in sides:
        add(b"con_4", c_out * (c_in * side**2 + 1), (2 / (c_in * side**2)) ** 0.5)
        add(b"affine_", 2 * c_out, 0.7)
        c_in = c_out
    add(b"fc_2", 256 * 128, 0.1, 128, 256)
    return b"".join(content), found


def test_parameters_are_read_in_the_order_in_which_they_are_stored() -> None:
    content, expected = stored_network()
    found = [*read_layers(content)]
    assert len(found) == len(expected) == 59
    assert all(map(torch.equal, found, expected))


def test_descriptors_depend_on_one_image_alone_and_are_finite() -> None:
    network = FaceNetwork(stored_network()[0], CPU)
    images = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8)
    found = network(images)
    assert found.shape == (3, 128)
    assert found.isfinite().all()
    assert found.std() > 0
    torch.testing.assert_close(network(images[1:2]), found[1:2], rtol=1e-3, atol=1e-4)


def test_a_convolution_is_folded_with_its_affine_layer() -> None:
    rng = torch.Generator().manual_seed(0)
    parameters = torch.randn(4 * 3 * 9 + 4, generator=rng)
    affine, x = torch.randn(8, generator=rng), torch.randn(2, 3, 6, 6, generator=rng)
    plain = F.conv2d(x, parameters[:108].view(4, 3, 3, 3), parameters[108:])
    expected = affine[:4].view(-1, 1, 1) * plain + affine[4:].view(-1, 1, 1)
    torch.testing.assert_close(F.conv2d(x, *folded(parameters, affine, 3)), expected)


def test_a_block_fills_up_channels_and_sides_with_zeros_as_dlib_does() -> None:
    x = torch.rand(1, 2, 8, 8)
    weights = [(torch.zeros(4, c, 3, 3), torch.ones(4)) for c in (2, 4)]
    found = residual_block(x, *weights, stride=2)
    assert found.shape == (1, 4, 4, 4)  # the convolutions give 3 x 3 px, the mean of pixels 4 x 4
    torch.testing.assert_close(found[:, :2, 3:], F.avg_pool2d(x, 2)[:, :, 3:])
    torch.testing.assert_close(found[:, :2, :3, :3], F.avg_pool2d(x, 2)[:, :, :3, :3] + 1)
    assert torch.equal(found[:, 2:, :3, :3], torch.ones(1, 2, 3, 3))
    assert not found[:, 2:, 3:].any()


@pytest.mark.slow
def test_descriptors_are_those_of_dlib() -> None:
    dlib = pytest.importorskip("dlib", reason="pip install dlib-bin")
    package, _, name = PACKAGE_FILE.partition("/")
    spec = find_spec(package)
    if spec is None:
        pytest.skip("pip install -r requirements-metrics.txt")
    path = Path((spec.submodule_search_locations or [])[0]) / name
    coarse = torch.rand(4, 3, 9, 9, generator=torch.Generator().manual_seed(0)) * 255
    images = F.interpolate(coarse, size=(150, 150), mode="bicubic").clamp(0, 255).byte()
    pictures = [np.ascontiguousarray(each.permute(1, 2, 0).numpy()) for each in images]
    expected = dlib.face_recognition_model_v1(str(path)).compute_face_descriptor(pictures)
    found = load_face_network(CPU)(images)
    torch.testing.assert_close(found, torch.tensor(np.array(expected)).float(), atol=1e-4, rtol=0)
