"""Augmentation of what D sees, so that it does not learn a small set of photos by heart.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data" (ADA), with gentle
transformations only. Reals and fakes are augmented alike, and each transformation is skipped with
probability 1 - p. D can then still tell the distributions apart (Bora et al. 2018, AmbientGAN), so
the augmentations do not leak into what G draws.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# The largest changes, either way:
SHIFT = 1 / 16  # of the side
SCALE = 0.15  # octaves
TURN = math.radians(10)  # never by 90 degrees: faces are upright
BRIGHTNESS = 0.2  # of a range of 2
CONTRAST = 0.3  # octaves
SATURATION = 0.5  # octaves
P_MAX = 0.8  # "as long as p remains below 0.8, leaks are unlikely" (ADA, sec. 2.2)
TARGET = 0.6  # of r_t (ADA, sec. 3.1 and fig. 5)
# Reals in which p can rise from 0 to 1. ADA, sec. 3.1, takes 500,000 of 25 million in all; runs
# here show 50 to 500 thousand, and p has to follow D through four resolutions.
RAMP = 50_000
WINDOW = 256  # reals that r_t is the mean over: four batches of 64 (ADA, sec. 3.1)


@dataclass(frozen=True)
class Transformations:
    """Transformations of N images, one each."""

    is_moved: Tensor  # bool [N]
    affine: Tensor  # [N, 2, 3]: from where each point is taken, in [-1, 1]
    colour: Tensor  # [N, 3, 3]
    brightness: Tensor  # [N]


def augment(images: Tensor, drawn: Transformations) -> Tensor:
    """Return images [N, 3, R, R], each with its own transformations applied.

    Differentiable in the images; the transformations do not depend on them. An image without any
    comes back unchanged. Values may leave [-1, 1], as those of fakes do.
    """
    return tint(move(images, drawn), drawn)


def draw(
    n: int, p: Tensor | float, rng: torch.Generator, sets: int = 1, rows: slice = slice(None)
) -> Transformations:
    """Return transformations for `rows` of each of `sets` sets of n images, on rng's device.

    Each of the six (the two shifts count as one) is applied with probability p, independently.
    """
    u = torch.rand(13, sets, n, generator=rng, device=rng.device)[:, :, rows].flatten(1)
    chosen = u[[0, 0, 1, 2, 3, 4, 5]] < p  # what is not chosen is neutral
    extent = (2 * u[6:] - 1) * chosen
    n = extent.shape[1]
    across, down, scale, turn, brightness, contrast, saturation = extent
    size = torch.exp2(-SCALE * scale)
    cos, sin = size * (TURN * turn).cos(), size * (TURN * turn).sin()
    rows_of_matrix = [cos, -sin, 2 * SHIFT * across, sin, cos, 2 * SHIFT * down]
    grey = torch.full((3, 3), 1 / 3, device=rng.device)  # onto the axis from black to white
    colourful = torch.exp2(SATURATION * saturation).view(n, 1, 1)
    colour = grey + colourful * (torch.eye(3, device=rng.device) - grey)
    return Transformations(
        is_moved=chosen[:4].any(dim=0),
        affine=torch.stack(rows_of_matrix, dim=1).view(n, 2, 3),
        colour=colour * torch.exp2(CONTRAST * contrast).view(n, 1, 1),
        brightness=BRIGHTNESS * brightness,
    )


def move(images: Tensor, drawn: Transformations) -> Tensor:
    """Return images shifted, scaled and rotated, with reflection beyond the border.

    grid_sample has no second derivative: take R1 at the result, not at the input.
    """
    grid = F.affine_grid(drawn.affine.to(images.dtype), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return torch.where(drawn.is_moved.view(-1, 1, 1, 1), moved, images)


def tint(images: Tensor, drawn: Transformations) -> Tensor:
    """Return images with saturation, contrast (about grey, 0) and brightness changed."""
    shifted = drawn.brightness.to(images.dtype).view(-1, 1, 1, 1)
    return torch.einsum("nij,njhw->nihw", drawn.colour.to(images.dtype), images) + shifted


class Ada:
    """Adapts the probability p so that r_t, the mean sign of D's logits on reals, meets TARGET.

    `images` is the number of reals in which p can move from 0 to 1. p is a tensor on the device,
    so that no step waits for it.
    """

    def __init__(self, images: int, p: float, device: torch.device) -> None:
        self.images = images
        self.p = torch.tensor(p, device=device)
        self.signs = torch.zeros((), device=device)
        self.seen = 0

    @torch.no_grad()
    def observe(self, sign: Tensor, n: int) -> None:
        """Take the mean sign of D's logits on n reals; move p after every WINDOW of them."""
        self.signs = self.signs + sign * n
        self.seen += n
        if self.seen >= WINDOW:
            r_t = self.signs / self.seen
            step = torch.sign(r_t - TARGET) * self.seen / self.images
            self.p = (self.p + step).clamp(0, P_MAX)
            self.signs, self.seen = torch.zeros_like(self.signs), 0

    def state_dict(self) -> dict[str, Any]:
        """Return what changes, for the checkpoint."""
        return {"p": self.p, "signs": self.signs, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.p, self.signs = (state[name].to(self.p.device) for name in ("p", "signs"))
        self.seen = state["seen"]
