"""Projection into the latent space: photos -> the styles and noise that reproduce them.

The search starts at the best of many samples; then Adam optimises the style of every layer (Abdal,
Qin, Wonka 2019, "Image2StyleGAN", the space W+) and the noise (Karras et al. 2020, app. D). No
files are written here.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
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
from sampling.sampler import Faces, Loaded

SAMPLES = 64  # the best of which is the start
BATCH = 8  # photos optimised at once, to limit memory
LR = 0.2  # of styles (in standard deviations of w) and of noise
RAMP_UP = 0.05  # share of the steps in which the learning rate rises (Karras et al. 2020, app. D)
# Weights of the loss terms beside the squared error of the pixels. Chosen so that mixes still look
# like faces: see doc/decisions.md.
FEATURES = 2.0  # relative squared error of D's features
MEAN_PULL = 0.3  # mean square of w - w_avg, in standard deviations
NOISE_PULL = 0.5  # mean square of the noise, which would otherwise draw the photo in place of w
FRAMES = 40  # at most, of the film of a search


@dataclass(frozen=True)
class Projection:
    """The latents of N photos, and the search: uint8 pictures [N, 3, R, R] from first to last."""

    latents: Latents
    frames: list[Tensor]


def recipe_of(faces: Faces, file: Path) -> Recipe:
    """Return how the photos were prepared that the generator in `file` was trained on.

    Raises UserError where the run's config.json is damaged.
    """
    stored = read_recipe(run_of(file))
    known: Any = {f.name: stored[f.name] for f in fields(Recipe) if f.name in stored}
    return replace(Recipe((faces.G.config.resolution,)), **known)


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
    """Return uint8 photos [N, 3, R, R] of full size as D saw reals at this stage, in [-1, 1]."""
    return fade(shrink(to_float(photos), faces.stage.resolution), faces.stage.alpha)


class Projector:
    """Projects photos with a generator and, if there is one, the features of its discriminator.

    The convolutions of the search compute in `dtype`; the samples at its start and the pictures at
    its end are float32.
    """

    def __init__(self, faces: Faces, D: Critic | None, steps: int, dtype: torch.dtype) -> None:
        self.faces = Faces(faces.G, faces.stage, faces.batch)
        self.D = D.requires_grad_(False) if D else None
        self.steps = steps
        self.dtype = dtype
        self.w_std = faces.w_std()

    def project(
        self, targets: Tensor, seed: int, progress: Callable[[int], object] = lambda count: None
    ) -> Projection:
        """Return the projection of `targets` [N, 3, R, R], [-1, 1], on the generator's device.

        The samples at the start are those of `seed` and the seeds after it. `progress` is called
        at each step with the number of photos that it optimised.
        """
        starts = self.faces.ws(range(seed, seed + SAMPLES), PSI)
        samples = self.faces.render(starts, self.faces.noise([seed]))
        samples = to_float(samples).to(targets.device)
        parts = []
        for batch in targets.split(BATCH):
            error = torch.stack([pyramid_error(samples, one.expand_as(samples)) for one in batch])
            parts.append(self._descend(batch, starts[error.argmin(dim=1)], progress))
        ws = torch.cat([part.latents.ws for part in parts])
        noise = [torch.cat(maps) for maps in zip(*(p.latents.noise for p in parts), strict=True)]
        frames = [torch.cat(batches) for batches in zip(*(p.frames for p in parts), strict=True)]
        return Projection(Latents(ws, noise), frames)

    def _descend(
        self, targets: Tensor, start: Tensor, progress: Callable[[int], object]
    ) -> Projection:
        """Return where Adam ends, started at `start` [N, num_ws, w_dim] and with noise of 0."""
        G, stage = self.faces.G, self.faces.stage
        offset = ((start - G.w_avg) / self.w_std).requires_grad_()
        noise = [
            torch.zeros(len(start), *maps.shape[1:], device=maps.device, requires_grad=True)
            for maps in self.faces.noise([0])
        ]
        wanted = self.D.features(targets, stage) if self.D else []
        optimizer = torch.optim.Adam([offset, *noise], LR, betas=(0.9, 0.99))
        shown = {self.steps * i // FRAMES for i in range(FRAMES)}
        frames = []
        for step in range(self.steps):
            optimizer.param_groups[0]["lr"] = LR * rate(step / self.steps)
            images = G.synthesis(G.w_avg + offset * self.w_std, stage, noise, self.dtype)
            loss = pyramid_error(images, targets) + MEAN_PULL * _mean_square(offset)
            loss = loss + NOISE_PULL * torch.stack([_mean_square(m) for m in noise]).mean(dim=0)
            if self.D:
                seen = self.D.features(images.to(self.dtype), stage)
                loss = loss + FEATURES * relative_error(seen, wanted)
            optimizer.zero_grad()
            loss.sum().backward()  # a sum, so that photos do not affect each other
            optimizer.step()
            if step in shown:
                frames.append(to_uint8(images.detach()).cpu())
            progress(len(targets))
        last = Latents((G.w_avg + offset * self.w_std).detach(), [maps.detach() for maps in noise])
        return Projection(last, [*frames, self.faces.render(last.ws, last.noise)])


def load_projector(
    loaded: Loaded, steps: int, precision: str, tell: Callable[[str], object]
) -> Projector:
    """Return a projector that uses the discriminator stored beside the generator.

    If there is none, `tell` is called with a line that says so. Raises CheckpointError.
    """
    faces, file, entries = loaded
    D = checkpoint.load_discriminator(file, entries, faces.G)
    if D is None:
        tell(f"{file}: has no discriminator; only pixels are compared")
    exact = choose_precision(precision, faces.device) != "bf16"
    return Projector(faces, D, steps, torch.float32 if exact else torch.bfloat16)


def rate(done: float) -> float:
    """Return the learning rate relative to its maximum, after a share `done` of the steps.

    A short linear ramp up, then down as a cosine (Karras et al. 2020, app. D).
    """
    return min(1.0, (done + 1e-3) / RAMP_UP) * (0.5 + 0.5 * math.cos(math.pi * done))


def pyramid_error(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared error [N] of images [N, 3, R, R], summed over R, R / 2, ... 4 px.

    At each size it is a mean over pixels; the coarse ones guide the search before details fit.
    """
    sides = [a.shape[-1] >> n for n in range(a.shape[-1].bit_length() - 2)]
    return torch.stack([_mean_square(shrink(a, r) - shrink(b, r)) for r in sides]).sum(dim=0)


def relative_error(seen: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Return the squared error [N] of features relative to their mean square, mean over blocks."""
    pairs = zip(seen, wanted, strict=True)
    errors = [_mean_square(a.float() - b) / (_mean_square(b) + 1e-8) for a, b in pairs]
    return torch.stack(errors).mean(dim=0)


def _mean_square(values: Tensor) -> Tensor:
    return values.square().mean(dim=tuple(range(1, values.ndim)))
