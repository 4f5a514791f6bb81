"""What the page's controls call: each handler returns pictures as HTML, or a file. No Gradio here.

Handlers take the current state (the pair, the language and the values of all sliders) and change
none of it, so that a visitor loses nothing when one of them fails.
"""

import base64
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path

from torch import Tensor

from common.cli import UserError
from data.photos import PhotoError, encode
from outputs.film import FILM_PX, enlarge
from web.backend import Backend, Pair, Progress, Settings, Source, to_image
from web.sliders import read_settings, sliders_for
from web.texts import format_count, photo_problem, translate

MAX_SEED = 2**31 - 1
RANDOM_SEEDS = 100_000  # "Another face" picks one of these
PREVIEW_QUALITY = 92  # of JPEGs

PairUpdate = tuple[Pair, int | None, str, str, str]  # the pair, the new seed, A, the third face, B


class RefusalError(Exception):
    """What cannot be done; the message is in the visitor's language."""


class Handlers:
    """The handlers for one checkpoint; saved files are written to `folder`."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self.backend = backend
        self.folder = folder
        self.sliders = sliders_for(backend.mixer.parts)  # `values` are in this order

    def all_faces(self, pair: Pair, language: str, *values: float) -> tuple[str, str, str]:
        """Return A, the third face and B."""
        settings = self._settings(values)
        with refusals(language):
            check_seed(settings.face.noise_seed, language)
            third = self.third(pair, language, *values)
            a, b = (self._source(side, pair, language, settings) for side in (0, 1))
        return a, third, b

    def third(self, pair: Pair, language: str, *values: float) -> str:
        """Return the third face and how it differs from A and from B."""
        settings = self._settings(values)
        with refusals(language):
            third = self.backend.third(pair, settings)
            maps = self.backend.heat_maps(pair, settings, third)
        changes = "".join(
            figure(heat_map, translate(key, language))
            for heat_map, key in zip(maps, ("unlike_a", "unlike_b"), strict=True)
        )
        return figure(third, translate("third", language)) + f'<div class="changes">{changes}</div>'

    def third_without_maps(self, pair: Pair, language: str, *values: float) -> str:
        """Return the third face at once, while A and B, and so the heat maps, are out of date."""
        with refusals(language):
            third = self.backend.third(pair, self._settings(values))
        return figure(third, translate("third", language)) + '<div class="changes"></div>'

    def choose_seed(
        self, side: int, seed: float | None, pair: Pair, language: str, *values: float
    ) -> PairUpdate:
        """Return the pair with the face of `seed` on a side (0: A, 1: B); None changes nothing."""
        source = pair[side] if seed is None else check_seed(int(seed), language)
        return self._update(side, source, pair, language, values)

    def random_seed(self, side: int, pair: Pair, language: str, *values: float) -> PairUpdate:
        """Return the pair with the face of a random seed."""
        return self._update(side, random.randrange(RANDOM_SEEDS), pair, language, values)

    def upload(
        self, side: int, progress: Progress, path: Path, pair: Pair, language: str, *values: float
    ) -> PairUpdate:
        """Return the pair with an uploaded face: styles if the file ends with .npz, else a photo.

        The file is removed in any case.
        """
        is_styles = path.suffix == ".npz"
        with refusals(language, path, "no_styles" if is_styles else "broken"):
            try:
                backend = self.backend
                face = backend.read_styles(path) if is_styles else backend.project(path, progress)
            finally:
                path.unlink()
        return self._update(side, face, pair, language, values)

    def save(
        self, what: str, progress: Progress, pair: Pair, language: str, *values: float
    ) -> Path:
        """Return a new file: the picture, styles or film of the third face, or the sheet."""
        settings = self._settings(values)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        with refusals(language):
            if what == "picture":
                return self.backend.write_picture(folder, pair, settings)
            if what == "sheet":
                return self.backend.write_sheet(folder, pair, settings)
            if what == "styles":
                return self.backend.write_styles(folder, pair, settings)
            return self.backend.write_film(folder, pair, settings, progress)

    def snapshot(self, index: int, pair: Pair, language: str, *values: float) -> str:
        """Return A, the third face and B as a snapshot of the run shows them."""
        with refusals(language):
            snapshot = self.backend.snapshot(int(index), pair, self._settings(values))
        captions = [translate(key, language) for key in ("a", "third", "b")]
        figures = "".join(map(figure, snapshot.pictures, captions))
        iteration = format_count(snapshot.iteration, language)
        when = translate("at", language, iteration, snapshot.resolution)
        uploaded = not all(isinstance(source, int) for source in pair)
        note = f"<p>{translate('stand_ins', language)}</p>" if uploaded else ""
        return f'<div class="trio">{figures}</div><p class="when">{when}</p>{note}'

    def next_snapshot(self, step: int, index: float) -> int:
        """Return the index of the snapshot after (1) or before (-1) another, as far as there is."""
        return min(max(0, int(index) + step), len(self.backend.snapshots) - 1)

    def _settings(self, values: Sequence[float]) -> Settings:
        return read_settings(self.sliders, values)

    def _update(
        self, side: int, source: Source, pair: Pair, language: str, values: Sequence[float]
    ) -> PairUpdate:
        new = (source, pair[1]) if side == 0 else (pair[0], source)
        seed = source if isinstance(source, int) else None
        return (new, seed, *self.all_faces(new, language, *values))

    def _source(self, side: int, pair: Pair, language: str, settings: Settings) -> str:
        source = pair[side]
        name = "" if isinstance(source, int) else source.name  # a seed has its field
        return figure(self.backend.picture(source, settings), translate("ab"[side], language), name)


def check_seed(seed: int, language: str) -> int:
    """Return `seed`; raise RefusalError if it is out of range."""
    if not 0 <= seed <= MAX_SEED:
        raise RefusalError(translate("no_seed", language, format_count(MAX_SEED, language)))
    return seed


@contextmanager
def refusals(language: str, path: Path | None = None, key: str = "broken") -> Iterator[None]:
    """Turn a PhotoError about `path` into a RefusalError, and any UserError into the text `key`."""
    try:
        yield
    except PhotoError as error:
        problem = photo_problem(str(error).removeprefix(f"{path}: "), language)
        raise RefusalError(translate("no_photo", language, problem)) from error
    except UserError as error:
        raise RefusalError(translate(key, language)) from error


def figure(picture: Tensor, caption: str, detail: str = "") -> str:
    """Return a uint8 picture [3, R, R] and its caption as HTML, the picture embedded."""
    image = enlarge(to_image(picture), FILM_PX)
    data = base64.b64encode(encode(image, PREVIEW_QUALITY)).decode()
    source, alt = f"data:image/jpeg;base64,{data}", escape(f"{caption} {detail}".strip())
    more = f" <span>{escape(detail)}</span>" if detail else ""
    return (
        f'<figure><img src="{source}" alt="{alt}">'
        f"<figcaption>{escape(caption)}{more}</figcaption></figure>"
    )
