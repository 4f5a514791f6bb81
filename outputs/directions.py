"""Sheets of directions in w: faces moved along each, and along one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.images import write_image
from outputs.job import Job
from outputs.sheet import Row, sheet
from sampling.directions import COUNT, factorise, moved
from sampling.sampler import SHARED_NOISE

SHOWN = (-4.0, -2.0, 0.0, 2.0, 4.0)  # strengths there, in standard deviations of w
STRENGTHS = 9  # on the sheet of one direction


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
