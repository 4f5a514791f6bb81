"""PSNR and SSIM against the papers' formulas, written out pixel by pixel."""

import math

import pytest
import torch

from sampling.similarity import psnr, ssim


def pictures(count: int, side: int, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=rng, dtype=torch.uint8)


def slow_ssim(a: list[list[float]], b: list[list[float]]) -> float:
    """Wang et al. 2004, eq. 13 to 17, one window after the other, in plain Python."""
    side, reach = len(a), 5
    offsets = [(i, j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1)]
    weights = [math.exp(-(i * i + j * j) / (2 * 1.5**2)) for i, j in offsets]
    weights = [weight / sum(weights) for weight in weights]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for y in range(reach, side - reach):
        for x in range(reach, side - reach):
            left = [a[y + i][x + j] for i, j in offsets]
            right = [b[y + i][x + j] for i, j in offsets]
            mu_a = sum(w * v for w, v in zip(weights, left, strict=True))
            mu_b = sum(w * v for w, v in zip(weights, right, strict=True))
            var_a = sum(w * (v - mu_a) ** 2 for w, v in zip(weights, left, strict=True))
            var_b = sum(w * (v - mu_b) ** 2 for w, v in zip(weights, right, strict=True))
            both = zip(weights, left, right, strict=True)
            cov = sum(w * (p - mu_a) * (q - mu_b) for w, p, q in both)
            top = (2 * mu_a * mu_b + c1) * (2 * cov + c2)
            found.append(top / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2)))
    return sum(found) / len(found)


def test_ssim_is_the_formula_of_its_paper() -> None:
    a = pictures(2, 14)
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    b = (a.float() + 40 * noise).clamp(0, 255).to(torch.uint8)
    for index in range(2):
        colours = zip(a[index].tolist(), b[index].tolist(), strict=True)
        expected = sum(slow_ssim(p, q) for p, q in colours) / 3
        assert ssim(a, b)[index].item() == pytest.approx(expected, abs=1e-9)


def test_a_picture_is_wholly_like_itself_and_less_like_another() -> None:
    a, b = pictures(2, 16), pictures(2, 16, seed=1)
    assert ssim(a, a).tolist() == pytest.approx([1, 1])
    assert (ssim(a, b) < 0.2).all()
    assert psnr(a, a).tolist() == [math.inf, math.inf]


def test_psnr_of_an_error_of_one_level_everywhere() -> None:
    a = pictures(1, 8).clamp(max=254)
    assert psnr(a, a + 1).item() == pytest.approx(20 * math.log10(255))


@pytest.mark.parametrize("side", [4, 8])
def test_small_pictures_have_a_similarity_too(side: int) -> None:
    a = pictures(1, side)
    assert ssim(a, a).item() == pytest.approx(1)
    assert ssim(a, 255 - a).item() < 0.5
