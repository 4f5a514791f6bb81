"""The generator: StyleGAN (Karras et al. 2019), progressive, with AdaIN and Xavier initialisation.

A Generator is a Mapping and a Synthesis; mixing, truncation and projection work on the `ws` in
between. Every departure from the paper is commented where it is made.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.images import upsample
from ops.adain import SLOPE, activate, finish
from ops.conv import blur, convolve, fuse_down, fuse_up

GAIN = math.sqrt(2 / (1 + SLOPE**2))  # nn.init.calculate_gain("leaky_relu", SLOPE)
MAPPING_LR = 0.01  # the mapping network learns 100 times slower (Karras et al. 2019, app. C)
RGB_START = 0.1  # initial weights of ToRGB, relative to Xavier's standard deviation
W_AVG_DECAY = 0.995  # of the running mean of w, toward which truncation pulls


class Stage(NamedTuple):
    """What G and D are called with: the output `resolution` in px, and `alpha`, its fade-in.

    `alpha` in [0, 1]: 0 shows the previous resolution upsampled, 1 the new one alone.
    """

    resolution: int
    alpha: float


@dataclass(frozen=True)
class ModelConfig:
    """What the networks are built from; stored in every checkpoint.

    `resolution` is the largest in px, a power of two from 4. `width` scales all channel counts.
    """

    resolution: int
    width: float
    z_dim: int
    w_dim: int
    mapping_layers: int

    @classmethod
    def of(
        cls, resolution: int, width: float, w_dim: int | None = None, layers: int | None = None
    ) -> Self:
        """Return the config that train.py builds; by default z and w scale with the width.

        The paper has 512 numbers and eight layers at any width. But a style moves with each step
        of Adam in proportion to the length of w, and more layers make the w of all z more alike:
        both kept short runs from learning shapes (doc/quality_history.md).
        """
        dim = w_dim or max(1, round(512 * width))
        return cls(resolution, width, dim, dim, layers or 2)

    def channels(self, resolution: int) -> int:
        """Return the number of feature maps: min(512, 16384 / resolution) times the width."""
        return max(1, round(min(512, 16384 // resolution) * self.width))

    @property
    def resolutions(self) -> list[int]:
        """Return 4, 8, ... up to the largest resolution."""
        return [1 << n for n in range(2, self.resolution.bit_length())]

    def layers_up_to(self, resolution: int) -> list[int]:
        """Return the resolution of each layer that is in use: two of 4 px, two of 8 px, ..."""
        return [r for r in self.resolutions if r <= resolution for _ in range(2)]

    @property
    def num_ws(self) -> int:
        """Return the number of layers, each of which takes a style."""
        return len(self.layers_up_to(self.resolution))


class Dense(nn.Module):
    """A fully connected layer with Xavier variance and equalized learning rate.

    The parameter has unit variance and is scaled when used, so that a step of Adam is equally
    large relative to every weight (Karras et al. 2018, sec. 4.1). The scale is Xavier's constant
    (Glorot and Bengio 2010, eq. 12), as in the class project this grew from, not He's.
    """

    def __init__(self, n_in: int, n_out: int, gain: float = 1.0, lr_mul: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / lr_mul)
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.scale = gain * math.sqrt(2 / (n_in + n_out)) * lr_mul
        self.lr_mul = lr_mul

    def effective_weight(self) -> Tensor:
        """Return the weight [n_out, n_in] that multiplies the input."""
        return self.weight * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, n_out] in x's dtype, as every layer here does.

        The input is scaled instead of the weight: the same product, with fewer multiplications.
        """
        weight, bias = self.weight.to(x.dtype), (self.bias * self.lr_mul).to(x.dtype)
        return F.linear(x * self.scale, weight, bias)


class Conv(nn.Module):
    """A k x k convolution that keeps the size; Xavier variance and equalized learning rate.

    `start` scales the initial weights.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 3, gain: float = GAIN, start: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(start * torch.randn(c_out, c_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.scale = gain * math.sqrt(2 / ((c_in + c_out) * kernel**2))

    def effective_weight(self) -> Tensor:
        """Return the weight [c_out, c_in, k, k] that is convolved with."""
        return self.weight * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, c_out, H, W]."""
        weight = self.effective_weight().to(x.dtype)
        return convolve(x, weight, self.bias.to(x.dtype))


class UpConv(Conv):
    """Nearest upsampling, 3 x 3 convolution, blur.

    The first two are fused into a 4 x 4 transposed convolution with stride 2: the same function
    with 2.25 times fewer multiplications (fused_scale in the official code). The blur removes the
    grid that upsampling leaves (Karras et al. 2019, sec. 2).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, c_out, 2H, 2W]."""
        weight = fuse_up(self.weight, self.scale, x.dtype)
        return blur(F.conv_transpose2d(x, weight, stride=2, padding=1), self.bias)


class DownConv(Conv):
    """Blur, then a 3 x 3 convolution and a 2 x 2 mean, fused into 4 x 4 with stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, c_out, H / 2, W / 2]."""
        weight = fuse_down(self.weight, self.scale / 4, x.dtype)
        return convolve(blur(x), weight, self.bias.to(x.dtype), stride=2)


