"""Losses against torch's own, penalties against values known from analysis."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.losses import (
    D_LOSS,
    G_LOSS,
    WGAN_DRIFT,
    between,
    d_logistic,
    d_relativistic,
    d_wgan,
    g_logistic,
    g_relativistic,
    g_wgan,
    r1_penalty,
    r1_r2_penalty,
    wgan_gradient_penalty,
)

PENALTIES = [r1_penalty, r1_r2_penalty, wgan_gradient_penalty]


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
    torch.testing.assert_close(d_logistic(real, fake), entropy(real, ones) + entropy(fake, zeros))
    torch.testing.assert_close(g_logistic(fake), entropy(fake, ones))


def test_the_logistic_losses_stay_finite_for_a_d_that_is_quite_sure():
    sure = torch.tensor([1e4], requires_grad=True)
    assert d_logistic(-sure, sure).item() == pytest.approx(2e4)
    g_logistic(-sure).backward()
    assert sure.grad is not None
    assert sure.grad.item() == pytest.approx(1)


def test_the_wasserstein_losses_are_differences_of_means_and_a_small_drift():
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-2.0, 4.0])
    assert d_wgan(real, fake).item() == pytest.approx(1 - 2 + WGAN_DRIFT * 5)
    assert g_wgan(fake).item() == pytest.approx(-1)


@pytest.mark.parametrize("name", ["r1", "wgan-gp"])
def test_d_gains_by_telling_apart_and_g_by_looking_real(name):
    low, high = torch.full((4,), -1.0), torch.full((4,), 1.0)
    assert D_LOSS[name](high, low) < D_LOSS[name](low, high)
    assert G_LOSS[name](high) < G_LOSS[name](low)


def test_both_gain_on_pairs():
    low, high = torch.full((4,), -1.0), torch.full((4,), 1.0)
    assert D_LOSS["rpgan"](high, low) < D_LOSS["rpgan"](low, high)
    assert g_relativistic(low, high) < g_relativistic(high, low)


def test_r1_of_a_linear_d_is_the_square_of_its_slope():
    a, x = torch.randn(3, 4, 4, dtype=torch.float64), points()
    torch.testing.assert_close(r1_penalty(x, linear(a, x)), a.square().sum())


def test_the_relativistic_losses_are_cross_entropy_of_a_linear_d_with_its_own_gradient():
    # D(x) = a.x: d/da of -log sigmoid(a.(x - y)) is -(1 - sigmoid) (x - y), and y's is its part.
    a = torch.randn(3, 4, 4, dtype=torch.float64, requires_grad=True)
    reals, fakes = points(), points()
    entropy = F.binary_cross_entropy_with_logits
    margin = linear(a, reals) - linear(a, fakes)
    ones, zeros = torch.ones_like(margin), torch.zeros_like(margin)
    d_loss = d_relativistic(linear(a, reals), linear(a, fakes))
    g_loss = g_relativistic(linear(a, reals), linear(a, fakes))
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
    for loss in (d_relativistic, g_relativistic):
        torch.testing.assert_close(loss(real + 5, fake + 5), loss(real, fake))


def test_r1_and_r2_of_a_linear_d_are_twice_the_square_of_its_slope():
    a, x = torch.randn(3, 4, 4, dtype=torch.float64), points()
    torch.testing.assert_close(r1_r2_penalty(x, linear(a, x)), 2 * a.square().sum())


def test_r1_and_r2_are_the_sum_of_the_penalties_of_reals_and_fakes():
    x = points()
    logits = x.flatten(1).square().sum(dim=1) * torch.arange(6)
    real, fake = x[:3].detach().requires_grad_(), x[3:].detach().requires_grad_()
    r1 = r1_penalty(real, real.flatten(1).square().sum(dim=1) * torch.arange(3))
    r2 = r1_penalty(fake, fake.flatten(1).square().sum(dim=1) * torch.arange(3, 6))
    torch.testing.assert_close(r1_r2_penalty(x, logits), r1 + r2)


def test_r1_of_a_quadratic_d_is_its_analytic_value():
    x = points()
    matrix = torch.randn(48, 48, dtype=torch.float64)
    flat = x.flatten(1)
    logits = ((flat @ matrix) * flat).sum(dim=1)  # x' M x, with gradient (M + M') x
    gradient = flat.detach() @ (matrix + matrix.T)
    expected = sum(row.dot(row) for row in gradient) / len(x)
    torch.testing.assert_close(r1_penalty(x, logits), expected)


@pytest.mark.parametrize("length", [0.25, 1.0, 3.0])
def test_the_wgan_penalty_of_a_linear_d_is_how_far_its_slope_is_from_one(length):
    a, x = torch.randn(3, 4, 4, dtype=torch.float64), points()
    a = length * a / a.norm()
    penalty = wgan_gradient_penalty(x, linear(a, x))
    assert penalty.item() == pytest.approx((length - 1) ** 2, abs=1e-12)


def test_the_wgan_penalty_is_taken_of_each_image_alone():
    slopes = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    x = points(3)
    logits = slopes * x.flatten(1)[:, 0]
    assert wgan_gradient_penalty(x, logits).item() == pytest.approx((1 + 0 + 4) / 3)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalties_have_the_right_gradient_in_the_weights_of_d(penalty):
    D = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 1)).double()
    x = points()

    def value() -> Tensor:
        return penalty(x, D(x).squeeze(1))

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


def test_points_between_lie_on_the_way_from_reals_to_fakes():
    reals, fakes = torch.randn(3, 3, 4, 4), torch.randn(3, 3, 4, 4)
    mixed = between(reals, fakes, torch.tensor([0.0, 0.25, 1.0]))
    assert mixed.requires_grad
    assert mixed.is_leaf
    torch.testing.assert_close(mixed[0], reals[0])
    torch.testing.assert_close(mixed[1], 0.75 * reals[1] + 0.25 * fakes[1])
    torch.testing.assert_close(mixed[2], fakes[2])


def test_two_equal_logits_of_zero_cost_a_coin_toss():
    zero = torch.zeros(4)
    assert d_logistic(zero, zero).item() == pytest.approx(2 * math.log(2))
    assert g_logistic(zero).item() == pytest.approx(math.log(2))
