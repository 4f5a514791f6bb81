"""weights/faces64.pt is small, holds a generator alone, and draws faces of both sets."""

from pathlib import Path

import torch

from sampling.sampler import load_faces

FILE = Path(__file__).parents[1] / "weights" / "faces64.pt"


def test_the_included_generator_makes_varied_faces_of_both_sets() -> None:
    assert FILE.stat().st_size < 12e6
    faces, _, entries = load_faces(FILE, torch.device("cpu"), print)
    assert faces.stage == (64, 1.0)
    assert entries.keys() == {"format", "model", "iteration", "nimg", "stage"}
    seeds = range(32)
    pictures = faces.render(faces.ws(seeds, 0.7), faces.noise(seeds)).float()
    distances = torch.cdist(pictures.flatten(1), pictures.flatten(1), p=1) / pictures[0].numel()
    assert distances[~torch.eye(len(seeds), dtype=torch.bool)].min() > 4  # of 255: no two alike
    corners = pictures[:, :, :8, 56:].mean((1, 2, 3))
    assert (corners > 225).sum() > 4  # a white background, as in all of young/
    assert (corners < 190).sum() > 4
