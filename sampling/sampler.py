"""Pictures out of a trained generator: seeds -> ws -> images, for every script that shows faces.

What mixes, truncates, walks or projects works on ws, between `Faces.ws` and `Faces.render`. The
same seed is the same picture, bit for bit on one machine, whatever it is rendered together with:
z and noise come from the seed alone and every batch has one shape. No files are written here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checkpoints import checkpoint
from checkpoints.checkpoint import CheckpointError
from checkpoints.run_folder import candidates
from common.cli import UserError
from common.images import to_uint8
from model import Generator, Stage

BATCH = 16  # images rendered at once up to 256 px, fewer above: kernels see one shape
# The resolutions whose layers each part has, first to last, px (Karras et al. 2019, sec. 3.1).
PARTS = {"coarse": (4, 8), "middle": (16, 32), "fine": (64, 1024)}
SPREAD_SEEDS = range(1024)  # whose w tell how far w spreads
Z, NOISE = 0, 1  # what the random numbers of a seed are for
SHARED_NOISE = 0  # the seed of the noise of all mixes and film frames: only styles differ there


class Faces:
    """A generator with the stage it was saved at: its pictures by seed or by ws.

    `batch` images are rendered at once, whatever is asked for; convolutions compute in `dtype`.
    """

    def __init__(
        self,
        G: Generator,
        stage: Stage,
        batch: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.G = G.to(memory_format=torch.channels_last)
        self.stage = stage
        self.dtype = dtype
        self.device = G.w_avg.device
        self.batch = batch or max(1, min(BATCH, (1024 // stage.resolution) ** 2))

    @property
    def layers(self) -> int:
        """Return how many layers are in use at this stage: two at each resolution."""
        return layers_from(2 * self.stage.resolution)

    def part(self, name: str) -> range:
        """Return the layers in use of `coarse`, `middle` or `fine`; empty if there are none."""
        first, last = PARTS[name]
        return range(layers_from(first), min(layers_from(2 * last), self.layers))

    @torch.no_grad()
    def ws(self, seeds: Sequence[int], psi: float) -> Tensor:
        """Return the styles of `seeds`, truncated: [N, num_ws, w_dim]."""
        z = torch.stack([torch.randn(self.G.config.z_dim, generator=rng(s, Z)) for s in seeds])
        batches = [self.G.mapping(z[rows].to(self.device)) for rows in self._rows(len(seeds))]
        return self.G.truncate(self.G.broadcast(torch.cat(batches)[: len(seeds)]), psi)

    def spread(self) -> Tensor:
        """Return how far a w is from their mean: a standard deviation over w's elements."""
        return (self.ws(SPREAD_SEEDS, 1.0)[:, 0] - self.G.w_avg).square().mean().sqrt()

    def noise(self, seeds: Sequence[int]) -> list[Tensor]:
        """Return the noise of `seeds`, [N, 1, r, r] for each layer in use."""
        maps = [self.G.draw_noise(1, self.stage.resolution, rng(s, NOISE)) for s in seeds]
        return [torch.cat(layer).to(self.device) for layer in zip(*maps, strict=True)]

    @torch.no_grad()
    def render(self, ws: Tensor, noise: list[Tensor]) -> Tensor:
        """Return uint8 images [N, 3, R, R] on the CPU for ws [N, num_ws, w_dim].

        `noise` is [N, 1, r, r] for each layer, or [1, 1, r, r] for all images to share. Raises
        UserError where images are not finite or all of one colour.
        """
        done = []
        for rows in self._rows(len(ws)):
            own = [maps[rows.clamp(max=len(maps) - 1)] for maps in noise]
            with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False, enabled=True):
                images = self.G.synthesis(ws[rows], self.stage, own, self.dtype)
            if not images.isfinite().all():
                raise UserError("the images are not finite; use an earlier checkpoint")
            done.append(to_uint8(images).cpu())
        pictures = torch.cat(done)[: len(ws)]
        pixels = pictures.flatten(2)
        if (pixels.amax(2) == pixels.amin(2)).all():
            raise UserError("each image is of one colour; use another checkpoint")
        return pictures

    def _rows(self, count: int) -> list[Tensor]:
        """Return what to render batch by batch; the last batch repeats the last image."""
        starts = range(0, count, self.batch)
        places = [torch.arange(start, start + self.batch) for start in starts]
        return [place.clamp(max=count - 1) for place in places]


