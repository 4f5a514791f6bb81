"""What a layer does after its convolution: noise, leaky ReLU, instance norm, style.

`plain` is the definition, in a few lines of PyTorch. On a CPU, `Blockwise` does the same in a third
of the time: its gradient is written out, and it works on blocks that fit into the cache.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SLOPE = 0.2  # of every leaky ReLU (Karras et al. 2018, app. A.1)
EPSILON = 1e-8  # added to the variance of a map
BLOCK = 1 << 16  # values a CPU core works on at a time: 256 KiB, well within its cache


def activate(x: Tensor) -> Tensor:
    """Return leaky ReLU of x, computed in place: no gradient needs the previous values."""
    return F.leaky_relu_(x, SLOPE)


def finish(x: Tensor, noise: Tensor | None, strength: Tensor, style: Tensor) -> Tensor:
    """Return x [N, C, H, W] with noise, leaky ReLU and AdaIN applied, in x's dtype.

    `noise` [N or 1, 1, H, W] times `strength` [C] is added (None is no noise); `style` [N, 2C] is
    the scale minus 1, then the shift of the normalised maps (Karras et al. 2019, fig. 1b, eq. 1).
    Computed in float32: a nearly constant map, as there are at the start, is scaled up so much
    that rounding to bfloat16 would outweigh the style.
    """
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        noise = None if noise is None else noise.expand(len(x), -1, -1, -1)
        return Blockwise.apply(x, noise, strength, style)
    return plain(x, noise, strength, style)


def plain(x: Tensor, noise: Tensor | None, strength: Tensor, style: Tensor) -> Tensor:
    """Return what `finish` does, in plain PyTorch."""
    x, dtype = x.float(), x.dtype
    if noise is not None:
        x = x + noise * strength[:, None, None]
    x = F.leaky_relu(x, SLOPE)
    variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
    y_scale, y_shift = style.float()[:, :, None, None].chunk(2, dim=1)  # [N, C, 1, 1] each
    styled = (1 + y_scale) * (x - mean) * torch.rsqrt(variance + EPSILON) + y_shift
    return styled.to(dtype)


class Blocks:
    """Cuts maps [N, C, H, W] into blocks of pixels [M, R, C], and groups blocks for all threads."""

    def __init__(self, maps: Tensor) -> None:
        self.n, self.c, self.h, self.w = maps.shape
        self.pixels = self.h * self.w
        self.parts = 1  # of each image
        while self.pixels // self.parts * self.c > BLOCK and self.parts < self.pixels:
            self.parts *= 2
        at_once = torch.get_num_threads() * BLOCK // (self.pixels // self.parts * self.c)
        starts = range(0, self.n * self.parts, max(1, at_once))
        self.slices = [slice(start, start + starts.step) for start in starts]

    def cut(self, maps: Tensor) -> Tensor:
        """Return maps [N, any, H, W] as [M, R, any], without a copy if they are channels_last."""
        rows = self.pixels // self.parts
        return maps.permute(0, 2, 3, 1).reshape(self.n * self.parts, rows, maps.shape[1])

    def join(self, blocks: Tensor) -> Tensor:
        """Return the inverse of `cut`."""
        return blocks.view(self.n, self.h, self.w, self.c).permute(0, 3, 1, 2)

    def mean(self, sums: Tensor) -> Tensor:
        """Return the mean over each image's pixels [N, C] from the blocks' sums [M, C]."""
        return sums.view(self.n, self.parts, self.c).sum(dim=1) / self.pixels

    def repeat(self, values: Tensor) -> Tensor:
        """Return values [N, C] repeated for each block: [M, 1, C]."""
        return values.repeat_interleave(self.parts, dim=0)[:, None]


class Blockwise(torch.autograd.Function):
    """`plain` in two passes over the maps each way; differentiable once."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, noise: Tensor | None, strength: Tensor, style: Tensor
    ) -> Tensor:
        """Return the finished maps [N, C, H, W]."""
        blocks = Blocks(x)
        x = blocks.cut(x)
        noise = None if noise is None else blocks.cut(noise)
        active, out = torch.empty_like(x), torch.empty_like(x)
        sums, squares = x.new_empty(2, len(x), blocks.c, dtype=torch.float32)
        for s in blocks.slices:
            a = x[s].float()
            if noise is not None:
                a = torch.addcmul(a, noise[s], strength)
            a = torch.maximum(a, a * SLOPE)
            active[s] = a
            sums[s] = a.sum(dim=1)
            squares[s] = (a * a).sum(dim=1)
        mean = blocks.mean(sums)
        rstd = torch.rsqrt((blocks.mean(squares) - mean.square()).clamp(min=0) + EPSILON)
        y_scale, y_shift = style.float().chunk(2, dim=1)  # [N, C] each
        scale = (1 + y_scale) * rstd
        factor, shift = blocks.repeat(scale), blocks.repeat(y_shift - mean * scale)
        for s in blocks.slices:
            out[s] = torch.addcmul(shift[s], active[s].float(), factor[s])
        ctx.save_for_backward(active, noise, strength, mean, rstd, scale)
        ctx.blocks, ctx.style_dtype = blocks, style.dtype
        return blocks.join(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, noise (if it needs one), strength and style."""
        active, noise, strength, mean, rstd, scale = ctx.saved_tensors
        blocks = ctx.blocks
        g = blocks.cut(grad)
        sums, products = g.new_empty(2, len(g), blocks.c, dtype=torch.float32)
        for s in blocks.slices:
            part = g[s].float()
            sums[s] = part.sum(dim=1)
            products[s] = (part * active[s]).sum(dim=1)
        g_mean = blocks.mean(sums)
        g_normed = (blocks.mean(products) - mean * g_mean) * rstd  # mean of g times normalised x
        # dL/dx = scale * (g - mean(g) - normalised x * mean(g * normalised x)), then leaky ReLU
        slope = -scale * rstd * g_normed
        factor, weight = blocks.repeat(scale), blocks.repeat(slope)
        shift = blocks.repeat(-scale * g_mean - mean * slope)
        grad_x = torch.empty_like(active)
        grad_strength = None if noise is None else mean.new_zeros(blocks.c)
        grad_noise = torch.empty_like(noise) if ctx.needs_input_grad[1] else None
        for s in blocks.slices:
            a = active[s].float()
            part = torch.addcmul(shift[s], a, weight[s]).addcmul_(g[s].float(), factor[s])
            part = torch.ops.aten.leaky_relu_backward(part, a, SLOPE, True)
            grad_x[s] = part
            if noise is not None:
                grad_strength += noise[s].flatten() @ part.flatten(0, 1)
            if grad_noise is not None:
                grad_noise[s] = part @ strength[:, None]
        grad_style = torch.cat([g_normed, g_mean], dim=1) * blocks.pixels
        if grad_noise is not None:
            grad_noise = grad_noise.view(blocks.n, 1, blocks.h, blocks.w)
        return blocks.join(grad_x), grad_noise, grad_strength, grad_style.to(ctx.style_dtype)
