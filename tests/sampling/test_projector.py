"""Projection: the search starts well, comes closer, and no photo depends on the others."""

import itertools

import pytest
import torch

from common.images import to_float
from critic import Discriminator
from model import Stage
from sampling import projector
from sampling.projector import Projector, as_trained, pyramid_error, rate
from sampling.sampler import Faces
from tests.support.generators import SMALL, untrained


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "SAMPLES", 8)


@pytest.fixture
def faces() -> Faces:
    return Faces(untrained().eval().requires_grad_(False), Stage(16, 1.0))


def test_a_face_of_the_generator_is_found_again(faces: Faces) -> None:
    target = to_float(faces.render(faces.ws([20], 0.7), [0 * n for n in faces.noise([0])]))
    projector = Projector(faces, None, 60, torch.float32)
    counts = []
    found = projector.project(target, 0, counts.append)
    errors = [pyramid_error(to_float(step), target).item() for step in found.frames]
    assert counts == [1] * 60
    assert errors[-1] < 0.3 * errors[0]
    shown = faces.render(found.latents.ws, found.latents.noise)
    assert torch.equal(shown, found.frames[-1])


def test_the_search_starts_at_the_best_of_the_samples(faces: Faces) -> None:
    samples = faces.render(faces.ws(range(8), 0.7), faces.noise([0]))
    target = to_float(samples[5:6])
    found = Projector(faces, None, 1, torch.float32).project(target, 0)
    start = faces.render(faces.ws([5], 0.7), [0 * n for n in faces.noise([0])])
    assert (found.frames[0].int() - start.int()).abs().max() <= 1


def test_a_photo_is_projected_the_same_alone_and_among_others(faces: Faces) -> None:
    D = Discriminator(SMALL)
    targets = to_float(faces.render(faces.ws([20, 21, 22], 1.0), faces.noise([5])))
    projector = Projector(faces, D, 3, torch.float32)
    together = projector.project(targets, 0).frames[-1]
    alone = projector.project(targets[1:2], 0).frames[-1]
    assert (together[1:2].int() - alone.int()).abs().float().mean() < 1  # but for rounding
    assert (together[1:2].int() - together[:1].int()).abs().float().mean() > 5


def test_the_discriminator_affects_the_projection(faces: Faces) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        D = Discriminator(SMALL)
    target = to_float(faces.render(faces.ws([20], 1.0), faces.noise([5])))
    seen, unseen = (Projector(faces, d, 3, torch.float32).project(target, 0) for d in (D, None))
    assert not torch.equal(seen.latents.ws, unseen.latents.ws)
    assert all(p.grad is None for p in [*D.parameters(), *faces.G.parameters()])


def test_the_pyramid_sums_the_errors_of_all_sizes() -> None:
    a = torch.zeros(1, 3, 8, 8)
    b = torch.ones(1, 3, 8, 8)
    assert pyramid_error(a, b).tolist() == [2]  # 8 and 4 px
    checks = torch.tensor([1.0, -1.0]).repeat(4)
    b = (checks[:, None] * checks).expand(1, 3, 8, 8)
    assert pyramid_error(a, b).tolist() == [1]  # its means are the same: only 8 px sees it


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [rate(step / 100) for step in range(100)]
    peak = rates.index(max(rates))
    assert 3 <= peak <= 6
    assert all(a < b for a, b in itertools.pairwise(rates[:peak]))
    assert all(a > b for a, b in itertools.pairwise(rates[peak:]))
    assert rates[-1] < 0.001


def test_while_a_resolution_fades_in_photos_are_faded_too(faces: Faces) -> None:
    photos = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    faces.stage = Stage(8, 0.25)
    seen = as_trained(photos, faces)
    assert seen.shape == (1, 3, 8, 8)
    assert torch.allclose(seen.mean(), to_float(photos).mean(), atol=1e-5)
    assert seen.std() < to_float(photos).std() / 2
