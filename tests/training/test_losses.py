"""Losses against torch's own, penalties against values known from analysis."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.losses import (
    LOSSES,
    WGAN_DRIFT,
    Logistic,
    Loss,
    Relativistic,
    Wasserstein,
    squared_gradient,
)

R1, GP, R1_R2 = Logistic(), Wasserstein(), Relativistic()


def never() -> Tensor:
    raise AssertionError("this loss does not compare with reals")


def halfway() -> Tensor:
    return torch.full((3,), 0.5, dtype=torch.float64)


def penalty_of(loss: Loss, D: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return a loss's penalty at images that are half reals, half fakes."""
    return loss.penalty(lambda points, sets: D(points), images, halfway)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def points(n: int = 6) -> Tensor:
    return torch.randn(n, 3, 4, 4, dtype=torch.float64).requires_grad_()


def linear(a: Tensor, x: Tensor) -> Tensor:
    return (x * a).sum(dim=(1, 2, 3)) + 7


def test_the_logistic_losses_are_cross_entropy_with_the_right_labels():
    real, fake = torch.randn(9) * 4, torch.randn(9) * 4
    entropy = F.binary_cross_entropy_with_logits
    ones, zeros = torch.ones(9), torch.zeros(9)
    torch.testing.assert_close(R1.d_loss(real, fake), entropy(real, ones) + entropy(fake, zeros))
    torch.testing.assert_close(R1.g_loss(fake, never), entropy(fake, ones))


def test_the_logistic_losses_stay_finite_for_a_d_that_is_quite_sure():
    sure = torch.tensor([1e4], requires_grad=True)
    assert R1.d_loss(-sure, sure).item() == pytest.approx(2e4)
    R1.g_loss(-sure, never).backward()
    assert sure.grad is not None
    assert sure.grad.item() == pytest.approx(1)


def test_the_wasserstein_losses_are_differences_of_means_and_a_small_drift():
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-2.0, 4.0])
    assert GP.d_loss(real, fake).item() == pytest.approx(1 - 2 + WGAN_DRIFT * 5)
    assert GP.g_loss(fake, never).item() == pytest.approx(-1)


@pytest.mark.parametrize("name", LOSSES)
def test_d_gains_by_telling_apart_and_g_by_looking_real(name):
    low, high = torch.full((4,), -1.0), torch.full((4,), 1.0)
    loss = LOSSES[name]
    assert loss.d_loss(high, low) < loss.d_loss(low, high)
    assert loss.g_loss(high, lambda: low) < loss.g_loss(low, lambda: high)


@pytest.mark.parametrize("name", LOSSES)
def test_confidence_is_one_for_a_d_that_knows_all_reals_and_minus_one_for_its_opposite(name):
    low, high = torch.full((4,), -1.0), torch.full((4,), 1.0)
    assert LOSSES[name].confidence(high, low) == 1
    assert LOSSES[name].confidence(low, high) == -1


def test_confidence_needs_a_zero_only_where_logits_have_one():
    real, fake = torch.tensor([5.0, 6.0]), torch.tensor([4.0, 7.0])
    assert R1.confidence(real, fake) == 1
    assert GP.confidence(real, fake) == R1_R2.confidence(real, fake) == 0


def test_r1_of_a_linear_d_is_the_square_of_its_slope():
    a, x = torch.randn(3, 4, 4, dtype=torch.float64), points()
    torch.testing.assert_close(penalty_of(R1, partial(linear, a), x), a.square().sum())


