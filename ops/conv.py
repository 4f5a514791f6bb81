"""Convolutions with fast derivatives: fused up- and downsampling kernels, and the blur.

They compute what PyTorch's do, in the layout that oneDNN and cuDNN prefer (channels_last). They are
twice differentiable in the maps without PyTorch's generic second derivative, which handles each
group of channels separately.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """Return F.conv2d, padded to keep the size, or to halve it with 4 x 4 kernels and stride 2.

    The gradient in x is differentiable again, that in the weights is not.
    """
    if torch.compiler.is_compiling():
        return F.conv2d(x, weight, bias, stride, padding_for(weight))
    out: Tensor = Convolution.apply(x, weight, bias, stride)
    return out


def padding_for(weight: Tensor) -> int:
    """Return the padding on each side for a kernel."""
    return (weight.shape[-1] - 1) // 2


class Convolution(torch.autograd.Function):
    """conv2d whose second derivative uses the same fast kernels as the first.

    Under create_graph, only the gradient in x is computed, as a transposed convolution: a gradient
    penalty needs no other, and PyTorch would compute that in the weights, too.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        """Return the maps [N, c_out, H / stride, W / stride]."""
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        ctx.biases = None if bias is None else [len(weight)]
        return F.conv2d(x, weight, bias, stride, padding_for(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight and bias, as far as they are needed."""
        x, weight = ctx.saved_tensors
        strides, paddings = [ctx.stride] * 2, [padding_for(weight)] * 2
        if torch.is_grad_enabled():  # create_graph
            return F.conv_transpose2d(grad, weight, None, strides, paddings), None, None, None
        needed = list(ctx.needs_input_grad[:3])
        grads = torch.ops.aten.convolution_backward(
            grad, x, weight, ctx.biases, strides, paddings, [1, 1], False, [0, 0], 1, needed
        )
        return *grads, None


def fuse_down(weight: Tensor, factor: float, dtype: torch.dtype) -> Tensor:
    """Return 3 x 3 kernels [A, B, 3, 3] fused with a 2 x 2 sum, times `factor`: [A, B, 4, 4].

    Computed in float32 as a product with a constant 16 x 9 matrix, which is cheap both ways. The
    result is channels_last, like the parameters, so nothing has to be reordered.
    """
    taps = block_sums(weight, factor)
    rows = weight.permute(0, 2, 3, 1).reshape(len(weight), 9, -1)  # [A, 9, B], no copy
    kernels = torch.matmul(taps, rows).to(dtype)
    return kernels.view(len(weight), 4, 4, -1).permute(0, 3, 1, 2)


def fuse_up(weight: Tensor, factor: float, dtype: torch.dtype) -> Tensor:
    """Return 3 x 3 kernels [A, B, 3, 3] fused with nearest upsampling: [B, A, 4, 4], transposed."""
    taps = block_sums(weight, factor).flip(1)
    a, b = weight.shape[:2]
    columns = weight.permute(0, 2, 3, 1).reshape(a, 9 * b).t().contiguous()
    kernels = torch.matmul(taps, columns.view(9, b, a).transpose(0, 1)).to(dtype)  # [B, 16, A]
    return kernels.view(b, 4, 4, a).permute(0, 3, 1, 2)


def block_sums(weight: Tensor, factor: float) -> Tensor:
    """Return the matrix [16, 9] that maps 3 x 3 kernels to 4 x 4 ones, times `factor`."""
    first = torch.eye(3, 4, dtype=weight.dtype, device=weight.device)
    along = first + first.roll(1, dims=1)  # each of three taps adds to two of four
    return (torch.kron(along, along) * factor).t()


def blur(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x [N, C, H, W] filtered by [1, 2, 1] / 4 both ways, plus a bias [C]."""
    if torch.compiler.is_compiling():
        return filtered(x, bias)
    out: Tensor = Blur.apply(x, bias)
    return out


class Blur(torch.autograd.Function):
    """The blur, which is its own transpose, so that every derivative is a blur."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the blurred maps [N, C, H, W]."""
        ctx.bias_dtype = None if bias is None else bias.dtype
        return filtered(x, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of x and the bias."""
        grad_bias = None
        if ctx.needs_input_grad[1]:
            grad_bias = grad.sum(dim=(0, 2, 3), dtype=ctx.bias_dtype)
        return blur(grad), grad_bias


def filtered(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what `blur` does, as a depthwise convolution."""
    offset = torch.arange(-1, 2, dtype=x.dtype, device=x.device)  # no copy to wait for
    taps = 0.5 - offset.abs() / 4
    kernel = (taps[:, None] * taps).expand(x.shape[1], 1, 3, 3)
    bias = None if bias is None else bias.to(x.dtype)
    return F.conv2d(x, kernel, bias, padding=1, groups=x.shape[1])
