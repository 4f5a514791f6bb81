"""What the page does with faces: two are chosen, mixed into a third, and the third is saved.

Mixing, directions, projection and films are those of generate.py and project.py, driven by sliders
and fast enough to follow them. How the page looks is up to layout.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from checkpoints import checkpoint
from checkpoints.run_folder import run_of, snapshots
from common.device import DTYPES, choose_precision
from common.images import write_image
from outputs.film import FILM_PX, enlarge, write_film
from outputs.sheet import difference, heat
from outputs.third_face import BRIGHTEST, crossover_sheet
from sampling.directions import COUNT, factorise
from sampling.folded import folded
from sampling.latents import Latents, load_latents, save_latents
from sampling.mixing import Face, blend
from sampling.projector import Projector, as_trained, prepare_photos, recipe_of
from sampling.sampler import PARTS, Faces, read_stage, walk

PICTURE_PX = 512  # side of the saved picture
FILM_FPS = 12
FRAMES_BETWEEN = 16  # from one of the three faces to the next
FILM_FRAMES = 3 * FRAMES_BETWEEN
CACHED_PICTURES = 64  # of A and B
MAX_SNAPSHOTS = 48  # of a run that can be stepped through


Source = int | Face  # a seed, or the face that the visitor uploaded
Pair = tuple[Source, Source]  # A and B
Progress = Callable[[int], object]  # called with the number of steps just done


@dataclass(frozen=True)
class FaceSettings:
    """The sliders that change A and B themselves; the cache of their pictures depends on all."""

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
    """A, the third face and B, as a snapshot of the run shows them."""

    pictures: Tensor  # uint8 [3, 3, R, R]
    iteration: int
    resolution: int


class Mixer:
    """Mixes and renders faces of one generator."""

    def __init__(self, faces: Faces) -> None:
        self.faces = faces
        self.parts = [name for name in PARTS if faces.part(name)]

    @cached_property
    def steps(self) -> Tensor:
        """Return one standard deviation of w along each direction: [COUNT, w_dim]."""
        many = Faces(self.faces.G, self.faces.stage)  # batched: the deviation is that of 1,024 w
        return factorise(many)[:COUNT] * many.w_std()

    def face(self, source: Source, settings: FaceSettings) -> Face:
        """Return face A or B."""
        if isinstance(source, int):
            ws = self.faces.ws([source], settings.psi)
            source = Face(f"seed {source}", ws, self.faces.noise([settings.noise_seed]))
        return replace(source, noise=[maps * settings.noise for maps in source.noise])

    def third(self, pair: Pair, settings: Settings) -> Latents:
        """Return the third face."""
        return self.mix(pair, settings, self.weights(settings)[None])

    def weights(self, settings: Settings) -> Tensor:
        """Return B's share of each layer in use, then the strength of each direction: 1-D."""
        shares = torch.zeros(self.faces.layers)
        for name, share in zip(self.parts, settings.from_b, strict=False):
            layers = self.faces.part(name)
            shares[layers.start : layers.stop] = share
        return torch.cat([shares, torch.tensor(settings.strengths)])

    def trio_weights(self, settings: Settings) -> Tensor:
        """Return the weights of A, the third face and B: [3, layers + directions]."""
        third = self.weights(settings)
        a, b = torch.zeros(2, len(third))
        b[: self.faces.layers] = 1
        return torch.stack([a, third, b])

    def mix(self, pair: Pair, settings: Settings, weights: Tensor) -> Latents:
        """Return one face for each row of `weights` [M, layers + directions]."""
        faces = [self.face(source, settings.face) for source in pair]
        from_b, strengths = weights.tensor_split([self.faces.layers], dim=1)
        latents = blend(faces, torch.stack([1 - from_b, from_b], dim=1))
        if not strengths.any():
            return latents
        moves = strengths.to(self.steps) @ self.steps[: strengths.shape[1]]
        return Latents(latents.ws + moves[:, None], latents.noise)

    def render(self, latents: Latents) -> Tensor:
        """Return pictures, uint8 [N, 3, R, R]. Raises UserError."""
        return self.faces.render(latents.ws, latents.noise)


