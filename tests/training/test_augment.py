"""augment.py: what it leaves alone, what it may do, and that what D is shown hides nothing."""

import math

import pytest
import torch
from torch import Tensor

from training import augment
from training.augment import P_MAX, TARGET, Ada


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augmented(images: Tensor, p: float, source: torch.Generator) -> Tensor:
    return augment.augment(images, augment.draw(len(images), p, source))


def pictures(n: int, side: int = 16, seed: int = 1) -> Tensor:
    return torch.rand(n, 3, side, side, generator=rng(seed)) * 2 - 1


def drawn_on_white(n: int) -> Tensor:
    """Coloured squares on white."""
    images = torch.ones(n, 3, 32, 32)
    images[:, :, 10:22, 10:22] = torch.rand(n, 3, 1, 1, generator=rng(2)) * 2 - 1
    return images


def test_nothing_changes_at_p_0():
    images = pictures(8)
    assert torch.allclose(augmented(images, 0.0, rng()), images, atol=1e-6)
    assert torch.equal(augment.move(images, augment.draw(8, 0.0, rng())), images)


@pytest.mark.parametrize("p", [0.2, 0.5, P_MAX])
def test_each_transformation_is_left_out_with_probability_1_minus_p(p):
    n = 20_000
    drawn = augment.draw(n, torch.tensor(p), rng())
    contrast = drawn.colour.sum(dim=2)[:, 0]
    left_out = {
        "shift": (drawn.affine[:, :, 2] == 0).all(dim=1),
        "turn": drawn.affine[:, 0, 1] == 0,
        "contrast": (contrast - 1).abs() < 1e-6,
        "brightness": drawn.brightness == 0,
    }
    for name, flags in left_out.items():
        assert flags.float().mean().item() == pytest.approx(1 - p, abs=0.02), name
    identity = ~drawn.is_moved & left_out["brightness"]
    identity &= ((drawn.colour - torch.eye(3)).abs() < 1e-6).all(dim=2).all(dim=1)
    assert identity.float().mean().item() == pytest.approx((1 - p) ** 6, abs=0.01)


def test_transformations_stay_gentle():
    drawn = augment.draw(20_000, 1.0, rng())
    linear, shift = drawn.affine[:, :, :2], drawn.affine[:, :, 2] / 2
    angle = torch.atan2(linear[:, 1, 0], linear[:, 0, 0]).rad2deg()
    assert 9.9 < angle.abs().max() <= 10.001
    size = linear.det().sqrt()
    assert 0.89 < size.min() < 0.91
    assert 1.10 < size.max() < 1.12
    assert 0.06 < shift.abs().max() <= 1 / 16
    assert 0.19 < drawn.brightness.abs().max() <= 0.2
    for values in (angle, shift, drawn.brightness, size.log2()):
        assert abs(values.mean()) < 4 * values.std() / math.sqrt(values.numel())


def test_what_is_done_depends_on_the_random_numbers_alone():
    reals, fakes = pictures(8, seed=1).double(), pictures(8, seed=2).double()

    def after(images: Tensor) -> Tensor:
        return augmented(images, 0.7, rng(5))

    origin = after(torch.zeros_like(reals))
    both = after(reals + fakes) - origin
    torch.testing.assert_close(both, after(reals) - origin + after(fakes) - origin)
    assert not torch.allclose(after(reals), augmented(reals, 0.7, rng(6)))


def test_gradients_are_those_of_finite_differences():
    images = pictures(3, side=5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augmented(x, 0.8, rng(3)), (images,))
    augmented(images, 1.0, rng(3)).sum().backward()
    assert images.grad is not None
    assert (images.grad.flatten(1).abs().sum(dim=1) > 0).all()


def test_a_shift_moves_by_whole_pixels_what_it_should():
    images = pictures(1, side=16)
    drawn = augment.draw(1, 0.0, rng())
    place = drawn.affine.clone()
    place[:, 0, 2] = 2 * 3 / 16  # three px from the right
    moved = augment.move(
        images, augment.Transformations(torch.tensor([True]), place, drawn.colour, drawn.brightness)
    )
    torch.testing.assert_close(moved[..., :13], images[..., 3:])
    torch.testing.assert_close(moved[..., 13:], images[..., 13:].flip(3))


