"""Sheets of faces moved along directions in w."""

from collections.abc import Sequence

import torch
from torch import Tensor

from common.images import write_image
from outputs.job import Job
from outputs.sheet import Row, sheet
from sampling.directions import COUNT, factorise, move_along
from sampling.sampler import SHARED_NOISE

STRENGTHS = (-4.0, -2.0, 0.0, 2.0, 4.0)  # on the sheet of all, in standard deviations of w
STRENGTHS_OF_ONE = 9  # on the sheet of one direction


def draw_directions(job: Job, numbers: Sequence[int]) -> list[str]:
    """Write directions.png: faces moved along the first ten directions; return what was written."""
    directions, w_std = factorise(job.faces)[:COUNT], job.faces.w_std()
    rows = []
    for index, direction in enumerate(directions):
        pictures = [p for n in numbers for p in _render(job, n, direction, STRENGTHS, w_std)]
        rows.append(Row(f"{index}", pictures))
    heads = [*map(signed, STRENGTHS)] * len(numbers)
    title = "direction, and strength in standard deviations of w"
    path = job.path("directions.png")
    write_image(sheet(rows, heads, title, apart=len(STRENGTHS)), path)
    return [f"{path}: {len(directions)} directions on {len(numbers)} faces"]


def draw_direction(
    job: Job, numbers: Sequence[int], index: int, strengths: tuple[float, float]
) -> list[str]:
    """Write direction_N.png: each face moved along one direction; return what was written."""
    first, last = strengths
    steps = torch.linspace(first, last, STRENGTHS_OF_ONE).tolist()
    direction, w_std = factorise(job.faces)[index], job.faces.w_std()
    rows = [Row(f"{job.kind} {n}", list(_render(job, n, direction, steps, w_std))) for n in numbers]
    path = job.path(f"direction_{index}.png")
    title = f"direction {index}, strength in standard deviations of w"
    write_image(sheet(rows, [*map(signed, steps)], title), path)
    return [f"{path}: direction {index}, {first:g} to {last:g}, {len(numbers)} faces"]


def signed(strength: float) -> str:
    """Return a strength with its sign, as a heading."""
    return f"{strength:+.3g}" if strength else "0"


def _render(
    job: Job, number: int, direction: Tensor, strengths: Sequence[float], w_std: Tensor
) -> Tensor:
    """Return a face moved along `direction`, uint8 [S, 3, R, R]."""
    latents = job.latents([number])
    noise = latents.noise if job.stored else job.faces.noise([SHARED_NOISE])
    ws = move_along(latents.ws, direction, strengths, w_std)
    return job.faces.render(ws, noise, job.bar.update)