def refuse_alike(images: Tensor, batch: Sequence[int], psi: float) -> None:
    """Raise UserError if different seeds give one image, which no trained generator does."""
    if len(set(batch)) > 1 and abs(psi) > 0.1 and bool((images == images[0]).all()):
        raise UserError("all seeds give the same image; use another checkpoint")


def rng(seed: int, purpose: int) -> torch.Generator:
    """Return the random numbers of one seed for one purpose, drawn on the CPU on any machine."""
    sequence = np.random.SeedSequence(seed, spawn_key=(purpose,))
    (state,) = sequence.generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> 1))


def layers_from(resolution: int) -> int:
    """Return the first layer of a resolution: 0 of 4 px, 2 of 8 px, 4 of 16 px, ..."""
    return 2 * (resolution.bit_length() - 3)


def replace_layers(G: Generator, ws: Tensor, other: Tensor, layers: range) -> Tensor:
    """Return `ws` with the styles of `other` in `layers` (Karras et al. 2019, sec. 3.1)."""
    return G.mix(ws, G.mix(other, ws, layers.stop), layers.start)


def walk(ws: Tensor, frames: int) -> Tensor:
    """Return a smooth closed path through `ws` [N, ...], `frames` steps apart: [N * frames, ...].

    A cubic through the points whose tangent at each is half the way between its neighbours
    (Catmull and Rom 1974). Row k * frames is ws[k], and after the last row comes the first.
    """
    before, here, after, beyond = (ws.roll(-n, 0)[:, None] for n in (-1, 0, 1, 2))
    t = torch.arange(frames, device=ws.device) / frames
    t = t.view(1, -1, *[1] * (ws.ndim - 1))
    tangent, next_tangent = (after - before) / 2, (beyond - here) / 2
    curve = here + t * tangent
    curve = curve + t**2 * (3 * (after - here) - 2 * tangent - next_tangent)
    curve = curve + t**3 * (2 * (here - after) + tangent + next_tangent)
    return curve.flatten(0, 1)


def load_faces(
    path: Path, device: torch.device, tell: Callable[[str], None]
) -> tuple[Faces, Path, dict[str, Any]]:
    """Return the generator of a checkpoint or run folder, the file it is from, and its entries.

    In a run folder the newest sound file is used, and each damaged one is told. Raises
    CheckpointError.
    """
    choices = candidates(path)
    for file in choices:
        try:
            G, entries = checkpoint.load_generator(file, device)
            return Faces(G, read_stage(file, G, entries)), file, entries
        except CheckpointError as error:
            if file == choices[-1]:
                raise
            tell(f"{error}; trying the next")
    raise AssertionError("candidates() gives at least one")


def read_stage(path: Path, G: Generator, entries: dict[str, Any]) -> Stage:
    """Return the stage stored in `entries`, or full size where there is none."""
    stored = entries.get("stage", [G.config.resolution, 1.0])
    try:
        resolution, alpha = stored
        sound = isinstance(resolution, int) and resolution in G.config.resolutions
        sound = sound and isinstance(alpha, int | float) and 0 <= alpha <= 1
    except (TypeError, ValueError):
        sound = False
    if not sound or (resolution == 4 and alpha < 1):
        raise CheckpointError(f"{path}: unusable stage {brief(stored)}")
    return Stage(resolution, float(alpha))


def find_layers(faces: Faces, name: str, flag: str) -> range:
    """Return the layers called `name`, such as coarse or 0-3; UserError if they are not in use."""
    if name in PARTS:
        layers = faces.part(name)
    else:
        first, _, last = name.partition("-")
        layers = range(int(first), int(last or first) + 1)
    if not layers or layers.stop > faces.layers:
        raise UserError(
            f"{flag} {name}: expected layers within 0-{faces.layers - 1}, which are in use at "
            f"{faces.stage.resolution} px",
            2,
        )
    return layers