class Backend:
    """The pictures and files that the page makes with one checkpoint.

    A photo is projected in `steps` steps. Methods may be called from several threads.
    """

    def __init__(self, faces: Faces, file: Path, entries: dict[str, Any], steps: int) -> None:
        self.faces = faces
        self.file = file
        self.dtype = DTYPES[choose_precision("auto", faces.device)]
        fast = folded(faces.G, self.dtype)
        self.mixer = Mixer(Faces(fast, faces.stage, batch=1, dtype=self.dtype))
        D = checkpoint.load_discriminator(file, entries, faces.G)
        search = self.dtype if self.dtype == torch.bfloat16 else torch.float32
        self.projector = Projector(faces, D, steps, search)
        self.projecting = Lock()  # one projector serves all visitors
        self.snapshots = snapshots_of(file)
        self._cached_picture = lru_cache(CACHED_PICTURES)(self._render_face)
        self._load_snapshot = lru_cache(1)(load_snapshot)

    def picture(self, source: Source, settings: Settings) -> Tensor:
        """Return the picture of A or B, uint8 [3, R, R], from the cache if it is there."""
        return self._cached_picture(source, settings.face)

    def _render_face(self, source: Source, settings: FaceSettings) -> Tensor:
        face = self.mixer.face(source, settings)
        return self.mixer.render(Latents(face.ws, face.noise))[0]

    def third(self, pair: Pair, settings: Settings) -> Tensor:
        """Return the picture of the third face, uint8 [3, R, R]."""
        return self.mixer.render(self.mixer.third(pair, settings))[0]

    def heat_maps(self, pair: Pair, settings: Settings, third: Tensor) -> Tensor:
        """Return how the third face differs from A and from B: uint8 [2, 3, R, R]."""
        sources = torch.stack([self.picture(source, settings) for source in pair])
        return heat(difference(sources, third), BRIGHTEST)

    def read_styles(self, path: Path) -> Face:
        """Return the first face in a file of styles. Raises UserError."""
        latents = load_latents(path, self.faces.G, self.faces.stage.resolution)
        return Face(path.stem[:20], latents.ws[:1], [maps[:1] for maps in latents.noise])

    def project(self, path: Path, progress: Progress) -> Face:
        """Return the face that is closest to a photo. Raises PhotoError."""
        recipe = recipe_of(self.faces, self.file)
        photos = as_trained(prepare_photos([path], recipe), self.faces)
        with self.projecting:
            found = self.projector.project(photos.to(self.faces.device), 0, progress).latents
        return Face(path.stem[:20], found.ws, found.noise)

    def write_picture(self, folder: Path, pair: Pair, settings: Settings) -> Path:
        """Write third.png: the third face, enlarged."""
        third = self.mixer.third(pair, settings)
        exact = Faces(self.faces.G, self.faces.stage, batch=1)
        image = to_image(exact.render(third.ws, third.noise)[0])
        write_image(enlarge(image, PICTURE_PX), folder / "third.png")
        return folder / "third.png"

    def write_styles(self, folder: Path, pair: Pair, settings: Settings) -> Path:
        """Write third.npz: the styles and noise of the third face."""
        save_latents(folder / "third.npz", self.faces.G, self.mixer.third(pair, settings))
        return folder / "third.npz"

    def write_sheet(self, folder: Path, pair: Pair, settings: Settings) -> Path:
        """Write crossover.png: the border between A and B moved over every layer, both ways."""
        path = folder / "crossover.png"
        chosen = [self.mixer.face(source, settings.face) for source in pair]
        write_image(crossover_sheet(self.faces, chosen), path)
        return path

    def write_film(self, folder: Path, pair: Pair, settings: Settings, progress: Progress) -> Path:
        """Write third.webp: a walk from A by way of the third face to B, and back to A."""
        frames = []
        for weights in walk(self.mixer.trio_weights(settings), FRAMES_BETWEEN):
            picture = self.mixer.render(self.mixer.mix(pair, settings, weights[None]))[0]
            frames.append(enlarge(to_image(picture), FILM_PX))
            progress(1)
        write_film(frames, folder / "third.webp", FILM_FPS)
        return folder / "third.webp"

    def snapshot(self, index: int, pair: Pair, settings: Settings) -> Snapshot:
        """Return the faces at one of `snapshots`. Raises CheckpointError.

        An uploaded face fits one generator only: seed 0 replaces it as A, seed 1 as B.
        """
        mixer, iteration = self._load_snapshot(self.snapshots[index], self.faces.device)
        a, b = (source if isinstance(source, int) else i for i, source in enumerate(pair))
        latents = mixer.mix((a, b), settings, mixer.trio_weights(settings))
        return Snapshot(mixer.render(latents), iteration, mixer.faces.stage.resolution)


def load_snapshot(path: Path, device: torch.device) -> tuple[Mixer, int]:
    """Return the generator of a snapshot, and after how many iterations it was taken."""
    G, entries = checkpoint.load_generator(path, device)
    return Mixer(Faces(G, read_stage(path, G, entries), batch=1)), entries["iteration"]


def snapshots_of(file: Path) -> list[Path]:
    """Return the snapshots of a checkpoint's run, first to last; of many, evenly spaced ones."""
    found = snapshots(run_of(file))
    count = min(len(found), MAX_SNAPSHOTS)
    return [found[i * (len(found) - 1) // max(1, count - 1)] for i in range(count)]


def to_image(picture: Tensor) -> Image.Image:
    """Return a uint8 picture [3, R, R] as an image."""
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
