"""Mixing faces: what each of two or more faces gives to a third, layer by layer.

A face comes from a seed, a file of styles or a photo. The noise of a layer goes with its style;
faces of seeds share one noise, so that only their styles differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.cli import UserError
from sampling.latents import Latents, load_latents
from sampling.sampler import SHARED_NOISE, Faces, find_layers

NAMES = "ABCDEFGH"  # of the faces of --mix

Gift = tuple[str, str, float]  # an item of --give: face, layers, weight: ("A", "coarse", 0.5)


@dataclass(frozen=True, eq=False)
class Face:
    """A face: its name, styles [1, num_ws, w_dim] and noise [1, 1, r, r] for each layer in use."""

    name: str
    ws: Tensor
    noise: list[Tensor]


def read_face(text: str, faces: Faces, psi: float) -> Face:
    """Return the face of a seed, or the first face in a file of styles. Raises UserError."""
    if text.isdecimal():
        seed = int(text)
        return Face(f"seed {seed}", faces.ws([seed], psi), faces.noise([SHARED_NOISE]))
    path = Path(text)
    first = load_latents(path, faces.G, faces.stage.resolution)[:1]
    return Face(path.stem[:20], first.ws, first.noise)


def is_photo(text: str) -> bool:
    """Return whether a face of --mix is a photo, neither a seed nor a file of styles."""
    return not text.isdecimal() and not text.endswith(".npz")


def blend(chosen: Sequence[Face], weights: Tensor) -> Latents:
    """Return a mixed face for each of the M tables of `weights` [M, faces, layers in use].

    A layer with a weight of 1 is copied exactly. Layers not in use come from the first face.
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
    """Return the weights of A and B at every crossover: A's layers first, then the reverse.

    [2 * (layers + 1), 2, layers]: in the first half, row i takes i layers from A and the rest from
    B; in the second half the two are swapped.
    """
    count = torch.arange(layers + 1)[:, None]
    first = (torch.arange(layers) < count).float()  # [layers + 1, layers]
    a_first = torch.stack([first, 1 - first], dim=1)
    return torch.cat([a_first, a_first.flip(1)])


def layer_weights(given: Sequence[Gift], count: int, faces: Faces) -> Tensor:
    """Return the weights [1, count, layers in use] that --give asks for.

    The rest of each layer comes in equal parts from the faces that are not named for it. Raises
    UserError for layers not in use, or weights of a layer that do not sum to 1.
    """
    asked = torch.full((count, faces.layers), torch.nan)
    for name, part, weight in given:
        if name not in NAMES[:count]:
            raise UserError(
                f"--give {name}: expected one of the faces of --mix, {NAMES[:count]}", 2
            )
        layers = find_layers(faces, part, "--give")
        asked[NAMES.index(name), layers.start : layers.stop] = weight
    unnamed = asked.isnan()
    rest = 1 - asked.nansum(dim=0)
    wrong = (rest < -1e-6) | ((rest > 1e-6) & ~unnamed.any(dim=0))
    if wrong.any():
        layer = int(wrong.nonzero()[0])
        raise UserError(
            f"--give: the weights of layer {layer} sum to {1 - rest[layer].item():g}; expected 1", 2
        )
    equal = (rest.clamp(min=0) / unnamed.sum(dim=0).clamp(min=1)).expand_as(asked)
    return torch.where(unnamed, equal, asked)[None]
