"""Measures what each of two faces gives to a third, where the truth is known: see doc/two_faces.md.

A small network, the reader, learns to read the factors from the images of demo/draw_faces.py. Then
it reads generated faces, and the third faces that mixing makes of two of them at every border. A
second reader, trained with other random numbers, tells how far the first can be trusted.
"""

import argparse
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from common.cli import UserError, say, tell
from common.device import choose_device
from common.images import shrink, to_float
from data.photos import MIN_SIZE, QUALITY, PhotoError, Recipe, prepare_photo
from experiments.factors import (
    COLUMNS,
    RESOLUTION,
    DrawnFaces,
    Reader,
    ReaderScore,
    Shares,
    agreement,
    fit_shares,
    read_table,
    score_reader,
    span,
    train_reader,
)
from metrics import plots
from sampling.sampler import SHARED_NOISE, Faces, load_faces

TEST_SHARE = 10  # one in so many drawn faces is kept to test the reader
READERS = 2
MIN_AGREEMENT = 0.7  # of two readers, for a factor to count as visible
BOOTSTRAP = 200
PICTURE = "picture"  # the image itself as a factor, which needs no reader
PICTURE_PX = 16  # it is shrunk to this
INNER = (2, 4, 6, 8)  # the borders between resolutions


@dataclass(frozen=True)
class FactorResult:
    """What was measured of a factor in a generator's faces.

    `std` is its standard deviation among them, in its own unit, `agreement` the correlation of two
    readers, `shares` what the third faces have from A and B. `score` is how well the factor is read
    from drawn faces; None if it needs no reader.
    """

    score: ReaderScore | None
    std: float
    agreement: float
    shares: Shares

    @property
    def is_visible(self) -> bool:
        """Return whether it varies by more than the reader errs, and the readers agree on it."""
        if self.score is None:
            return True
        return self.std > self.score.error and self.agreement > MIN_AGREEMENT


def compare(args: argparse.Namespace) -> None:
    """Train the readers, test the first, measure every run, and write the results.

    Raises UserError or OSError.
    """
    generators = load_generators(args)
    args.out.mkdir(parents=True, exist_ok=True)
    train_set, test_set, sets = read_faces(args.faces)
    progress_bar = partial(tqdm, unit=" images", leave=False, disable=None)
    with progress_bar(desc="readers", total=READERS * args.epochs * len(train_set.images)) as bar:
        seeds = range(args.seed, args.seed + READERS)
        readers = [train_reader(train_set, args.epochs, seed, bar.update) for seed in seeds]
    results: dict[str, dict[str, FactorResult]] = {}
    parts = []
    for run, faces in zip(args.runs, generators, strict=True):
        rows = torch.tensor([name in run.sets for name in sets])
        with progress_bar(desc=run.name, total=args.pairs * (faces.layers + 1)) as bar:
            images = draw_thirds(faces, args, bar.update)
        results[run.name] = measure(images, readers, test_set.select(rows), args.seed)
        difference = (images[0].float() - images[-1].float()).abs().mean().item()
        parts.append(table(run.name, results[run.name]))
        parts.append(f"Two faces of {run.name} differ by {difference:.1f} of 255 a pixel.")
    text = "\n\n".join(parts)
    (args.out / "two_faces.md").write_text(f"{text}\n", encoding="utf-8")
    if plots.are_available():
        write_heat_maps(args.out / "two_faces.png", results)
    say([text, f"{args.out}: two_faces.md; two_faces.png, if matplotlib is installed"])


def load_generators(args: argparse.Namespace) -> list[Faces]:
    """Return the generators of the runs. Raises UserError."""
    generators = []
    for run in args.runs:
        faces, _, _ = load_faces(run.path, choose_device(args.device), partial(tell, "two_faces"))
        if faces.stage.resolution != RESOLUTION:
            raise UserError(f"{run.path}: of {faces.stage.resolution} px; expected {RESOLUTION} px")
        generators.append(faces)
    return generators


