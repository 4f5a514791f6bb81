"""metrics.py against closed forms, other implementations, and sets with a known answer."""

import numpy as np
import pytest
import torch
from torch import Tensor

from metrics import metrics


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, f: int, seed: int) -> Tensor:
    return torch.randn(n, f, generator=rng(seed))


def photos(n: int, side: int, seed: int) -> Tensor:
    """Smooth random images."""
    coarse = torch.rand(n, 3, 4, 4, generator=rng(seed))
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return (smooth.clamp(0, 1) * 255).to(torch.uint8)


def test_kid_is_the_mean_over_distinct_pairs() -> None:
    x, y = normal(7, 5, 1), normal(9, 5, 2)

    def kernel(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 5 + 1) ** 3)

    xx = [kernel(x[i], x[j]) for i in range(7) for j in range(7) if i != j]
    yy = [kernel(y[i], y[j]) for i in range(9) for j in range(9) if i != j]
    xy = [kernel(a, b) for a in x for b in y]
    expected = np.mean(xx) + np.mean(yy) - 2 * np.mean(xy)
    assert metrics.kid(x, y).item() == pytest.approx(expected, rel=1e-5)


def test_kid_of_one_distribution_is_zero_on_average() -> None:
    values = [metrics.kid(normal(60, 8, 2 * i), normal(60, 8, 2 * i + 1)) for i in range(100)]
    drawn = torch.stack(values)
    assert abs(drawn.mean()) < 3 * drawn.std() / 10
    assert (drawn < 0).any()


def test_the_interval_covers_the_truth_as_often_as_it_should() -> None:
    truth = metrics.kid(normal(4000, 8, 900), normal(4000, 8, 901) + 0.5).item()
    hits = 0
    for i in range(60):
        a, b = normal(100, 8, 2 * i), normal(100, 8, 2 * i + 1) + 0.5
        found = metrics.estimate(lambda a, b: {"KID": metrics.kid(a, b)}, a, b)["KID"]
        hits += abs(found.value - truth) < found.interval
    assert 50 <= hits <= 60


