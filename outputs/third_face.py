"""Sheets of a third face: what each of two faces, or more, gives to it, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from common.images import to_uint8, write_image
from data.photos import Recipe
from outputs.job import Job
from outputs.sheet import Row, difference, heat, sheet
from sampling.latents import Latents, save_latents, unique_names
from sampling.mixing import NAMES, Face, blend, crossovers
from sampling.projector import Projector, as_trained, prepare_photos
from sampling.similarity import psnr

MOST = 128.0  # of 255: the change that is brightest in a heat map


def find_photos(
    job: Job, paths: Sequence[Path], recipe: Recipe, load: Callable[[], Projector]
) -> tuple[dict[Path, Face], list[str]]:
    """Find photos as project.py does and keep their styles; return the faces and what was written.

    `load` gives the projector once the photos are known to be sound. Raises PhotoError.
    """
    faces = job.faces
    targets = as_trained(prepare_photos(paths, recipe), faces).to(faces.device)
    projector = load()
    with tqdm(total=len(paths) * projector.steps, unit=" steps", leave=False, disable=None) as bar:
        projection = projector.project(targets, 0, bar.update)
    latents, ratios = projection.latents, psnr(to_uint8(targets).cpu(), projection.way[-1])
    found, lines = {}, []
    for i, (photo, name) in enumerate(zip(paths, unique_names(paths), strict=True)):
        one = slice(i, i + 1)
        face = Face(name[:20], latents.ws[one], [maps[one] for maps in latents.noise])
        kept = job.path(f"{name}.npz")
        save_latents(kept, faces.G, Latents(face.ws, face.noise))
        lines.append(
            f"{kept}: {photo}, PSNR {ratios[i]:.2f} dB; --mix with this file spares the search"
        )
        found[photo] = face
    return found, lines


def draw_crossover(job: Job, chosen: Sequence[Face]) -> list[str]:
    """Write crossover.png: the border between two faces moves over every layer, both ways.

    Below each third face stands what changed against the face that all its layers came from.
    """
    layers = job.faces.layers
    pictures = render(job, blend(chosen, crossovers(layers)))
    rows = []
    for direction, (giver, taker) in enumerate([("A", "B"), ("B", "A")]):
        there = pictures[direction * (layers + 1) : (direction + 1) * (layers + 1)]
        rows.append(Row(f"layers from {giver},\nthe rest of {taker}", list(there)))
        rows.append(
            Row(f"what that\nchanges in {taker}", list(heat(difference(there, there[0]), MOST)))
        )
    heads = ["none", *(f"0-{last}" if last else "0" for last in range(layers))]
    sides = ["", *(f"to {4 << last // 2} px" for last in range(layers))]
    heads = [f"{head}\n{side}" for head, side in zip(heads, sides, strict=True)]
    heads[-1] = f"{heads[-1].splitlines()[0]}\nall"
    path = job.path("crossover.png")
    write_image(sheet(rows, heads, titled(chosen), MOST), path)
    return [f"{path}: {' x '.join(face.name for face in chosen)}, {layers + 1} borders both ways"]


def draw_third(job: Job, chosen: Sequence[Face], weights: Tensor) -> list[str]:
    """Write third.png: the faces, the one that `weights` make of them, and how it differs."""
    third = blend(chosen, weights)
    alone = torch.eye(len(chosen))[:, :, None].expand(-1, -1, weights.shape[2])
    pictures = render(job, blend(chosen, torch.cat([alone, weights])))
    changes = heat(difference(pictures[:-1], pictures[-1]), MOST)
    heads = [NAMES[i] for i in range(len(chosen))] + ["third face"]
    rows = [Row("", list(pictures)), Row("difference to\nthe third", [*changes, None])]
    title = f"{titled(chosen)}\n{told(weights[0])}"
    path = job.path("third.png")
    write_image(sheet(rows, heads, title, MOST), path)
    lines = [f"{path}: {told(weights[0])}"]
    if job.args.w_out:
        save_latents(job.args.w_out, job.faces.G, third)
        lines.append(f"{job.args.w_out}: the third face")
    return lines


def render(job: Job, latents: Latents) -> Tensor:
    """Return the uint8 pictures of `latents`, and move the bar."""
    pictures = job.faces.render(latents.ws, latents.noise)
    job.bar.update(len(pictures))
    return pictures


def titled(chosen: Sequence[Face]) -> str:
    """Return which face is which, for the top of a sheet."""
    return "    ".join(f"{NAMES[i]} = {face.name}" for i, face in enumerate(chosen))


def told(weights: Tensor) -> str:
    """Return in words who gives what, layers with the same weights [faces, layers] together."""
    found: list[str] = []
    start = 0
    for layer in range(1, weights.shape[1] + 1):
        if layer < weights.shape[1] and torch.equal(weights[:, layer], weights[:, start]):
            continue
        span = f"{start}-{layer - 1}" if layer - 1 > start else f"{start}"
        shared = zip(NAMES, weights[:, start].tolist(), strict=False)
        whose = [f"{share:.2g} {name}" if share < 1 else name for name, share in shared if share]
        found.append(f"layers {span}: {' + '.join(whose)}")
        start = layer
    return ", ".join(found)
