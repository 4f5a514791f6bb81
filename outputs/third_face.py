"""Sheets of a third face: what each of two or more faces gives to it, layer by layer."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from common.images import to_uint8, write_image
from outputs.job import Job
from outputs.sheet import Row, difference, heat, sheet
from sampling.latents import save_latents, unique_names
from sampling.mixing import NAMES, Face, blend, crossovers
from sampling.projector import Projector, as_trained
from sampling.sampler import Faces
from sampling.similarity import psnr

BRIGHTEST = 128.0  # of 255: the difference at the bright end of heat maps


def project_photos(
    job: Job, paths: Sequence[Path], photos: Tensor, projector: Projector
) -> tuple[list[Face], list[str]]:
    """Project uint8 `photos` [N, 3, R, R] and keep their styles as files in the job's folder.

    Returns the faces, and what was written.
    """
    targets = as_trained(photos, job.faces).to(job.faces.device)
    with tqdm(total=len(paths) * projector.steps, unit=" steps", leave=False, disable=None) as bar:
        projection = projector.project(targets, 0, bar.update)
    ratios = psnr(to_uint8(targets).cpu(), projection.frames[-1])
    found, lines = [], []
    for i, (photo, name) in enumerate(zip(paths, unique_names(paths), strict=True)):
        latents = projection.latents[i : i + 1]
        path = job.path(f"{name}.npz")
        save_latents(path, job.faces.G, latents)
        lines.append(
            f"{path}: {photo}, PSNR {ratios[i]:.2f} dB; --mix with this file skips the search"
        )
        found.append(Face(name[:20], latents.ws, latents.noise))
    return found, lines


def draw_crossover(job: Job, chosen: Sequence[Face]) -> list[str]:
    """Write crossover.png; return what was written."""
    image = crossover_sheet(job.faces, chosen, job.bar.update)
    path = job.path("crossover.png")
    write_image(image, path)
    names = " x ".join(face.name for face in chosen)
    return [f"{path}: {names}, {job.faces.layers + 1} borders both ways"]


def crossover_sheet(
    faces: Faces, chosen: Sequence[Face], progress: Callable[[int], object] = lambda count: None
) -> Image.Image:
    """Return the sheet of two faces that are mixed at every border between layers, both ways.

    Below each third face is its difference to the face that gave all but the first layers.
    `progress` is called with the number of images rendered.
    """
    layers = faces.layers
    mixed = blend(chosen, crossovers(layers))
    halves = faces.render(mixed.ws, mixed.noise, progress).split(layers + 1)
    rows = []
    for pictures, giver, taker in zip(halves, "AB", "BA", strict=True):
        rows.append(Row(f"layers from {giver},\nthe rest of {taker}", list(pictures)))
        change = heat(difference(pictures, pictures[0]), BRIGHTEST)
        rows.append(Row(f"what that\nchanges in {taker}", list(change)))
    heads = ["none\n", *(f"0-{last}\nto {4 << last // 2} px" for last in range(layers))]
    heads[1] = heads[1].removeprefix("0-")
    heads[-1] = f"0-{layers - 1}\nall"
    return sheet(rows, heads, legend(chosen), BRIGHTEST)


def draw_third(job: Job, chosen: Sequence[Face], weights: Tensor, w_out: Path | None) -> list[str]:
    """Write third.png: the faces, the one mixed with `weights` [1, faces, layers], the differences.

    The styles of the third face go to `w_out`. Returns what was written.
    """
    third = blend(chosen, weights)
    alone = torch.eye(len(chosen))[:, :, None].expand(-1, -1, weights.shape[2])
    latents = blend(chosen, torch.cat([alone, weights]))
    pictures = job.faces.render(latents.ws, latents.noise, job.bar.update)
    changes = heat(difference(pictures[:-1], pictures[-1]), BRIGHTEST)
    heads = [*NAMES[: len(chosen)], "third face"]
    rows = [Row("", list(pictures)), Row("difference to\nthe third", [*changes, None])]
    recipe = describe_weights(weights[0])
    path = job.path("third.png")
    write_image(sheet(rows, heads, f"{legend(chosen)}\n{recipe}", BRIGHTEST), path)
    lines = [f"{path}: {recipe}"]
    if w_out:
        save_latents(w_out, job.faces.G, third)
        lines.append(f"{w_out}: the third face")
    return lines


def legend(chosen: Sequence[Face]) -> str:
    """Return which letter stands for which face, as the title of a sheet."""
    return "    ".join(f"{NAMES[i]} = {face.name}" for i, face in enumerate(chosen))


def describe_weights(weights: Tensor) -> str:
    """Return in words which face gives which layers, from `weights` [faces, layers]."""
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