def test_a_metric_keeps_its_name_whatever_the_order() -> None:
    def statistic(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        found = {"mean": (a - b).mean(), "constant": torch.ones(())}
        return found if len(a) == 40 else dict(reversed(found.items()))

    found = metrics.estimate(statistic, normal(40, 2, 1), normal(40, 2, 2))
    assert list(found) == ["mean", "constant"]
    assert found["constant"] == (1, 0)
    assert found["mean"].interval > 0


def test_frechet_distance_is_that_of_the_gaussians() -> None:
    def standardised(n: int, f: int, seed: int) -> Tensor:
        x = normal(n, f, seed).double()
        x = x - x.mean(dim=0)
        return torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T

    a, b = standardised(50, 4, 1), standardised(60, 4, 2)
    # Diagonal covariances commute: the distance is |mu|^2 + sum (s - t)^2.
    s, t = torch.tensor([1.0, 2, 3, 4]), torch.tensor([4.0, 3, 2, 1])
    expected = 4 * 0.5**2 + (s - t).square().sum()
    assert metrics.frechet_distance(a * s, b * t + 0.5).item() == pytest.approx(expected.item())
    assert metrics.frechet_distance(a, a).item() == pytest.approx(0, abs=1e-9)


def test_precision_and_recall_tell_a_missing_mode_from_an_invented_one() -> None:
    two = torch.cat([normal(100, 6, 1), normal(100, 6, 2) + 50])
    one = normal(200, 6, 3)
    precision, recall = metrics.precision_recall(two, one)
    assert precision > 0.8
    assert 0.4 < recall < 0.55
    precision, recall = metrics.precision_recall(one, two)
    assert 0.4 < precision < 0.55
    assert recall > 0.8
    assert metrics.precision_recall(one, normal(200, 6, 4) + 50).tolist() == [0, 0]


def test_balls_reach_to_the_third_neighbour() -> None:
    line = torch.tensor([[0.0], [1], [2], [4], [8]])  # third nearest of 0 is 4, of 8 is 1
    assert metrics.share_within(torch.tensor([[-4.0]]), line) == 1
    assert metrics.share_within(torch.tensor([[-4.1]]), line) == 0
    assert metrics.share_within(torch.tensor([[15.0]]), line) == 1
    assert metrics.share_within(torch.tensor([[15.1]]), line) == 0


def test_the_pyramid_adds_up_to_the_image() -> None:
    image = photos(2, 64, 1)
    levels = metrics.laplacian_pyramid(image)
    assert [level.shape[-1] for level in levels] == [64, 32, 16]
    here = levels[-1]
    for level in reversed(levels[:-1]):
        upsampled = torch.zeros_like(level)
        upsampled[..., ::2, ::2] = 4 * here
        here = level + metrics.binomial_filter(upsampled)
    torch.testing.assert_close(here, image.float())
    flat = metrics.laplacian_pyramid(torch.full((1, 3, 32, 32), 200))
    assert flat[0][..., 4:-4, 4:-4].abs().max() < 1e-3


def test_distances_along_an_axis_are_those_of_sorted_values() -> None:
    a, b = normal(40, 2, 1), normal(40, 2, 2)
    by_hand = [np.abs(np.sort(x) - np.sort(y)).mean() for x, y in zip(a.T, b.T, strict=True)]
    assert metrics.mean_w1(a, b).item() == pytest.approx(np.mean(by_hand))


def test_patches_lie_within_their_own_image_and_are_normalised() -> None:
    flat = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 8, 8)
    found = metrics.patches(flat, rng())
    assert found.shape == (5, 128, 3, 7, 7)
    assert (found == torch.arange(5.0).view(5, 1, 1, 1, 1)).all()
    colours = metrics.normalised(normal(6, 3 * 49 * 4, 1).view(6, 4, 3, 7, 7) * 3 + 1)
    for colour in colours.split(49, dim=1):
        assert colour.mean().abs() < 1e-5
        assert colour.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_sliced_wasserstein_grows_with_noise_and_sees_blur_in_the_fine_level_only() -> None:
    reals, others = photos(100, 32, 1), photos(100, 32, 2)
    noise = torch.randn(others.shape, generator=rng(3))
    noisy = [(others + s * noise).clamp(0, 255).to(torch.uint8) for s in (4, 16, 64)]
    floor = metrics.sliced_wasserstein(reals, others, 32)
    grown = [metrics.sliced_wasserstein(reals, other, 32)[0] for other in noisy]
    assert floor.shape == (2,)
    assert floor[0] < grown[0] < grown[1] < grown[2]
    detailed = noisy[1]
    blurred = metrics.binomial_filter(detailed.float()).to(torch.uint8)
    fine, coarse = metrics.sliced_wasserstein(detailed, blurred, 32)
    assert fine > 4 * coarse


def test_quick_distances_of_halves_are_near_the_plain_ones() -> None:
    reals, fakes = photos(60, 16, 1), photos(60, 16, 2) // 2
    quick = metrics.sliced_wasserstein_of_halves(reals, fakes)
    pairs = metrics.halves(reals, fakes)
    plain = torch.stack([metrics.sliced_wasserstein(a, b, 64) for a, b in pairs])
    assert quick.shape == plain.shape == (metrics.HALVES, 1)
    assert quick.mean().item() == pytest.approx(plain.mean().item(), rel=0.1)
    assert quick.std().item() == pytest.approx(plain.std().item(), rel=0.5)


def test_sliced_wasserstein_leaves_the_global_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    first = metrics.sliced_wasserstein(photos(50, 16, 1), photos(50, 16, 2), 8)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, metrics.sliced_wasserstein(photos(50, 16, 1), photos(50, 16, 2), 8))


def test_images_too_small_for_a_patch_are_refused() -> None:
    assert metrics.sliced_wasserstein(photos(50, 8, 1), photos(50, 8, 1), 8).shape == (1,)
    with pytest.raises(metrics.UserError, match="8 px"):
        metrics.sliced_wasserstein(photos(50, 4, 1), photos(50, 4, 1))