class SynthesisLayer(nn.Module):
    """Convolution, noise, bias, leaky ReLU, AdaIN: one grey box of Karras et al. 2019, fig. 1b.

    The bias is added in the convolution (or blur), before the noise; the sum is the same. Noise
    strengths are scaled by about 1 / sqrt(fan-in), like weights: with the paper's unit scale they
    learned 17 times as fast as the rest.
    """

    def __init__(self, conv: nn.Module | None, channels: int, w_dim: int) -> None:
        super().__init__()
        self.conv = conv
        self.noise_strength = nn.Parameter(torch.zeros(channels, 1, 1))
        self.noise_scale = 1 / math.sqrt(9 * channels)
        self.style = Dense(w_dim, 2 * channels)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Return [N, C, H, W] for w [N, w_dim] and noise [N, 1, H, W]; None is no noise."""
        if self.conv is not None:
            x = self.conv(x)
        strength = self.noise_strength.flatten() * self.noise_scale
        return finish(x, noise, strength, self.style(w))


class Mapping(nn.Module):
    """z -> w: normalised, then dense layers (Karras et al. 2019, sec. 2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = [config.z_dim] + [config.w_dim] * config.mapping_layers
        self.layers = nn.ModuleList(Dense(a, b, GAIN, MAPPING_LR) for a, b in pairwise(widths))

    def forward(self, z: Tensor) -> Tensor:
        """Return w [N, w_dim] for z [N, z_dim]; the length of z does not matter."""
        x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for layer in self.layers:
            x = activate(layer(x))
        return x


class Synthesis(nn.Module):
    """ws -> images, at any resolution up to the largest, with fade-in between two of them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # The paper starts from ones. Then all maps are alike, so for thousands of images the
        # styles at 4 px had no shapes to choose from, and every face had the same outline.
        self.const = nn.Parameter(torch.randn(1, config.channels(4), 4, 4))
        self.layers = nn.ModuleList()
        self.to_rgb = nn.ModuleDict()
        for resolution in config.resolutions:
            c_out = config.channels(resolution)
            up = None if resolution == 4 else UpConv(config.channels(resolution // 2), c_out)
            self.layers.append(SynthesisLayer(up, c_out, config.w_dim))
            self.layers.append(SynthesisLayer(Conv(c_out, c_out), c_out, config.w_dim))
            # Nearly grey at first: random colours would tell D at once which images are fake,
            # again for each resolution that is faded in.
            rgb = Conv(c_out, 3, kernel=1, gain=1.0, start=RGB_START)
            self.to_rgb[str(resolution)] = rgb

    def forward(
        self,
        ws: Tensor,
        stage: Stage,
        noise: list[Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return float32 images [N, 3, R, R], about [-1, 1], for ws [N, num_ws, w_dim].

        `noise` is one [N, 1, r, r] for each layer in use, see `draw_noise`; None is no noise.
        `dtype` is that of the convolutions.
        """
        x = self.const.expand(ws.shape[0], -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        last = 2 * stage.resolution.bit_length() - 4  # layers in use: 2 at 4 px, 4 at 8 px, ...
        below = x
        for i in range(last):
            if i == last - 2:
                below = x  # the input of ToRGB at the resolution below
            x = self.layers[i](x, ws[:, i], None if noise is None else noise[i])
            x = x.to(dtype)  # layer 0 is in float32: the constant varies too little for bf16
        rgb = self.to_rgb[str(stage.resolution)](x).float()
        if stage.alpha == 1:
            return rgb
        coarse = self.to_rgb[str(stage.resolution // 2)](below).float()
        return torch.lerp(upsample(coarse), rgb, stage.alpha)


class Generator(nn.Module):
    """z -> w -> ws -> images; `w_avg` is the running mean of w."""

    w_avg: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config)
        self.synthesis = Synthesis(config)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def broadcast(self, w: Tensor) -> Tensor:
        """Return ws [N, num_ws, w_dim]: w [N, w_dim] repeated for every layer."""
        return w[:, None].expand(-1, self.config.num_ws, -1)

    def mix(self, ws_a: Tensor, ws_b: Tensor, cutoff: int | Tensor) -> Tensor:
        """Return `ws_a` in the layers before `cutoff`, and `ws_b` from there on.

        `cutoff` is in 0..num_ws, one number or one per image [N]: 0 gives b, num_ws gives a.
        Style mixing: Karras et al. 2019, sec. 3.1.
        """
        layer = torch.arange(ws_a.shape[1], device=ws_a.device)
        from_a = layer < torch.as_tensor(cutoff, device=ws_a.device).view(-1, 1)  # [N or 1, L]
        return torch.where(from_a[:, :, None], ws_a, ws_b)

    def truncate(self, ws: Tensor, psi: float | Tensor) -> Tensor:
        """Return `ws` pulled toward the mean style: psi = 1 leaves it, psi = 0 gives `w_avg`.

        Trades variety for quality (Karras et al. 2019, app. B); psi outside [0, 1] extrapolates.
        """
        return torch.lerp(self.w_avg.expand_as(ws), ws, psi)

    def draw_noise(self, n: int, resolution: int, rng: torch.Generator) -> list[Tensor]:
        """Return normal noise [n, 1, r, r] for each layer up to `resolution`, on rng's device."""
        return [
            torch.randn(n, 1, r, r, generator=rng, device=rng.device)
            for r in self.config.layers_up_to(resolution)
        ]

    @torch.no_grad()
    def track_w_avg(self, w_mean: Tensor) -> None:
        """Update `w_avg` with the mean w [w_dim] of a batch."""
        self.w_avg.lerp_(w_mean, 1 - W_AVG_DECAY)


@torch.no_grad()
def update_ema(G_ema: Generator, G: Generator, beta: float) -> None:
    """Move G_ema's parameters toward G's, with decay `beta`; copy `w_avg`."""
    torch._foreach_lerp_(list(G_ema.parameters()), list(G.parameters()), 1 - beta)
    G_ema.w_avg.copy_(G.w_avg)