def read_faces(folder: Path) -> tuple[DrawnFaces, DrawnFaces, list[str]]:
    """Return the drawn faces to train and to test the reader with, and the sets of the latter.

    They are prepared as prepare_data.py does. Raises PhotoError or OSError.
    """
    try:
        columns = read_table(folder / "faces.csv")
    except (KeyError, ValueError) as error:
        wanted = "expected the table of demo/draw_faces.py"
        raise PhotoError(f"{folder / 'faces.csv'}: no such table ({error}); {wanted}") from error
    recipe = Recipe((RESOLUTION,), QUALITY, MIN_SIZE)
    images = []
    for file in columns:
        (record,) = prepare_photo(folder / file, recipe)
        with Image.open(io.BytesIO(record)) as image:
            images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(images)))
    drawn = DrawnFaces(torch.stack(images), torch.tensor(list(columns.values())))
    test, train = order[: len(order) // TEST_SHARE], order[len(order) // TEST_SHARE :]
    sets = [Path(list(columns)[row]).parent.name for row in test.tolist()]
    return drawn.select(train), drawn.select(test), sets


def draw_thirds(
    faces: Faces, args: argparse.Namespace, progress: Callable[[int], object]
) -> list[Tensor]:
    """Return images [N, 3, 64, 64]: the faces B, their third faces at each border, the faces A.

    Layers before the border are A's, the others B's; all share one noise.
    """
    seeds = range(2 * args.pairs)
    a, b = (faces.ws(part, args.psi) for part in (seeds[: args.pairs], seeds[args.pairs :]))
    images = []
    for border in range(faces.layers + 1):
        images.append(faces.render(faces.G.mix(a, b, border), faces.noise([SHARED_NOISE])))
        progress(args.pairs)
    return images


def measure(
    images: Sequence[Tensor], readers: Sequence[Reader], test_set: DrawnFaces, seed: int
) -> dict[str, FactorResult]:
    """Return the results for each factor, and for PICTURE, from the images of `draw_thirds`."""
    scores = score_reader(readers[0], test_set)
    read = torch.stack([readers[0].read(each) for each in images])
    again = torch.cat([readers[1].read(images[end]) for end in (0, -1)])
    results = {}
    for factor in COLUMNS:
        b, *_, a = values = read[:, :, span(factor)]
        both = torch.cat([b, a])
        agreed = agreement(both, again[:, span(factor)])
        shares = fit_shares(a, b, values[1:-1], BOOTSTRAP, seed)
        std = (both - both.mean(0)).square().mean().sqrt().item()
        results[factor] = FactorResult(scores[factor], std, agreed, shares)
    b, *thirds, a = (shrink(to_float(each), PICTURE_PX).flatten(1) for each in images)
    shares = fit_shares(a, b, torch.stack(thirds), BOOTSTRAP, seed)
    std = 127.5 * torch.cat([a, b]).std(0).square().mean().sqrt().item()
    return results | {PICTURE: FactorResult(None, std, 1.0, shares)}


def table(name: str, results: Mapping[str, FactorResult]) -> str:
    """Return a Markdown table: the shares of each factor at the borders between resolutions."""
    heads = [name, "R²", "error", "drawn spread", "its spread", "agreement"]
    heads += [f"to {2 << border // 2} px" for border in INNER]
    rows = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for factor, result in results.items():
        numbers = ["-", "-", "-"]
        if result.score:
            score = result.score
            r2 = "-" if math.isnan(score.r2) else f"{score.r2:.2f}"
            numbers = [r2, f"{score.error:.2g}", f"{score.std:.2g}"]
        numbers += [f"{result.std:.2g}", f"{result.agreement:.2f}"]
        rows.append([factor, *numbers, *(cell(result, border) for border in INNER)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell(result: FactorResult, border: int) -> str:
    """Return the percentages of A and B where the layers before `border` are A's."""
    if not result.is_visible:
        return "-"
    a, b, half_width = (round(100 * shares[border - 1].item()) for shares in result.shares)
    return f"{a} ± {half_width}, {b}"


def write_heat_maps(path: Path, results: Mapping[str, Mapping[str, FactorResult]]) -> None:
    """Write a heat map for each run: factors down, borders across, A's percentages inside."""
    figure = plots.new_figure(6.2 * len(results), 4.6)
    for place, (name, factors) in enumerate(results.items()):
        axes = figure.add_subplot(1, len(results), place + 1, title=name)
        shares = np.stack([100 * result.shares.a.numpy() for result in factors.values()])
        shares[[not result.is_visible for result in factors.values()]] = np.nan
        axes.imshow(shares, cmap="RdBu", vmin=-10, vmax=110, aspect="auto")
        axes.set_yticks(range(len(factors)), list(factors))
        borders = range(1, shares.shape[1] + 1)
        labels = ["0" if border == 1 else f"0-{border - 1}" for border in borders]
        for border in INNER:
            labels[border - 1] += f"\nto {2 << border // 2} px"
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel("layers of A; the others are B's")
        for (row, column), share in np.ndenumerate(shares):
            text = str(round(share)) if np.isfinite(share) else "-"
            colour = "white" if share < 20 or share > 80 else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    figure.suptitle("How much of each factor of the third face is A's, %  (- : cannot be seen)")
    plots.write_figure(figure, path)
