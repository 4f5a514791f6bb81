"""Convolutions with their gradients written out, against what PyTorch makes of plain ones."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from critic import Discriminator
from model import ModelConfig, Stage
from ops.adain import activate
from ops.conv import blur, convolve, filtered, fuse_down, fuse_up, padding_for
from training.losses import squared_gradient


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def kernels_over_blocks(weight: Tensor) -> Tensor:
    """Return the sum of a 3 x 3 kernel at its four places in a 4 x 4 one."""
    return sum(
        F.pad(weight, (right, 1 - right, down, 1 - down)) for right in (0, 1) for down in (0, 1)
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_kernels_are_fused_with_resampling_both_ways(layout):
    weight = torch.randn(5, 4, 3, 3).contiguous(memory_format=layout).requires_grad_()
    expected = kernels_over_blocks(weight) * 0.3
    direction = torch.randn(5, 4, 4, 4)
    (gradient,) = torch.autograd.grad(expected, weight, direction, retain_graph=True)
    for kernels in (
        fuse_down(weight, 0.3, torch.float32),
        fuse_up(weight.flip(2, 3), 0.3, torch.float32).transpose(0, 1),
    ):
        torch.testing.assert_close(kernels, expected)
        (ours,) = torch.autograd.grad(kernels, weight, direction)
        torch.testing.assert_close(ours, gradient)


def test_fused_kernels_have_the_layout_that_convolutions_want():
    weight = torch.randn(8, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    for kernels in (fuse_down(weight, 1.0, torch.bfloat16), fuse_up(weight, 1.0, torch.bfloat16)):
        assert kernels.is_contiguous(memory_format=torch.channels_last)
        assert kernels.dtype == torch.bfloat16


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (4, 2, 1), (1, 1, 0)])
def test_first_and_second_derivatives_are_those_of_pytorch(kernel, stride, padding):
    def plain(*tensors: Tensor) -> Tensor:
        return F.conv2d(*tensors, stride, padding)

    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    found = []
    for function in (partial(convolve, stride=stride), plain):
        y = function(x, weight, bias)
        first = torch.autograd.grad((y**3).sum(), [x, weight, bias], retain_graph=True)
        (of_x,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
        second = torch.autograd.grad(of_x.square().sum(), [x, weight, bias])
        found.append((y, *first, of_x, *second))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


def test_the_gradient_of_the_blur_is_that_of_its_convolution_to_any_order():
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    found = []
    for function in (blur, filtered):
        y = function(x, bias)
        (first,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
        found.append((first, *torch.autograd.grad((first**2).sum(), [x, bias])))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


def test_leaky_relu_in_place_has_the_derivatives_of_a_copy():
    x = torch.randn(40, dtype=torch.float64, requires_grad=True)
    found = []
    for function in (activate, lambda y: F.leaky_relu(y, 0.2)):
        y = function(x * 3).square()
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        found.append((y, first, *torch.autograd.grad(first.square().sum(), x)))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected)


def test_r1_has_the_gradient_that_plain_convolutions_give_it(monkeypatch):
    def plain(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding_for(weight))

    D = Discriminator(ModelConfig.of(16, 0.03)).double()
    found = []
    for slow in (False, True):
        if slow:
            monkeypatch.setattr("model.convolve", plain)
            monkeypatch.setattr("model.blur", filtered)
        torch.manual_seed(1)
        reals = torch.randn(4, 3, 16, 16, dtype=torch.float64, requires_grad=True)
        penalty = squared_gradient(D(reals, Stage(16, 0.5)), reals)
        found.append(torch.autograd.grad(penalty, list(D.parameters()), allow_unused=True))
    assert sum(each is not None and bool(each.any()) for each in found[0]) > 10
    for ours, expected in zip(*found, strict=True):
        if expected is None or not expected.any():  # such as the bias of the logit
            assert ours is None or not ours.any()
        else:
            torch.testing.assert_close(ours, expected)
