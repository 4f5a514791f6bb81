"""What follows a convolution: AdaIN against instance norm, blocks against the plain form."""

import pytest
import torch
import torch.nn.functional as F

from ops import adain
from ops.adain import finish, plain


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def restyled(x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """`finish` of maps whose activation and noise change nothing: all values above zero."""
    assert (x >= 0).all()
    return finish(x, None, torch.zeros(x.shape[1]), style)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_adain_is_instance_norm_with_the_style_as_scale_and_shift(layout):
    x, style = 20 + 2 * torch.randn(4, 6, 8, 8), torch.randn(4, 12)
    normal = F.instance_norm(x.double(), eps=1e-8)
    expected = normal * (1 + style[:, :6, None, None]) + style[:, 6:, None, None]
    y = restyled(x.contiguous(memory_format=layout), style)
    torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)


def test_what_comes_out_has_the_statistics_of_the_style():
    x, style = 50 * torch.randn(4, 6, 16, 16) - 9, torch.randn(4, 12)
    y = finish(x, torch.randn(4, 1, 16, 16), torch.randn(6), style)
    std, mean = torch.std_mean(y, dim=(2, 3), correction=0)
    torch.testing.assert_close(mean, style[:, 6:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(std, (1 + style[:, :6]).abs(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_are_taken_in_float32_whatever_the_maps_are(dtype):
    x, style = (8 + torch.randn(4, 6, 16, 16)).to(dtype), torch.zeros(4, 12)
    y = restyled(x, style)
    assert y.dtype == dtype
    assert (y - F.instance_norm(x.double(), eps=1e-8)).abs().max() < 0.1


def test_maps_without_variance_become_the_shift_alone():
    style = torch.randn(2, 6)
    y = restyled(torch.ones(2, 3, 4, 4), style)
    torch.testing.assert_close(y, style[:, 3:, None, None].expand_as(y), rtol=0, atol=5e-3)


@pytest.mark.parametrize("block", [16, 1 << 10, 1 << 16])
@pytest.mark.parametrize("shape", [(4, 6, 4, 4), (3, 5, 16, 16), (1, 64, 8, 8)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("with_noise", [True, False])
def test_blocks_give_the_maps_and_gradients_of_the_plain_form(
    monkeypatch, block, shape, layout, with_noise
):
    monkeypatch.setattr(adain, "BLOCK", block)
    n, c, h, w = shape
    x = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
    noise = torch.randn(n, 1, h, w, requires_grad=True) if with_noise else None
    strength, style = torch.randn(c, requires_grad=True), torch.randn(n, 2 * c, requires_grad=True)
    inputs = [x, noise, strength, style] if with_noise else [x, style]
    g = torch.randn(shape)
    expected, y = plain(x, noise, strength, style), finish(x, noise, strength, style)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(
        torch.autograd.grad(y, inputs, g), torch.autograd.grad(expected, inputs, g), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_gradients_in_bfloat16_are_nearly_those_of_float32():
    shape = (2, 8, 16, 16)
    x, noise, g = torch.randn(shape), torch.randn(2, 1, 16, 16), torch.randn(shape)
    strength, style = torch.randn(8, requires_grad=True), torch.randn(2, 16, requires_grad=True)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        maps = x.to(dtype).requires_grad_()
        y = finish(maps, noise, strength, style)
        found.append(torch.autograd.grad(y, [maps, strength, style], g.to(dtype)))
    for exact, rough in zip(*found, strict=True):
        assert ((rough - exact).norm() / exact.norm()).item() < 0.02
