"""Adversarial losses and gradient penalties: pure functions of logits and gradients.

Logits are D's raw outputs [N], positive for "real". Every function returns a scalar tensor.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

WGAN_GP_WEIGHT = 10.0  # lambda of Gulrajani et al. 2017, sec. 4
WGAN_DRIFT = 0.001  # epsilon of Karras et al. 2018, app. A.1: keeps D(real) from drifting off


def d_logistic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return D's loss -log D(x) - log(1 - D(G(z))) (Goodfellow et al. 2014, sec. 3)."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def g_logistic(fake_logits: Tensor) -> Tensor:
    """Return G's non-saturating loss: -log D(G(z)) (Goodfellow et al. 2014, sec. 3)."""
    return F.softplus(-fake_logits).mean()


def d_wgan(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the Wasserstein critic's loss with the drift term of Karras et al. 2018, app. A.1."""
    return fake_logits.mean() - real_logits.mean() + WGAN_DRIFT * real_logits.square().mean()


def g_wgan(fake_logits: Tensor) -> Tensor:
    """Return the Wasserstein generator's loss: -D(G(z)) (Arjovsky et al. 2017, algorithm 1)."""
    return -fake_logits.mean()


def d_relativistic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return D's loss on pairs: -log sigmoid(D(x) - D(G(z))) (Huang et al. 2024, R3GAN, sec. 2)."""
    return F.softplus(fake_logits - real_logits).mean()


def g_relativistic(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return G's loss on pairs: D's with reals and fakes exchanged (Huang et al. 2024, sec. 2)."""
    return d_relativistic(fake_logits, real_logits)


def r1_penalty(reals: Tensor, real_logits: Tensor) -> Tensor:
    """Return E[||grad_x D(x)||^2] on reals [N, C, H, W] (Mescheder et al. 2018, eq. 9).

    Weigh it with gamma / 2. `reals` must require grad and have led to `real_logits`.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), reals, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def r1_r2_penalty(points: Tensor, logits: Tensor) -> Tensor:
    """Return R1 on reals plus R2, the same on fakes (Huang et al. 2024, R3GAN, sec. 2).

    `points` [2N, C, H, W] are N of each. Weigh it with gamma / 2, as the paper does both.
    """
    return 2 * r1_penalty(points, logits)


def wgan_gradient_penalty(points: Tensor, logits: Tensor) -> Tensor:
    """Return E[(||grad_x D(x)|| - 1)^2] at `points` [N, C, H, W] (Gulrajani et al. 2017, eq. 3).

    The points lie between reals and fakes, see `between`; weigh it with WGAN_GP_WEIGHT.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), points, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def between(reals: Tensor, fakes: Tensor, t: Tensor) -> Tensor:
    """Return points between reals and fakes, `t` [N] of the way (Gulrajani et al. 2017, sec. 4)."""
    return torch.lerp(reals, fakes, t.view(-1, 1, 1, 1)).requires_grad_()


D_LOSS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "r1": d_logistic,
    "wgan-gp": d_wgan,
    "rpgan": d_relativistic,
}
G_LOSS: dict[str, Callable[[Tensor], Tensor]] = {"r1": g_logistic, "wgan-gp": g_wgan}
