"""Mixing and directions: what each face gives is exactly what was asked for."""

from pathlib import Path

import pytest
import torch

import generate
from common.cli import UserError
from sampling.directions import factorise, move_along
from sampling.latents import Latents, save_latents
from sampling.mixing import blend, crossovers, layer_weights, read_face
from sampling.sampler import Faces, load_faces
from tests.support.generators import CPU, save_generator


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    path = save_generator(tmp_path_factory.mktemp("mixing") / "snapshot.pt")
    return load_faces(path, CPU, pytest.fail).faces


def test_crossovers_go_over_every_border_in_both_directions() -> None:
    weights = crossovers(6)
    assert weights.shape == (14, 2, 6)
    for border in range(7):
        first = [1.0] * border + [0.0] * (6 - border)
        assert weights[border].tolist() == [first, [1 - share for share in first]]
        assert weights[7 + border].tolist() == weights[border].flip(0).tolist()


def test_a_blend_of_whole_layers_is_the_mix_of_the_generator(faces: Faces) -> None:
    a, b = (read_face(text, faces, 0.7) for text in ("1", "2"))
    found = blend([a, b], crossovers(6))
    for border in range(7):
        assert torch.equal(found.ws[border], faces.G.mix(a.ws, b.ws, border)[0])
        assert torch.equal(found.ws[7 + border], faces.G.mix(b.ws, a.ws, border)[0])
    assert all(torch.equal(x[5:6], y) for x, y in zip(found.noise, a.noise, strict=True))


def test_noise_goes_where_its_style_goes(faces: Faces, tmp_path: Path) -> None:
    latents = Latents(faces.ws([8, 9], 0.7), faces.noise([8, 9]))
    save_latents(tmp_path / "w.npz", faces.G, latents)
    a, b = read_face(str(tmp_path / "w.npz"), faces, 0.7), read_face("2", faces, 0.7)
    assert all(torch.equal(x, y) for x, y in zip(a.noise, faces.noise([8]), strict=True))
    third = blend([a, b], crossovers(6)[2:3])
    for layer in range(6):
        giver = a if layer < 2 else b
        assert torch.equal(third.noise[layer], giver.noise[layer])
        assert torch.equal(third.ws[:, layer], giver.ws[:, layer])


@pytest.mark.parametrize(
    ("given", "count", "expected"),
    [
        ("A:coarse B:middle", 2, [[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]),
        ("A:coarse=0.25", 2, [[0.25] * 4 + [0.5] * 2, [0.75] * 4 + [0.5] * 2]),
        ("A:0-5=0.5", 3, [[0.5] * 6, [0.25] * 6, [0.25] * 6]),
        ("C:3,5 B:0=0.5", 3, None),
        ("", 2, [[0.5] * 6, [0.5] * 6]),
    ],
)
def test_the_rest_of_a_layer_comes_equally_from_the_faces_not_named_for_it(
    faces: Faces, given: str, count: int, expected: list[list[float]] | None
) -> None:
    weights = layer_weights(generate.gifts(given), count, faces)
    assert weights.shape == (1, count, 6)
    assert torch.allclose(weights.sum(dim=1), torch.ones(1, 6))
    if expected:
        assert torch.allclose(weights[0], torch.tensor(expected, dtype=torch.float32))
    else:
        assert weights[0, :, 3].tolist() == weights[0, :, 5].tolist() == [0, 0, 1]
        assert weights[0, :, 0].tolist() == [0.25, 0.5, 0.25]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("A:coarse=0.7 B:coarse=0.7", "layer 0 sum to 1.4"),
        ("A:0-5=0.5 B:3=0.2", "layer 3 sum to 0.7"),
        ("C:coarse", "--give C"),
        ("A:fine", "within 0-5"),
        ("A:5-6", "within 0-5"),
    ],
)
def test_impossible_weights_and_layers_are_refused(faces: Faces, given: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        layer_weights(generate.gifts(given), 2, faces)


def test_directions_are_the_axes_along_which_styles_change_most(faces: Faces) -> None:
    found = factorise(faces).double()
    assert torch.allclose(found @ found.T, torch.eye(16, dtype=torch.float64), atol=1e-5)
    styles = [layer.style.effective_weight().double() for layer in faces.G.synthesis.layers]
    changes = torch.stack([torch.cat([s @ n for s in styles]).norm() for n in found])
    assert (changes[:-1] >= changes[1:] - 1e-6).all()
    rng = torch.Generator().manual_seed(0)
    for _ in range(50):
        other = torch.randn(16, generator=rng, dtype=torch.float64)
        change = torch.cat([s @ (other / other.norm()) for s in styles]).norm()
        assert changes[-1] - 1e-6 <= change <= changes[0] + 1e-6


def test_strength_is_in_standard_deviations_and_0_changes_nothing(faces: Faces) -> None:
    ws, direction = faces.ws([3], 0.7), factorise(faces)[2]
    found = move_along(ws, direction, [-2.0, 0.0, 1.0], faces.w_std())
    assert torch.equal(found[1:2], ws)
    assert (found[2] - ws[0])[0].norm().item() == pytest.approx(faces.w_std().item(), rel=1e-3)
    assert torch.allclose(found[0] - ws[0], -2 * (found[2] - ws[0]), atol=1e-5)
