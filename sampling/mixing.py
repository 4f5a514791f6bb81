"""Mixing as an instrument: what each of two faces gives to a third, layer by layer.

A face is a seed, a file of styles or a photo. A layer's noise goes where its style goes; faces of
seeds share one noise, so that between them only styles differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from common.cli import UserError
from common.images import to_uint8, write_image
from outputs.grids import SHARED_NOISE, Job, find_layers
from outputs.sheet import Row, difference, heat, sheet
from sampling.latents import Latents, load_latents, save_latents, unique_names
from sampling.projector import Projector, as_trained, read_photos
from sampling.sampler import Faces
from sampling.similarity import psnr

MOST = 128.0  # of 255: the change that is brightest in a heat map
NAMES = "ABCDEFGH"  # of the faces of --mix

Gift = tuple[str, str, float]  # a face gives layers with a weight: ("A", "coarse", 0.5)


@dataclass(frozen=True)
class Face:
    """One face: what it is called, its styles [1, num_ws, w_dim] and noise [1, 1, r, r]."""

    name: str
    ws: Tensor
    noise: list[Tensor]


def read_face(text: str, faces: Faces, psi: float) -> Face:
    """Return the face of a seed, or the first one in a file of styles. Raises UserError."""
    if text.isdecimal():
        seed = int(text)
        return Face(f"seed {seed}", faces.ws([seed], psi), faces.noise([SHARED_NOISE]))
    path = Path(text)
    latents = load_latents(path, faces.G, faces.stage.resolution)
    return Face(path.stem[:20], latents.ws[:1], [maps[:1] for maps in latents.noise])


def is_photo(text: str) -> bool:
    """Return whether a face of --mix is a photo: neither a seed nor a file of styles."""
    return not text.isdecimal() and not text.endswith(".npz")


def find_photos(
    job: Job, paths: Sequence[Path], load: Callable[[], Projector]
) -> tuple[dict[Path, Face], list[str]]:
    """Find photos as project.py does and keep their styles; return the faces and what was written.

    `load` gives the projector once the photos are known to be sound. Raises PhotoError.
    """
    faces = job.faces
    targets = as_trained(read_photos(paths, faces), faces).to(faces.device)
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


def blend(chosen: Sequence[Face], weights: Tensor) -> Latents:
    """Return one third face for each table of `weights` [M, faces, layers in use].

    A face that gives all of a layer gives it unchanged. Layers not in use are the first face's.
    """
    ws = torch.cat([face.ws for face in chosen])  # [F, L, D]
    used = weights.shape[2]
    shares = weights.to(ws)
    mixed = torch.einsum("mfl,fld->mld", shares, ws[:, :used])
    rest = ws[:1, used:].expand(len(weights), -1, -1)
    maps = [torch.cat(layer) for layer in zip(*(face.noise for face in chosen), strict=True)]
    noise = [torch.einsum("mf,fchw->mchw", shares[:, :, i], layer) for i, layer in enumerate(maps)]
    return Latents(torch.cat([mixed, rest], dim=1), noise)


def crossovers(layers: int) -> Tensor:
    """Return the weights of A and B for every border: A before it and B after, then the reverse.

    [2 * (layers + 1), 2, layers]: the borders 0 to `layers` of each direction, one by one.
    """
    border = torch.arange(layers + 1)[:, None]
    first = (torch.arange(layers) < border).float()  # [layers + 1, layers]
    there = torch.stack([first, 1 - first], dim=1)
    return torch.cat([there, there.flip(1)])


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


def shares(given: Sequence[Gift], count: int, faces: Faces) -> Tensor:
    """Return the weights [1, count, layers in use] that --give asks for.

    What of a layer nobody was told to give, the faces not named for it give in equal parts.
    Raises UserError: layers not in use, or weights of one layer that do not sum to 1.
    """
    asked = torch.full((count, faces.layers), torch.nan)
    for name, part, weight in given:
        if name not in NAMES[:count]:
            raise UserError(
                f"--give {name}: expected one of the faces of --mix, {NAMES[:count]}", 2
            )
        layers = find_layers(faces, part, "--give")
        asked[NAMES.index(name), layers.start : layers.stop] = weight
    silent = asked.isnan()
    rest = 1 - asked.nansum(dim=0)
    wrong = (rest < -1e-6) | ((rest > 1e-6) & ~silent.any(dim=0))
    if wrong.any():
        layer = int(wrong.nonzero()[0])
        raise UserError(
            f"--give: the weights of layer {layer} sum to {1 - rest[layer].item():g}; expected 1",
            2,
        )
    equal = (rest.clamp(min=0) / silent.sum(dim=0).clamp(min=1)).expand_as(asked)
    return torch.where(silent, equal, asked)[None]


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
