"""What the page does with faces, without the page: pick two, make a third of them, keep it.

Mixing, directions, projection and films are those of generate.py and project.py; here they are
asked for by sliders, and fast enough to follow them. What it looks like is webpage.py's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from checkpoints import checkpoint
from checkpoints.run_folder import run_of, snapshots
from common.device import DTYPES, choose_precision
from common.images import write_image
from outputs.film import FILM_PX, enlarge, write_film
from outputs.job import Job
from outputs.sheet import difference, heat
from outputs.third_face import MOST, draw_crossover
from sampling.directions import COUNT, factorise
from sampling.folded import folded
from sampling.latents import Latents, load_latents, save_latents
from sampling.mixing import Face, blend
from sampling.projector import Projector, as_trained, read_photos
from sampling.sampler import PARTS, Faces, read_stage, walk

PICTURE_PX = 512  # smaller pictures are enlarged to it
FILM_FRAMES, FILM_FPS = 16, 12  # from one of three faces to the next, and a second
KEPT = 64  # pictures of single faces kept in memory
STOPS = 48  # snapshots of a run that time steps through, at most


@dataclass(frozen=True, eq=False)
class Own:
    """A face that the visitor brought, from a photo or a file of styles."""

    face: Face


Pick = int | Own  # a seed, or what the visitor brought
Pair = tuple[Pick, Pick]


@dataclass(frozen=True)
class FaceSettings:
    """What changes A and B themselves; all of it is part of the key of their cached pictures."""

    psi: float  # truncation of faces drawn by seed; uploaded ones stay as they are
    noise: float  # strength; 1 as in training
    noise_seed: int  # of faces drawn by seed


@dataclass(frozen=True)
class Settings:
    """The values of the page's sliders."""

    from_b: tuple[float, ...]  # B's share of each part in use, 0 to 1; the rest is A's
    face: FaceSettings
    strengths: tuple[float, ...]  # of the directions, in standard deviations of w


@dataclass(frozen=True)
class Snapshot:
    """A run as it was: pictures of A, the third face and B, after so many iterations."""

    pictures: Tensor  # uint8 [3, 3, R, R]
    iteration: int | None
    resolution: int


class Maker:
    """Makes faces with one generator, one picture a pass."""

    def __init__(self, faces: Faces) -> None:
        self.faces = faces
        self.parts = [name for name in PARTS if faces.part(name)]

    @cached_property
    def steps(self) -> Tensor:
        """Return how far one standard deviation is along each direction: [COUNT, w_dim]."""
        many = Faces(self.faces.G, self.faces.stage)  # many at once: 1,024 w tell the deviation
        return factorise(many)[:COUNT] * many.spread()

    def face(self, pick: Pick, settings: FaceSettings) -> Face:
        """Return a face as the sliders have it."""
        if isinstance(pick, Own):
            face = pick.face
        else:
            ws = self.faces.ws([pick], settings.psi)
            face = Face(f"seed {pick}", ws, self.faces.noise([settings.noise_seed]))
        return Face(face.name, face.ws, [maps * settings.noise for maps in face.noise])

    def third(self, pair: Pair, settings: Settings) -> Latents:
        """Return the third face."""
        return self.made(pair, settings, self.row(settings)[None])

    def row(self, settings: Settings) -> Tensor:
        """Return B's share of each layer in use, then the strength of each direction."""
        shares = torch.zeros(self.faces.layers)
        for name, share in zip(self.parts, settings.from_b, strict=False):
            layers = self.faces.part(name)
            shares[layers.start : layers.stop] = share
        return torch.cat([shares, torch.tensor(settings.strengths)])

    def made(self, pair: Pair, settings: Settings, rows: Tensor) -> Latents:
        """Return one face for each of the `rows` [M, layers + directions], as `row` gives them."""
        chosen = [self.face(pick, settings.face) for pick in pair]
        from_b, strengths = rows.split([self.faces.layers, rows.shape[1] - self.faces.layers], 1)
        latents = blend(chosen, torch.stack([1 - from_b, from_b], dim=1))
        if not strengths.any():
            return latents
        moves = strengths.to(self.steps) @ self.steps[: strengths.shape[1]]
        return Latents(latents.ws + moves[:, None], latents.noise)

    def show(self, latents: Latents) -> Tensor:
        """Return pictures, uint8 [N, 3, R, R]. Raises UserError."""
        return self.faces.render(latents.ws, latents.noise)


