"""What all pictures of one call of generate.py share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from sampling.latents import Latents
from sampling.sampler import Faces


@dataclass(frozen=True)
class Job:
    """The generator, the folder for pictures, and the progress bar, which counts images.

    Faces are chosen by number: a seed, or with `stored` a row of it.
    """

    faces: Faces
    psi: float  # truncation of seeds
    out: Path
    bar: "tqdm[Any]"
    stored: Latents | None = None  # the faces of --w_in

    @property
    def kind(self) -> str:
        """Return what the number of a face means."""
        return "face" if self.stored else "seed"

    def latents(self, numbers: Sequence[int]) -> Latents:
        """Return the styles and noise of some faces."""
        if self.stored:
            return self.stored[torch.as_tensor(numbers)]
        return Latents(self.faces.ws(numbers, self.psi), self.faces.noise(numbers))

    def path(self, name: str) -> Path:
        """Return the path of a file about to be written, and create its folder."""
        self.out.mkdir(parents=True, exist_ok=True)
        return self.out / name
