"""The table of the page's sliders: name, effect, label, default and range of each.

To add one, add a row here and its effect to backend.py: the page shows whatever the table lists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from common.cli import PSI
from sampling.directions import COUNT
from web.backend import FaceSettings, Settings
from web.texts import Text

# layers: B's share of the layers of one part, in %. face: a field of FaceSettings; changes A and B
# too. direction: a move of the third face along one direction, in standard deviations of w.
Effect = Literal["layers", "face", "direction"]
PERCENT = (0, 100, 1)
DEVIATIONS = (-4, 4, 0.1)


@dataclass(frozen=True)
class Slider:
    """A slider; without a range, a field for a whole number."""

    name: str
    effect: Effect
    default: float
    range: tuple[float, float, float] | None  # lowest, highest, step
    label: Text


# fmt: off
SLIDERS = (
    Slider("coarse", "layers", 0, PERCENT, ("Coarse layers: pose, shape of face and hair",
                                            "Capas gruesas: pose, forma del rostro y del pelo")),
    Slider("middle", "layers", 100, PERCENT, ("Middle layers: features, eyes, mouth",
                                              "Capas medias: rasgos, ojos, boca")),
    Slider("fine", "layers", 100, PERCENT, ("Fine layers: colours, skin, light",
                                            "Capas finas: colores, piel, luz")),
    Slider("psi", "face", PSI, (0, 1.5, 0.05), ("Variety of drawn faces (psi)",
                                                "Variedad de los rostros al azar (psi)")),
    Slider("noise", "face", 1, (0, 2, 0.05), ("Strength of the noise", "Intensidad del ruido")),
    Slider("noise_seed", "face", 0, None, ("Seed of the noise", "Semilla del ruido")),
    *(Slider(f"direction-{n}", "direction", 0, DEVIATIONS, (f"Direction {n}", f"Dirección {n}"))
      for n in range(COUNT)),
)
# fmt: on


def sliders_for(parts: Sequence[str]) -> list[Slider]:
    """Return the sliders for a generator that uses the layers of `parts`: coarse, middle, fine."""
    return [slider for slider in SLIDERS if slider.effect != "layers" or slider.name in parts]


def read_settings(sliders: Sequence[Slider], values: Sequence[float | None]) -> Settings:
    """Return the values of `sliders`, in the same order, as Settings; an empty field means 0."""
    read: dict[Effect, dict[str, Any]] = {"layers": {}, "face": {}, "direction": {}}
    for slider, value in zip(sliders, values, strict=True):
        read[slider.effect][slider.name] = value if slider.range else int(value or 0)
    from_b = tuple(percent / 100 for percent in read["layers"].values())
    return Settings(from_b, FaceSettings(**read["face"]), tuple(read["direction"].values()))
