"""Adversarial losses, each one object: D's loss, G's loss, D's gradient penalty, what ADA watches.

Logits are D's raw outputs [N], positive for "real". Losses and penalties are scalar tensors.
To add a loss, write its class and name it in LOSSES. train.py reads LOSSES for --help, so torch,
which takes seconds to import, is imported only where it is called.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    LogitsOf = Callable[[Tensor, int], Tensor]  # D's, given images and how many sets they are

WGAN_GP_WEIGHT = 10.0  # lambda of Gulrajani et al. 2017, sec. 4
WGAN_DRIFT = 0.001  # epsilon of Karras et al. 2018, app. A.1: keeps D(real) from drifting off


class Loss(ABC):
    """An adversarial loss. The defaults are those of a loss regularized by R1."""

    summary: str  # for --help
    penalty_name = "R1"  # on the progress bar
    is_lazy = True  # the penalty is taken every `r1_every` iterations, that much stronger
    has_scale = True  # how far apart logits lie can be compared between runs

    @abstractmethod
    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return D's loss."""

    @abstractmethod
    def g_loss(self, fake_logits: Tensor, real_logits: Callable[[], Tensor]) -> Tensor:
        """Return G's loss. `real_logits()` runs D on reals, for losses that compare."""

    def penalty_weight(self, r1_gamma: float) -> float:
        """Return the weight of `penalty` in D's loss."""
        return r1_gamma / 2

    def penalty(self, logits_of: LogitsOf, images: Tensor, t: Callable[[], Tensor]) -> Tensor:
        """Return D's gradient penalty at `images` [2N, 3, R, R]: N reals, then N fakes.

        `t()` draws N uniform numbers in [0, 1), for penalties at points in between.
        """
        reals = images.chunk(2)[0].detach().requires_grad_()
        return squared_gradient(logits_of(reals, 1), reals)

    def confidence(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return r_t in [-1, 1], how sure D is of reals (Karras et al. 2020, ADA, eq. 1)."""
        return real_logits.sign().mean()


class Logistic(Loss):
    """The non-saturating loss (Goodfellow et al. 2014, sec. 3) with R1 (Mescheder et al. 2018)."""

    summary = "logistic with R1"

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return -log D(x) - log(1 - D(G(z)))."""
        return softplus(-real_logits).mean() + softplus(fake_logits).mean()

    def g_loss(self, fake_logits: Tensor, real_logits: Callable[[], Tensor]) -> Tensor:
        """Return -log D(G(z))."""
        return softplus(-fake_logits).mean()


class Wasserstein(Loss):
    """The critic's loss of Arjovsky et al. 2017 with the penalty of Gulrajani et al. 2017."""

    summary = "Wasserstein with gradient penalty"
    penalty_name = "GP"
    is_lazy = False
    has_scale = False

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return D(G(z)) - D(x) and the drift term of Karras et al. 2018, app. A.1."""
        return fake_logits.mean() - real_logits.mean() + WGAN_DRIFT * real_logits.square().mean()

    def g_loss(self, fake_logits: Tensor, real_logits: Callable[[], Tensor]) -> Tensor:
        """Return -D(G(z)) (Arjovsky et al. 2017, algorithm 1)."""
        return -fake_logits.mean()

    def penalty_weight(self, r1_gamma: float) -> float:
        """Return lambda, whatever R1's gamma is."""
        return WGAN_GP_WEIGHT

    def penalty(self, logits_of: LogitsOf, images: Tensor, t: Callable[[], Tensor]) -> Tensor:
        """Return E[(||grad_x D(x)|| - 1)^2] at points in between (Gulrajani et al. 2017, eq. 3)."""
        reals, fakes = images.chunk(2)
        points = reals.lerp(fakes, t().view(-1, 1, 1, 1)).requires_grad_()
        slope = gradient(logits_of(points, 1), points).flatten(1).norm(dim=1)
        return (slope - 1).square().mean()

    def confidence(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the mean sign of the logits' differences, as logits alone have no zero."""
        return (real_logits - fake_logits).sign().mean()


class Relativistic(Loss):
    """The loss on pairs with R1 and R2 (Huang et al. 2024, R3GAN, sec. 2)."""

    summary = "relativistic pairs with R1 and R2"

    def d_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return -log sigmoid(D(x) - D(G(z)))."""
        return softplus(fake_logits - real_logits).mean()

    def g_loss(self, fake_logits: Tensor, real_logits: Callable[[], Tensor]) -> Tensor:
        """Return D's loss with reals and fakes exchanged."""
        return self.d_loss(fake_logits, real_logits())

    def penalty(self, logits_of: LogitsOf, images: Tensor, t: Callable[[], Tensor]) -> Tensor:
        """Return R1 on reals plus R2, the same on fakes."""
        images = images.detach().requires_grad_()
        return 2 * squared_gradient(logits_of(images, 2), images)

    def confidence(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the mean sign of the pairs' differences, which alone count."""
        return (real_logits - fake_logits).sign().mean()


def softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x))."""
    import torch.nn.functional as F

    return F.softplus(x)


def gradient(logits: Tensor, images: Tensor) -> Tensor:
    """Return the gradient of each logit [N] in its image [N, C, H, W], differentiable again."""
    import torch

    return torch.autograd.grad(logits.sum(), images, create_graph=True)[0]


def squared_gradient(logits: Tensor, images: Tensor) -> Tensor:
    """Return E[||grad_x D(x)||^2] (Mescheder et al. 2018, eq. 9)."""
    return gradient(logits, images).square().sum(dim=(1, 2, 3)).mean()


LOSSES: dict[str, Loss] = {"r1": Logistic(), "wgan-gp": Wasserstein(), "rpgan": Relativistic()}
