"""Pictures of a trained generator: seeds -> ws -> images, for every script that shows faces.

Mixing, walks and projection work on ws, between `Faces.ws` and `Faces.render`. On one machine a
seed always gives the same picture, bit for bit, whatever it is rendered together with: its z and
noise depend on the seed alone, and every batch has the same shape. No files are written here.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from reprlib import repr as brief
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from checkpoints import checkpoint
from checkpoints.checkpoint import CheckpointError
from checkpoints.run_folder import candidates, run_of
from common.cli import UserError
from common.images import to_uint8
from model import Generator, Stage

BATCH = 16  # images rendered at once, fewer above 256 px
# The first and last resolution of each part, px (Karras et al. 2019, sec. 3.1).
PARTS = {"coarse": (4, 8), "middle": (16, 32), "fine": (64, 1024)}
W_STD_SEEDS = range(1024)  # from which the standard deviation of w is estimated
Z, NOISE = 0, 1  # purposes of a seed's random numbers
SHARED_NOISE = 0  # seed of the noise of all mixes and film frames, so that only styles differ


class Faces:
    """A generator at the stage it was saved at, and its pictures by seed or by ws.

    It always renders `batch` images at once; convolutions compute in `dtype`.
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
        """Return the number of layers in use at this stage: two for each resolution."""
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

    def w_std(self) -> Tensor:
        """Return the standard deviation of w's elements about w_avg, a scalar."""
        return (self.ws(W_STD_SEEDS, 1.0)[:, 0] - self.G.w_avg).square().mean().sqrt()

    def noise(self, seeds: Sequence[int]) -> list[Tensor]:
        """Return the noise of `seeds`, [N, 1, r, r] for each layer in use."""
        maps = [self.G.draw_noise(1, self.stage.resolution, rng(s, NOISE)) for s in seeds]
        return [torch.cat(layer).to(self.device) for layer in zip(*maps, strict=True)]

    @torch.no_grad()
    def render(
        self,
        ws: Tensor,
        noise: list[Tensor],
        progress: Callable[[int], object] = lambda count: None,
    ) -> Tensor:
        """Return uint8 images [N, 3, R, R] on the CPU for ws [N, num_ws, w_dim].

        `noise` is [N, 1, r, r] for each layer, or [1, 1, r, r] for all images to share. `progress`
        is called after each batch with its number of images. Raises UserError if an image is not
        finite or each is of one colour.
        """
        batches = []
        for rows in self._rows(len(ws)):
            own = [maps[rows.clamp(max=len(maps) - 1)] for maps in noise]
            with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False, enabled=True):
                images = self.G.synthesis(ws[rows], self.stage, own, self.dtype)
            if not images.isfinite().all():
                raise UserError("the images are not finite; use an earlier checkpoint")
            batches.append(to_uint8(images).cpu())
            progress(len(rows.unique()))
        pictures = torch.cat(batches)[: len(ws)]
        pixels = pictures.flatten(2)
        if (pixels.amax(2) == pixels.amin(2)).all():
            raise UserError("each image is of one colour; use another checkpoint")
        return pictures

    def _rows(self, count: int) -> list[Tensor]:
        """Return the indices of each batch; the last batch repeats the last image."""
        starts = range(0, count, self.batch)
        rows = [torch.arange(start, start + self.batch) for start in starts]
        return [batch.clamp(max=count - 1) for batch in rows]


def check_variety(images: Tensor, seeds: Sequence[int], psi: float) -> None:
    """Raise UserError if different seeds give the same image, as in no trained generator."""
    if len(set(seeds)) > 1 and abs(psi) > 0.1 and bool((images == images[0]).all()):
        raise UserError("all seeds give the same image; use another checkpoint")


def rng(seed: int, purpose: int) -> torch.Generator:
    """Return the generator of a seed's random numbers for one purpose, on the CPU."""
    sequence = np.random.SeedSequence(seed, spawn_key=(purpose,))
    (state,) = sequence.generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> 1))


def layers_from(resolution: int) -> int:
    """Return the first layer of a resolution: 0 for 4 px, 2 for 8 px, 4 for 16 px, ..."""
    return 2 * (resolution.bit_length() - 3)


def replace_layers(G: Generator, ws: Tensor, other: Tensor, layers: range) -> Tensor:
    """Return `ws` with the styles of `other` in `layers` (Karras et al. 2019, sec. 3.1)."""
    return G.mix(ws, G.mix(other, ws, layers.stop), layers.start)


def walk(ws: Tensor, frames: int) -> Tensor:
    """Return a smooth closed path through `ws` [N, ...], `frames` steps apart: [N * frames, ...].

    A cubic spline whose tangent at each point is half the difference of its neighbours (Catmull
    and Rom 1974). Row k * frames is ws[k]; the first row follows the last.
    """
    before, here, after, beyond = (ws.roll(-n, 0)[:, None] for n in (-1, 0, 1, 2))
    t = torch.arange(frames, device=ws.device) / frames
    t = t.view(1, -1, *[1] * (ws.ndim - 1))
    tangent, next_tangent = (after - before) / 2, (beyond - here) / 2
    curve = here + t * tangent
    curve = curve + t**2 * (3 * (after - here) - 2 * tangent - next_tangent)
    curve = curve + t**3 * (2 * (here - after) + tangent + next_tangent)
    return curve.flatten(0, 1)


class Loaded(NamedTuple):
    """A generator, the file that it was loaded from, and the other entries of that file."""

    faces: Faces
    file: Path
    entries: dict[str, Any]

    @property
    def run(self) -> Path:
        """Return the run folder that the file is in."""
        return run_of(self.file)


def load_faces(path: Path, device: torch.device, tell: Callable[[str], None]) -> Loaded:
    """Return the generator of a checkpoint or run folder.

    In a run folder it is that of the newest sound file; `tell` is called with a line for each
    damaged one. Raises CheckpointError.
    """
    *others, last = candidates(path)
    for file in others:
        try:
            return load_file(file, device)
        except CheckpointError as error:
            tell(f"{error}; trying the next")
    return load_file(last, device)


def load_file(file: Path, device: torch.device) -> Loaded:
    """Return the generator of a checkpoint. Raises CheckpointError."""
    G, entries = checkpoint.load_generator(file, device)
    return Loaded(Faces(G, read_stage(file, G, entries)), file, entries)


def read_stage(path: Path, G: Generator, entries: dict[str, Any]) -> Stage:
    """Return the stage stored in `entries`, by default full size. Raises CheckpointError."""
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
    """Return the layers called `name`, such as coarse or 0-3. Raises UserError if not in use."""
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