def test_the_relativistic_losses_are_cross_entropy_of_a_linear_d_with_its_own_gradient():
    # D(x) = a.x: d/da of -log sigmoid(a.(x - y)) is -(1 - sigmoid) (x - y), and y's is its part.
    a = torch.randn(3, 4, 4, dtype=torch.float64, requires_grad=True)
    reals, fakes = points(), points()
    entropy = F.binary_cross_entropy_with_logits
    margin = linear(a, reals) - linear(a, fakes)
    ones, zeros = torch.ones_like(margin), torch.zeros_like(margin)
    d_loss = R1_R2.d_loss(linear(a, reals), linear(a, fakes))
    g_loss = R1_R2.g_loss(linear(a, fakes), lambda: linear(a, reals))
    torch.testing.assert_close(d_loss, entropy(margin, ones))
    torch.testing.assert_close(g_loss, entropy(margin, zeros))
    wrong = torch.sigmoid(-margin).detach()
    (slope,) = torch.autograd.grad(d_loss, a)
    expected = -(wrong.view(-1, 1, 1, 1) * (reals - fakes)).mean(dim=0)
    torch.testing.assert_close(slope, expected.detach())
    (pull,) = torch.autograd.grad(g_loss, fakes)  # G's wish for a fake lies along the slope of D
    expected = -((1 - wrong).view(-1, 1, 1, 1) * a) / len(fakes)
    torch.testing.assert_close(pull, expected.detach())


def test_relativistic_losses_do_not_care_where_zero_is():
    real, fake = torch.randn(9, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    torch.testing.assert_close(R1_R2.d_loss(real + 5, fake + 5), R1_R2.d_loss(real, fake))
    shifted = R1_R2.g_loss(fake + 5, lambda: real + 5)
    torch.testing.assert_close(shifted, R1_R2.g_loss(fake, lambda: real))


def test_r1_and_r2_are_the_sum_of_the_penalties_of_reals_and_fakes():
    def D(x: Tensor) -> Tensor:
        return x.flatten(1).pow(3).sum(dim=1)

    x = points()
    r1 = penalty_of(R1, D, x)
    r2 = penalty_of(R1, D, x.roll(3, 0))  # fakes in the place of reals
    torch.testing.assert_close(penalty_of(R1_R2, D, x), r1 + r2)


def test_r1_of_a_quadratic_d_is_its_analytic_value():
    x = points()
    matrix = torch.randn(48, 48, dtype=torch.float64)
    flat = x.flatten(1)
    logits = ((flat @ matrix) * flat).sum(dim=1)  # x' M x, with gradient (M + M') x
    gradient = flat.detach() @ (matrix + matrix.T)
    expected = sum(row.dot(row) for row in gradient) / len(x)
    torch.testing.assert_close(squared_gradient(logits, x), expected)


@pytest.mark.parametrize("length", [0.25, 1.0, 3.0])
def test_the_wgan_penalty_of_a_linear_d_is_how_far_its_slope_is_from_one(length):
    a, x = torch.randn(3, 4, 4, dtype=torch.float64), points()
    a = length * a / a.norm()
    penalty = penalty_of(GP, partial(linear, a), x)
    assert penalty.item() == pytest.approx((length - 1) ** 2, abs=1e-12)


def test_the_wgan_penalty_is_taken_of_each_image_alone():
    slopes = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    penalty = penalty_of(GP, lambda x: slopes * x.flatten(1)[:, 0], points())
    assert penalty.item() == pytest.approx((1 + 0 + 4) / 3)


@pytest.mark.parametrize("name", LOSSES)
def test_penalties_have_the_right_gradient_in_the_weights_of_d(name):
    D = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 1)).double()
    x = points()

    def value() -> Tensor:
        return penalty_of(LOSSES[name], lambda x: D(x).squeeze(1), x)

    weight = D[0].weight
    (gradient,) = torch.autograd.grad(value(), weight)
    direction = torch.randn_like(weight)
    step, values = 1e-5, []
    with torch.no_grad():
        for move in (step, -2 * step):
            weight += move * direction
            with torch.enable_grad():
                values.append(value().item())
    slope = (values[0] - values[1]) / (2 * step)
    assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-6)
    assert abs(slope) > 1e-3


def test_the_wgan_penalty_is_taken_between_reals_and_fakes():
    x, seen = points(), []

    def D(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.flatten(1).sum(dim=1)

    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    GP.penalty(lambda points, sets: D(points), x, lambda: t)
    reals, fakes = x.detach().chunk(2)
    torch.testing.assert_close(seen[0][0], reals[0])
    torch.testing.assert_close(seen[0][1], 0.75 * reals[1] + 0.25 * fakes[1])
    torch.testing.assert_close(seen[0][2], fakes[2])