class Studio:
    """A checkpoint, and all that the page shows and keeps of it.

    `steps` are those of a projection. Methods may be called from several threads.
    """

    def __init__(self, faces: Faces, file: Path, entries: dict[str, Any], steps: int) -> None:
        self.faces = faces
        self.dtype = DTYPES[choose_precision("auto", faces.device)]
        self.maker = Maker(one_by_one(faces, self.dtype))
        D = checkpoint.load_discriminator(file, entries, faces.G)
        search = self.dtype if self.dtype == torch.bfloat16 else torch.float32
        self.projector = Projector(faces, D, steps, search)
        self.projecting = Lock()  # the projector sees with one pair of eyes
        self.snapshots = snapshots_beside(file)
        self._alone = lru_cache(KEPT)(self._show_alone)
        self._old = lru_cache(1)(old_maker)

    def alone(self, pick: Pick, settings: Settings) -> Tensor:
        """Return the picture of A or B, uint8 [3, R, R]; the same again costs nothing."""
        return self._alone(pick, settings.face)

    def _show_alone(self, pick: Pick, settings: FaceSettings) -> Tensor:
        face = self.maker.face(pick, settings)
        return self.maker.show(Latents(face.ws, face.noise))[0]

    def third(self, pair: Pair, settings: Settings) -> Tensor:
        """Return the picture of the third face, uint8 [3, R, R]."""
        return self.maker.show(self.maker.third(pair, settings))[0]

    def changes(self, pair: Pair, settings: Settings, third: Tensor) -> Tensor:
        """Return heat maps of how the third face differs from A and from B: [2, 3, R, R]."""
        sources = torch.stack([self.alone(pick, settings) for pick in pair])
        return heat(difference(sources, third), MOST)

    def read_styles(self, path: Path) -> Own:
        """Return the first face in a file of styles. Raises UserError."""
        latents = load_latents(path, self.faces.G, self.faces.stage.resolution)
        return Own(Face(path.stem[:20], latents.ws[:1], [maps[:1] for maps in latents.noise]))

    def project(self, path: Path, moved: Callable[[int], object]) -> Own:
        """Return the face that shows a photo; `moved` hears of each step. Raises PhotoError."""
        photos = as_trained(read_photos([path], self.faces), self.faces)
        with self.projecting:
            found = self.projector.project(photos.to(self.faces.device), 0, moved).latents
        return Own(Face(path.stem[:20], found.ws, found.noise))

    def write_picture(self, folder: Path, pair: Pair, settings: Settings) -> Path:
        """Write third.png: the third face, enlarged."""
        third = self.maker.third(pair, settings)
        exact = Faces(self.faces.G, self.faces.stage, batch=1)
        picture = exact.render(third.ws, third.noise)[0]
        path = folder / "third.png"
        write_image(enlarge(image_of(picture), PICTURE_PX), path)
        return path

    def write_styles(self, folder: Path, pair: Pair, settings: Settings) -> Path:
        """Write third.npz: the styles and noise of the third face."""
        path = folder / "third.npz"
        save_latents(path, self.faces.G, self.maker.third(pair, settings))
        return path

    def write_sheet(self, folder: Path, pair: Pair, settings: Settings) -> Path:
        """Write crossover.png: the border between A and B over every layer, both ways."""
        job = Job(self.faces, argparse.Namespace(), folder, tqdm(disable=True))
        draw_crossover(job, [self.maker.face(pick, settings.face) for pick in pair])
        return folder / "crossover.png"

    def write_film(
        self, folder: Path, pair: Pair, settings: Settings, moved: Callable[[int], object]
    ) -> Path:
        """Write third.webp: a closed walk from A over the third face to B, and back."""
        third = self.maker.row(settings)
        ends = torch.zeros(2, len(third))
        ends[1, : self.faces.layers] = 1
        frames = []
        for row in walk(torch.stack([ends[0], third, ends[1]]), FILM_FRAMES):
            picture = self.maker.show(self.maker.made(pair, settings, row[None]))[0]
            frames.append(enlarge(image_of(picture), FILM_PX))
            moved(1)
        path = folder / "third.webp"
        write_film(frames, path, FILM_FPS)
        return path

    def at(self, stop: int, pair: Pair, settings: Settings) -> Snapshot:
        """Return the run at one of its snapshots, first to last. Raises CheckpointError.

        Faces that were brought belong to one generator alone: the seeds 0 and 1 stand for them.
        """
        maker, iteration = self._old(self.snapshots[stop], self.faces.device)
        drawn = [i if isinstance(pick, Own) else pick for i, pick in enumerate(pair)]
        both = (drawn[0], drawn[1])
        row = maker.row(settings)
        ends = torch.zeros(2, len(row))
        ends[1, : maker.faces.layers] = 1
        latents = maker.made(both, settings, torch.stack([ends[0], row, ends[1]]))
        return Snapshot(maker.show(latents), iteration, maker.faces.stage.resolution)


def one_by_one(faces: Faces, dtype: torch.dtype) -> Faces:
    """Return the same generator, ready for one picture after the other in `dtype`."""
    return Faces(folded(faces.G, dtype), faces.stage, batch=1, dtype=dtype)


def old_maker(path: Path, device: torch.device) -> tuple[Maker, int | None]:
    """Return the generator of a snapshot, and after how many iterations it was taken."""
    G, entries = checkpoint.load_generator(path, device)
    iteration = entries.get("iteration")
    maker = Maker(Faces(G, read_stage(path, G, entries), batch=1))
    return maker, iteration if isinstance(iteration, int) else None


def snapshots_beside(file: Path) -> list[Path]:
    """Return snapshots of the run that a checkpoint is from, first to last, evenly spaced."""
    found = snapshots(run_of(file))
    count = min(len(found), STOPS)
    return [found[i * (len(found) - 1) // max(1, count - 1)] for i in range(count)]


def image_of(picture: Tensor) -> Image.Image:
    """Return a uint8 picture [3, R, R] as an image."""
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
