"""Directions in w without labels: where the styles change most, in closed form.

Shen and Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs" (SeFa), sec. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from common.images import write_image
from model import SynthesisLayer
from outputs.grids import SHARED_NOISE, Job
from outputs.sheet import Row, sheet
from sampling.sampler import Faces

COUNT = 10  # directions on the sheet of all
SHOWN = (-4.0, -2.0, 0.0, 2.0, 4.0)  # strengths there, in standard deviations of w
STRENGTHS = 9  # on the sheet of one direction


def factorise(faces: Faces) -> Tensor:
    """Return all directions [w_dim, w_dim], one a row, of length 1, the strongest first.

    They maximise the change of the styles ||A n||^2 in turn, each at right angles to those
    before (Shen and Zhou 2021, eq. 7 to 9): the eigenvectors of A^T A, A being the weights of the
    style of every layer in use. The largest element of each is positive, as its sign is free.
    """
    layers = list(faces.G.synthesis.layers)[: faces.layers]
    styles = [cast(SynthesisLayer, layer).style.effective_weight() for layer in layers]
    weights = torch.cat(styles).double().cpu()
    _, vectors = torch.linalg.eigh(weights.T @ weights)
    found = vectors.T.flip(0)
    largest = found.gather(1, found.abs().argmax(dim=1, keepdim=True))
    return (found * largest.sign()).float().to(faces.device)


def moved(faces: Faces, ws: Tensor, direction: Tensor, strengths: Sequence[float]) -> Tensor:
    """Return `ws` [1, num_ws, w_dim] moved along `direction` [w_dim] in every layer: [S, ...].

    A strength of 1 is one standard deviation of w.
    """
    steps = torch.tensor(strengths, device=ws.device)[:, None, None] * faces.spread()
    return ws + steps * direction


def draw_directions(job: Job, numbers: Sequence[int]) -> list[str]:
    """Write directions.png: the first ten directions on each of the faces."""
    found = factorise(job.faces)[:COUNT]
    rows = []
    for index, direction in enumerate(found):
        pictures = [each for n in numbers for each in _pictures(job, n, direction, SHOWN)]
        rows.append(Row(f"{index}", pictures))
    heads = [*map(signed, SHOWN)] * len(numbers)
    title = "direction, and strength in standard deviations of w"
    path = job.path("directions.png")
    write_image(sheet(rows, heads, title, apart=len(SHOWN)), path)
    return [f"{path}: {len(found)} directions on {len(numbers)} faces"]


def draw_direction(job: Job, numbers: Sequence[int]) -> list[str]:
    """Write direction_N.png: each of the faces moved along one direction."""
    index, (first, last) = job.args.direction, job.args.strength
    strengths = torch.linspace(first, last, STRENGTHS).tolist()
    direction = factorise(job.faces)[index]
    rows = [Row(job.label(n), list(_pictures(job, n, direction, strengths))) for n in numbers]
    path = job.path(f"direction_{index}.png")
    title = f"direction {index}, strength in standard deviations of w"
    write_image(sheet(rows, [*map(signed, strengths)], title), path)
    return [f"{path}: direction {index}, {first:g} to {last:g}, {len(numbers)} faces"]


def signed(strength: float) -> str:
    """Return a strength as a heading."""
    return f"{strength:+.3g}" if strength else "0"


def _pictures(job: Job, number: int, direction: Tensor, strengths: Sequence[float]) -> Tensor:
    """Return one face moved along `direction`, uint8 [S, 3, R, R], and move the bar."""
    ws, noise = job.some([number])
    noise = noise if job.latents else job.faces.noise([SHARED_NOISE])
    pictures = job.faces.render(moved(job.faces, ws, direction, strengths), noise)
    job.bar.update(len(pictures))
    return pictures
