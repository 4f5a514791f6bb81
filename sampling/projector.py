"""Photos -> the styles and noise that show them: projection into the latent space.

The best of many samples is where it begins; then Adam moves the style of every layer (Abdal, Qin,
Wonka 2019, "Image2StyleGAN", the space W+) and the noise (Karras et al. 2020, app. D). No files
are written here.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from checkpoints import checkpoint
from checkpoints.run_folder import read_recipe, run_of
from common.cli import PSI
from common.device import choose_precision
from common.images import fade, shrink, to_float, to_uint8
from critic import Critic
from data.photos import PhotoError, Recipe, prepare_photo
from sampling.latents import Latents
from sampling.sampler import Faces

SAMPLES = 64  # to begin with the best of
BATCH = 8  # photos optimised at once, for memory
LR = 0.2  # of styles, in standard deviations of w, and of noise
RAMP_UP = 0.05  # of the steps, in which the learning rate rises (Karras et al. 2020, app. D)
# Weights of the terms, next to the squared error of the pixels. Chosen for mixes that look like
# faces: see doc/decisions.md.
FEATURES = 2.0  # relative squared error of the features of D
MEAN_PULL = 0.3  # mean square of w - w_avg, in standard deviations
NOISE_PULL = 0.5  # mean square of the noise, else it draws the photo and w need not
FRAMES = 40  # of the way, at most


@dataclass(frozen=True)
class Projection:
    """What shows the photos, and the way there: uint8 pictures [N, 3, R, R], first to last."""

    latents: Latents
    way: list[Tensor]


def recipe_of(faces: Faces, file: Path) -> Recipe:
    """Return how the photos were prepared that the generator in `file` was trained on.

    Raises UserError where the run's config.json is damaged.
    """
    return Recipe((faces.G.config.resolution,), **read_recipe(run_of(file)))


def prepare_photos(paths: Sequence[Path], recipe: Recipe) -> Tensor:
    """Return photos prepared by a recipe with a single size R: uint8 [N, 3, R, R].

    Raises PhotoError, which names the photo.
    """
    prepared = []
    for path in paths:
        try:
            (record,) = prepare_photo(path, recipe)
        except PhotoError as error:
            raise PhotoError(f"{path}: {error}; expected a photo such as a JPEG or PNG") from None
        with Image.open(io.BytesIO(record)) as image:
            prepared.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return torch.stack(prepared)


def as_trained(photos: Tensor, faces: Faces) -> Tensor:
    """Return uint8 photos [N, 3, R, R] of full size as the reals of this stage were: [-1, 1]."""
    return fade(shrink(to_float(photos), faces.stage.resolution), faces.stage.alpha)


class Projector:
    """Projects photos with a generator and, where there is one, the eye of its discriminator.

    `dtype` is what the convolutions of the search compute in; the samples that it begins with and
    the pictures at its end are float32.
    """

    def __init__(self, faces: Faces, D: Critic | None, steps: int, dtype: torch.dtype) -> None:
        self.faces = Faces(faces.G, faces.stage, faces.batch)
        self.D = D.requires_grad_(False) if D else None
        self.steps = steps
        self.dtype = dtype
        self.unit = faces.spread()

    def project(
        self, targets: Tensor, seed: int, moved: Callable[[int], object] = lambda count: None
    ) -> Projection:
        """Return the projection of `targets` [N, 3, R, R], [-1, 1], on the generator's device.

        The samples to begin with are those of `seed` and the seeds after it. `moved` is told at
        each step how many photos it moved.
        """
        starts = self.faces.ws(range(seed, seed + SAMPLES), PSI)
        samples = self.faces.render(starts, self.faces.noise([seed]))
        samples = to_float(samples).to(targets.device)
        found = []
        for batch in targets.split(BATCH):
            error = torch.stack([pyramid_error(samples, one.expand_as(samples)) for one in batch])
            found.append(self._descend(batch, starts[error.argmin(dim=1)], moved))
        ws = torch.cat([each.latents.ws for each in found])
        noise = [torch.cat(maps) for maps in zip(*(e.latents.noise for e in found), strict=True)]
        way = [torch.cat(frames) for frames in zip(*(each.way for each in found), strict=True)]
        return Projection(Latents(ws, noise), way)

    def _descend(
        self, targets: Tensor, start: Tensor, moved: Callable[[int], object]
    ) -> Projection:
        """Return where Adam ends that begins at `start` [N, num_ws, w_dim] and without noise."""
        G, stage = self.faces.G, self.faces.stage
        away = ((start - G.w_avg) / self.unit).requires_grad_()
        noise = [
            torch.zeros(len(start), *maps.shape[1:], device=maps.device, requires_grad=True)
            for maps in self.faces.noise([0])
        ]
        wanted = self.D.features(targets, stage) if self.D else []
        optimizer = torch.optim.Adam([away, *noise], LR, betas=(0.9, 0.99))
        shown = {self.steps * i // FRAMES for i in range(FRAMES)}
        way = []
        for step in range(self.steps):
            optimizer.param_groups[0]["lr"] = LR * rate(step / self.steps)
            images = G.synthesis(G.w_avg + away * self.unit, stage, noise, self.dtype)
            loss = pyramid_error(images, targets) + MEAN_PULL * _mean_square(away)
            loss = loss + NOISE_PULL * torch.stack([_mean_square(m) for m in noise]).mean(dim=0)
            if self.D:
                seen = self.D.features(images.to(self.dtype), stage)
                loss = loss + FEATURES * relative_error(seen, wanted)
            optimizer.zero_grad()
            loss.sum().backward()  # a sum: no photo's way depends on how many there are
            optimizer.step()
            if step in shown:
                way.append(to_uint8(images.detach()).cpu())
            moved(len(targets))
        last = Latents((G.w_avg + away * self.unit).detach(), [maps.detach() for maps in noise])
        return Projection(last, [*way, self.faces.render(last.ws, last.noise)])


def load_projector(
    loaded: tuple[Faces, Path, dict[str, Any]],
    steps: int,
    precision: str,
    tell: Callable[[str], object],
) -> Projector:
    """Return a projector for what load_faces returned, with the run's discriminator as its eye.

    Where the file has none, that is told. Raises CheckpointError.
    """
    faces, file, entries = loaded
    D = checkpoint.load_discriminator(file, entries, faces.G)
    if D is None:
        tell(f"{file}: has no discriminator; pixels alone are compared")
    exact = choose_precision(precision, faces.device) != "bf16"
    return Projector(faces, D, steps, torch.float32 if exact else torch.bfloat16)


def rate(done: float) -> float:
    """Return the learning rate, relative to the largest, when `done` of the steps are taken.

    Up in a short line, down as a cosine (Karras et al. 2020, app. D).
    """
    return min(1.0, (done + 1e-3) / RAMP_UP) * (0.5 + 0.5 * math.cos(math.pi * done))


def pyramid_error(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared error [N] of images [N, 3, R, R], summed over R, R / 2, ... 4 px.

    Each is a mean over pixels; the coarse ones say where it is wrong before any detail fits.
    """
    sides = [a.shape[-1] >> n for n in range(a.shape[-1].bit_length() - 2)]
    return torch.stack([_mean_square(shrink(a, r) - shrink(b, r)) for r in sides]).sum(dim=0)


def relative_error(seen: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Return the squared error [N] of features relative to their own mean square, over blocks."""
    pairs = zip(seen, wanted, strict=True)
    errors = [_mean_square(a.float() - b) / (_mean_square(b) + 1e-8) for a, b in pairs]
    return torch.stack(errors).mean(dim=0)


def _mean_square(values: Tensor) -> Tensor:
    return values.square().mean(dim=tuple(range(1, values.ndim)))
