"""Mixing as an instrument: what each of two faces gives to a third, layer by layer.

A face is a seed, a file of styles or a photo. A layer's noise goes where its style goes; faces of
seeds share one noise, so that between them only styles differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.cli import UserError
from sampling.latents import Latents, load_latents
from sampling.sampler import SHARED_NOISE, Faces, find_layers

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