def test_a_white_ground_stays_white_wherever_it_is_moved():
    images = drawn_on_white(500)
    moved = augment.move(images, augment.draw(500, 1.0, rng()))
    assert not torch.allclose(moved, images)
    border = torch.cat([moved[:, :, :4].flatten(1), moved[:, :, -4:].flatten(1)], dim=1)
    torch.testing.assert_close(border, torch.ones_like(border))
    assert moved.max() < 1 + 1e-5


def test_greys_stay_grey_and_only_their_level_changes():
    grey = torch.full((200, 3, 8, 8), 0.5)
    tinted = augment.tint(grey, augment.draw(200, 1.0, rng()))
    torch.testing.assert_close(tinted[:, :1].expand_as(tinted), tinted)
    assert tinted.std() > 0.05


def test_the_mean_of_reals_can_be_recovered_from_what_d_is_shown():
    # What D sees on average is a linear function of the mean picture. If that function can be
    # inverted, two sets that D cannot tell apart have one mean (ADA, app. C; Bora et al. 2018).
    side, n = 5, 6000
    basis = torch.eye(side**2).view(-1, 1, side, side).expand(-1, 3, -1, -1)

    def seen(images: Tensor, seed: int) -> Tensor:
        parts = []
        for image in images:
            repeated = image.expand(n, -1, -1, -1)
            parts.append(augmented(repeated, P_MAX, rng(seed)).mean(dim=(0, 1)).flatten())
        return torch.stack(parts)

    origin = seen(torch.zeros(1, 3, side, side), 7)
    operator = seen(basis, 7) - origin
    assert torch.linalg.svdvals(operator).min() > (1 - P_MAX) ** 3
    face = torch.rand(1, 1, side, side, generator=rng(8)).expand(-1, 3, -1, -1)
    recovered = torch.linalg.solve(operator.T, (seen(face, 9) - origin).flatten())
    truth = face[0, 0].flatten()
    assert (recovered - truth).abs().mean() < 0.5 * (seen(face, 9) - truth).abs().mean()


def test_parts_of_a_batch_are_drawn_as_the_whole_of_it_is():
    whole = augment.draw(8, 0.6, rng(4), sets=2)
    for part in (slice(0, 4), slice(4, 8)):
        rows = [*range(8)[part], *range(8, 16)[part]]
        own = augment.draw(8, 0.6, rng(4), sets=2, rows=part)
        for name in ("is_moved", "affine", "colour", "brightness"):
            assert torch.equal(getattr(own, name), getattr(whole, name)[rows])


# The adaptive p


def new_ada(images: int) -> Ada:
    return Ada(images, 0.0, torch.device("cpu"))


def test_p_rises_while_d_is_sure_of_reals_and_falls_when_it_is_not_within_bounds():
    ada = new_ada(4096)
    sure, unsure = torch.tensor(TARGET + 0.01), torch.tensor(TARGET - 0.01)
    for _ in range(3):
        ada.observe(sure, 64)
    assert ada.p == 0  # 192 of 256 seen
    ada.observe(sure, 64)
    assert ada.p.item() == pytest.approx(256 / 4096)
    for _ in range(200):
        ada.observe(sure, 64)
    assert ada.p.item() == pytest.approx(P_MAX)
    for _ in range(4):
        ada.observe(unsure, 64)
    assert ada.p.item() == pytest.approx(P_MAX - 256 / 4096)
    for _ in range(200):
        ada.observe(unsure, 64)
    assert ada.p == 0


def test_p_settles_where_d_is_right_as_often_as_the_target_says():
    ada = new_ada(20_000)
    source = rng(4)
    seen = []
    for _ in range(1500):  # a D whose mean sign falls from 1 to 0 as p grows
        right = torch.rand(32, generator=source) < 1 - ada.p / 2
        ada.observe(torch.where(right, 1.0, -1.0).mean(), 32)
        seen.append(ada.p.item())
    assert sum(seen[750:]) / 750 == pytest.approx(0.4, abs=0.05)


def test_p_goes_on_from_a_saved_state():
    source = rng(5)
    signs = [torch.rand((), generator=source) * 0.4 + 0.5 for _ in range(20)]
    whole, first = new_ada(2000), new_ada(2000)
    for each in signs:
        whole.observe(each, 48)
    for each in signs[:7]:
        first.observe(each, 48)
    second = new_ada(2000)
    second.load_state_dict(first.state_dict())
    for each in signs[7:]:
        second.observe(each, 48)
    assert second.state_dict() == whole.state_dict()
    assert whole.p > 0
