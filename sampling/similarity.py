"""How similar two pictures are: PSNR in dB and SSIM, as functions of their pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor

PEAK = 255.0  # of uint8 pixels
WINDOW, SIGMA = 11, 1.5  # px, of the Gaussian window (Wang et al. 2004, sec. III-C)
K1, K2 = 0.01, 0.03  # keep the fractions finite (ibid.)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio [N] in dB of uint8 images [N, C, H, W].

    Infinite for equal images; 1 dB more is a fifth less squared error.
    """
    error = (a.double() - b.double()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(PEAK**2 / error)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean structural similarity [N], at most 1, of uint8 images [N, C, H, W].

    Wang, Bovik, Sheikh, Simoncelli 2004, eq. 13 and 17, for each colour channel, over all windows
    inside the image; below 11 px the window is the largest odd size that fits.
    """
    n, c, h, w = a.shape
    x, y = (images.double().reshape(n * c, 1, h, w) for images in (a, b))
    reach = (min(WINDOW, h, w) - 1) // 2
    offset = torch.arange(-reach, reach + 1, dtype=torch.float64, device=a.device)
    taps = torch.exp(-(offset**2) / (2 * SIGMA**2))
    window = taps[:, None] * taps
    window = (window / window.sum())[None, None]

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values, window)

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).view(n, -1).mean(dim=1)
