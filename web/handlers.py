"""What the page answers to each touch: pictures as HTML, and files to keep. No Gradio here.

Every answer takes what is chosen (`pair`, language, the sliders' values) and changes nothing, so
that a refused one loses nothing.
"""

from __future__ import annotations

import base64
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path

from torch import Tensor

from common.cli import UserError
from data.photos import PhotoError, encode
from outputs.film import FILM_PX, enlarge
from web.backend import FILM_FRAMES, Own, Pair, Pick, Settings, Studio, image_of
from web.sliders import read_settings, sliders_for
from web.texts import reason, say, whole

MAX_MB = 25  # of an upload: photos of phones have up to about 15
MAX_SEED = 2**31 - 1
DRAWN_SEEDS = 100_000  # among which another face is drawn
PREVIEW_QUALITY = 92  # of JPEGs

Moved = Callable[[int], object]  # hears how many steps were done
Picked = tuple[Pair, int | None, str, str, str]  # the pair, the seed shown, A, the third, B


class RefusalError(Exception):
    """What cannot be done; the message is for the visitor, in the visitor's language."""


class Answers:
    """Answers for one checkpoint; files to keep are made in `folder`."""

    def __init__(self, studio: Studio, folder: Path) -> None:
        self.studio = studio
        self.folder = folder
        self.sliders = sliders_for(studio.maker.parts)  # in the order of all `values`

    def settings(self, values: Sequence[float]) -> Settings:
        """Return what the sliders say."""
        return read_settings(self.sliders, values)

    def all_faces(self, pair: Pair, language: str, *values: float) -> tuple[str, str, str]:
        """Return A, the third face and B."""
        settings = self.settings(values)
        with refusing(language):
            check_seed(settings.face.noise_seed, language)
            third = self.third(pair, language, *values)
            a, b = (self._side(side, pair, language, settings) for side in (0, 1))
        return a, third, b

    def third(self, pair: Pair, language: str, *values: float) -> str:
        """Return the third face and how it differs from A and B, whose pictures are at hand."""
        settings = self.settings(values)
        with refusing(language):
            third = self.studio.third(pair, settings)
            maps = self.studio.changes(pair, settings, third)
        changes = "".join(
            figure(change, say(key, language))
            for change, key in zip(maps, ("unlike_a", "unlike_b"), strict=True)
        )
        return figure(third, say("third", language)) + f'<div class="changes">{changes}</div>'

    def third_alone(self, pair: Pair, language: str, *values: float) -> str:
        """Return the third face while A and B are still to follow."""
        with refusing(language):
            third = self.studio.third(pair, self.settings(values))
        return figure(third, say("third", language)) + '<div class="changes"></div>'

    def choose(
        self, side: int, seed: float | None, pair: Pair, language: str, *values: float
    ) -> Picked:
        """Return all with the face of `seed`; nothing typed leaves the face as it is."""
        pick = pair[side] if seed is None else check_seed(int(seed), language)
        return self._picked(side, pick, pair, language, values)

    def draw(self, side: int, pair: Pair, language: str, *values: float) -> Picked:
        """Return all with another drawn face."""
        seed = random.randrange(DRAWN_SEEDS)
        return self._picked(side, seed, pair, language, values)

    def upload(
        self, side: int, moved: Moved, path: Path, pair: Pair, language: str, *values: float
    ) -> Picked:
        """Return all with the face in a file: of styles if it ends with .npz, else a photo.

        The file is removed, whatever it was.
        """
        styles = path.suffix.lower() == ".npz"
        with refusing(language, path, "no_styles" if styles else "broken"):
            try:
                if path.stat().st_size > MAX_MB * 2**20:
                    raise RefusalError(say("too_large", language, MAX_MB))
                own = self.studio.read_styles(path) if styles else self.studio.project(path, moved)
            finally:
                with suppress(OSError):
                    path.unlink()
        return self._picked(side, own, pair, language, values)

    def keep(self, what: str, moved: Moved, pair: Pair, language: str, *values: float) -> Path:
        """Return the file that holds the picture, sheet, film or styles of what is chosen."""
        settings = self.settings(values)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        with refusing(language):
            if what == "picture":
                return self.studio.write_picture(folder, pair, settings)
            if what == "sheet":
                return self.studio.write_sheet(folder, pair, settings)
            if what == "styles":
                return self.studio.write_styles(folder, pair, settings)
            return self.studio.write_film(folder, pair, settings, moved)

    def at(self, stop: int, pair: Pair, language: str, *values: float) -> str:
        """Return A, the third face and B as they were at a snapshot of the run."""
        with refusing(language):
            then = self.studio.at(int(stop), pair, self.settings(values))
        words = [say(key, language) for key in ("a", "third", "b")]
        shown = "".join(figure(*each) for each in zip(then.pictures, words, strict=True))
        if then.iteration is None:
            when = say("at_px", language, then.resolution)
        else:
            when = say("at", language, whole(then.iteration, language), then.resolution)
        brought = any(isinstance(pick, Own) for pick in pair)
        note = f"<p>{say('stand_ins', language)}</p>" if brought else ""
        return f'<div class="trio">{shown}</div><p class="when">{when}</p>{note}'

    def step(self, by: int, stop: float) -> int:
        """Return the snapshot before (-1) or after (1) one of them."""
        return min(max(0, int(stop) + by), len(self.studio.snapshots) - 1)

    def _picked(
        self, side: int, pick: Pick, pair: Pair, language: str, values: Sequence[float]
    ) -> Picked:
        chosen = (pick, pair[1]) if side == 0 else (pair[0], pick)
        shown = self.all_faces(chosen, language, *values)
        return (chosen, None if isinstance(pick, Own) else pick, *shown)

    def _side(self, side: int, pair: Pair, language: str, settings: Settings) -> str:
        pick = pair[side]
        name = pick.face.name if isinstance(pick, Own) else ""  # a seed stands below already
        return figure(self.studio.alone(pick, settings), say("ab"[side], language), name)


def film_steps() -> int:
    """Return how many frames a film has."""
    return 3 * FILM_FRAMES


def check_seed(seed: int, language: str) -> int:
    """Return `seed`, or refuse it."""
    if not 0 <= seed <= MAX_SEED:
        raise RefusalError(say("no_seed", language, whole(MAX_SEED, language)))
    return seed


@contextmanager
def refusing(language: str, path: Path | None = None, otherwise: str = "broken") -> Iterator[None]:
    """Turn errors within the block into RefusalErrors: of a photo, else what `otherwise` says."""
    try:
        yield
    except PhotoError as error:
        why = str(error).removeprefix(f"{path}: ")
        raise RefusalError(say("no_photo", language, reason(why, language))) from error
    except UserError as error:
        raise RefusalError(say(otherwise, language)) from error


def figure(picture: Tensor, caption: str, detail: str = "") -> str:
    """Return a uint8 picture [3, R, R] with its caption, as HTML that needs no other file."""
    image = enlarge(image_of(picture), FILM_PX)
    data = base64.b64encode(encode(image, PREVIEW_QUALITY)).decode()
    source, alt = f"data:image/jpeg;base64,{data}", escape(f"{caption} {detail}".strip())
    more = f" <span>{escape(detail)}</span>" if detail else ""
    return (
        f'<figure><img src="{source}" alt="{alt}">'
        f"<figcaption>{escape(caption)}{more}</figcaption></figure>"
    )
