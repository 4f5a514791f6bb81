"""The sliders of the page: the label, the range, the default and the effect of each.

A new one is a row of this table, and what it does a line of backend.py: the page lays out, labels
and reads whatever the table holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from common.cli import PSI
from sampling.directions import COUNT
from web.backend import FaceSettings, Settings
from web.texts import Text

# layers: B's share of the layers of one part, in %. face: a field of FaceSettings, which changes A
# and B as well. direction: how far the third face moves along one, in standard deviations of w.
Effect = Literal["layers", "face", "direction"]
PERCENT = (0, 100, 1)
DEVIATIONS = (-4, 4, 0.1)


@dataclass(frozen=True)
class Slider:
    """One slider, or, without a range, a field for a whole number."""

    name: str
    effect: Effect
    label: Text
    default: float
    range: tuple[float, float, float] | None = None  # lowest, highest, step


SLIDERS = (
    Slider(
        "coarse",
        "layers",
        (
            "Coarse layers: pose, shape of face and hair",
            "Capas gruesas: pose, forma de la cara y del pelo",
        ),
        0,
        PERCENT,
    ),
    Slider(
        "middle",
        "layers",
        ("Middle layers: features, eyes, mouth", "Capas medias: rasgos, ojos, boca"),
        100,
        PERCENT,
    ),
    Slider(
        "fine",
        "layers",
        ("Fine layers: colours, skin, light", "Capas finas: colores, piel, luz"),
        100,
        PERCENT,
    ),
    Slider(
        "psi",
        "face",
        ("Variety of drawn faces (psi)", "Variedad de los rostros sorteados (psi)"),
        PSI,
        (0, 1.5, 0.05),
    ),
    Slider("noise", "face", ("Strength of the noise", "Fuerza del ruido"), 1, (0, 2, 0.05)),
    Slider("noise_seed", "face", ("Seed of the noise", "Semilla del ruido"), 0),
    *(
        Slider(f"direction-{n}", "direction", (f"Direction {n}", f"Dirección {n}"), 0, DEVIATIONS)
        for n in range(COUNT)
    ),
)


def sliders_for(parts: Sequence[str]) -> list[Slider]:
    """Return the sliders of a generator whose layers in use are those of `parts`."""
    return [slider for slider in SLIDERS if slider.effect != "layers" or slider.name in parts]


def read_settings(sliders: Sequence[Slider], values: Sequence[float | None]) -> Settings:
    """Return the settings that the sliders' values stand for; an empty field is 0."""
    read: dict[Effect, dict[str, Any]] = {"layers": {}, "face": {}, "direction": {}}
    for slider, value in zip(sliders, values, strict=True):
        read[slider.effect][slider.name] = value if slider.range else int(value or 0)
    from_b = tuple(percent / 100 for percent in read["layers"].values())
    return Settings(from_b, FaceSettings(**read["face"]), tuple(read["direction"].values()))
