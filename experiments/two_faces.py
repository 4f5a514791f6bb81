"""What each of two drawn faces gives to a third, layer by layer, where the truth is known.

A small network learns to read what was drawn from the pictures of demo/draw_faces.py. Then it reads
faces of a generator, and the third faces that mixing makes of two of them at every border. A second
one, which learned the same another way, says whether to believe the first.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import Parser, UserError, device, integer, number, run_script, say, tell

if TYPE_CHECKING:  # torch takes seconds to import: not before the flags are known to be good
    from torch import Tensor

    from experiments.factors import Drawn, Origins, Reader, Reading
    from sampling.sampler import Faces

PROGRAM = "two_faces"
SIZE = 64  # px
SETS = ("young", "old")
UNSEEN = 10  # of the drawn faces one in so many is kept apart, to examine the reader
READERS = 2
BELIEVED = 0.7  # correlation of two readers' readings from which a factor is said to be seen
BOOTSTRAP = 200
PICTURE = "picture"  # as a factor: its own pixels, in place of what a reader makes of them
PICTURE_PX = 16  # to which it is shrunk for that
INNER = (2, 4, 6, 8)  # the borders between resolutions
EXAMPLES = """\
  python demo/draw_faces.py faces
  python prepare_data.py faces/young young.lmdb
  python prepare_data.py faces/young faces/old mix.lmdb --per_source 2500
  python train.py mix.lmdb --init_size 8 --max_size 64 --width 0.125
  python train.py young.lmdb --init_size 8 --max_size 64 --width 0.125
  python -m experiments.two_faces faces young=runs/young runs/mix"""


@dataclass(frozen=True)
class Run:
    """A generator to look at: what it is called, where it lies, which sets it learned from."""

    name: str
    path: Path
    sets: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What was found of a factor in a generator's faces.

    `spread` is its standard deviation among them, in its own unit, `agreement` the correlation of
    two readers, `origins` of whom it is in the third faces. `reading` is how well drawn faces are
    read, None for what needs no reader.
    """

    reading: Reading | None
    spread: float
    agreement: float
    origins: Origins

    @property
    def is_seen(self) -> bool:
        """Return whether faces differ in it by more than the reader errs, and readers agree."""
        if self.reading is None:
            return True
        return self.spread > self.reading.error and self.agreement > BELIEVED


def read_arguments() -> argparse.Namespace:
    """Return the flags."""
    parser = Parser("Measure what each of two drawn faces gives to a third.", EXAMPLES)
    parser.prog = f"python -m experiments.{PROGRAM}"
    add = parser.add_argument
    add("faces", type=Path, metavar="FACES", help="folder that demo/draw_faces.py filled")
    path = "run folder or checkpoint; young=RUN or old=RUN if trained on that set alone"
    add("runs", type=run, nargs="+", metavar="RUN", help=path)
    add("--out", type=Path, default=Path("two_faces"), metavar="DIR", help="folder to write to")
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    add("--pairs", type=integer(10), default=1000, metavar="N", help="pairs of faces to mix")
    add("--psi", type=number(-2, 2), default=0.7, metavar="X", help="truncation of the faces")
    add("--epochs", type=integer(1), default=8, metavar="N", help="of the readers over the faces")
    add("--seed", type=integer(0), default=0, metavar="N", help="of the first reader")
    return parser.parse_args()


def run(text: str) -> Run:
    """Parse a run, and which set it learned from."""
    name, equals, rest = text.partition("=")
    alone = bool(equals) and name in SETS
    path = Path(rest if alone else text)
    return Run(path.name, path, (name,) if alone else SETS)


def compare(args: argparse.Namespace) -> None:
    """Train the readers, examine the first, measure every run, and write what was found.

    Raises UserError or OSError.
    """
    import torch
    from tqdm import tqdm

    from experiments.factors import train_reader

    generators = load_all(args)
    args.out.mkdir(parents=True, exist_ok=True)
    learned, unseen, sets = read_faces(args.faces)
    bar = partial(tqdm, unit=" images", leave=False, disable=None)
    with bar(desc="readers", total=READERS * args.epochs * len(learned.pictures)) as moved:
        seeds = range(args.seed, args.seed + READERS)
        readers = [train_reader(learned, args.epochs, seed, moved.update) for seed in seeds]
    found: dict[str, dict[str, Found]] = {}
    parts = []
    for each, faces in zip(args.runs, generators, strict=True):
        rows = torch.tensor([kind in each.sets for kind in sets])
        with bar(desc=each.name, total=args.pairs * (faces.layers + 1)) as moved:
            pictures = draw(faces, args, moved.update)
        found[each.name] = measure(pictures, readers, unseen.part(rows), args.seed)
        apart = (pictures[0].float() - pictures[-1].float()).abs().mean().item()
        parts.append(table(each.name, found[each.name]))
        parts.append(f"Two faces of {each.name} differ by {apart:.1f} of 255 a pixel.")
    text = "\n\n".join(parts)
    (args.out / "two_faces.md").write_text(f"{text}\n", encoding="utf-8")
    if importlib.util.find_spec("matplotlib"):
        write_heat(args.out / "two_faces.png", found)
    say([text, f"{args.out}: two_faces.md; two_faces.png, if matplotlib is installed"])


def load_all(args: argparse.Namespace) -> list[Faces]:
    """Return the generators of the runs. Raises UserError."""
    from common.device import choose_device
    from sampling.sampler import load_faces

    generators = []
    for each in args.runs:
        faces, _, _ = load_faces(each.path, choose_device(args.device), partial(tell, PROGRAM))
        if faces.stage.resolution != SIZE:
            raise UserError(f"{each.path}: of {faces.stage.resolution} px; expected {SIZE} px")
        generators.append(faces)
    return generators


def read_faces(folder: Path) -> tuple[Drawn, Drawn, list[str]]:
    """Return the faces to learn from, those to examine the reader with, and the latters' sets.

    They are prepared as data are. Raises PhotoError or OSError.
    """
    import numpy as np
    import torch
    from PIL import Image

    from data.photos import MIN_SIZE, QUALITY, PhotoError, Recipe, prepare_photo
    from experiments.factors import Drawn, read_table

    try:
        columns = read_table(folder / "faces.csv")
    except (KeyError, ValueError) as error:
        wanted = "expected the table of demo/draw_faces.py"
        raise PhotoError(f"{folder / 'faces.csv'}: no such table ({error}); {wanted}") from error
    recipe = Recipe((SIZE,), QUALITY, MIN_SIZE)
    pictures = []
    for file in columns:
        (record,) = prepare_photo(folder / file, recipe)
        with Image.open(io.BytesIO(record)) as image:
            pictures.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(pictures)))
    drawn = Drawn(torch.stack(pictures), torch.tensor(list(columns.values())))
    unseen, learned = order[: len(order) // UNSEEN], order[len(order) // UNSEEN :]
    sets = [Path(list(columns)[row]).parent.name for row in unseen.tolist()]
    return drawn.part(learned), drawn.part(unseen), sets


def draw(faces: Faces, args: argparse.Namespace, done: Callable[[int], object]) -> Sequence[Tensor]:
    """Return pictures [N, 3, 64, 64] of the third faces: B's, then one for each border, A's last.

    Layers before the border are A's, the others B's; all share one noise.
    """
    from sampling.sampler import SHARED_NOISE

    seeds = range(2 * args.pairs)
    a, b = (faces.ws(part, args.psi) for part in (seeds[: args.pairs], seeds[args.pairs :]))
    drawn = []
    for border in range(faces.layers + 1):
        drawn.append(faces.render(faces.G.mix(a, b, border), faces.noise([SHARED_NOISE])))
        done(args.pairs)
    return drawn


def measure(
    pictures: Sequence[Tensor], readers: Sequence[Reader], unseen: Drawn, seed: int
) -> dict[str, Found]:
    """Return what was found of each factor in the pictures of `draw`, and of the pictures."""
    import torch

    from common.images import shrink, to_float
    from experiments.factors import COLUMNS, agreement, examine, origins, span

    readings = examine(readers[0], unseen)
    read = torch.stack([readers[0].read(each) for each in pictures])
    again = torch.cat([readers[1].read(pictures[end]) for end in (0, -1)])
    found = {}
    for factor in COLUMNS:
        b, *_, a = values = read[:, :, span(factor)]
        both = torch.cat([b, a])
        believed = agreement(both, again[:, span(factor)])
        shares = origins(a, b, values[1:-1], BOOTSTRAP, seed)
        spread = (both - both.mean(0)).square().mean().sqrt().item()
        found[factor] = Found(readings[factor], spread, believed, shares)
    small = [shrink(to_float(each), PICTURE_PX).flatten(1) for each in pictures]
    b, *_, a = small
    shares = origins(a, b, torch.stack(small[1:-1]), BOOTSTRAP, seed)
    spread = 127.5 * torch.cat([a, b]).std(0).square().mean().sqrt().item()
    return found | {PICTURE: Found(None, spread, 1.0, shares)}


def table(name: str, found: Mapping[str, Found]) -> str:
    """Return a table in Markdown: of whom each factor is at the borders between resolutions."""
    heads = [name, "R²", "error", "drawn spread", "its spread", "agreement"]
    heads += [f"to {2 << border // 2} px" for border in INNER]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for factor, each in found.items():
        numbers = ["-", "-", "-"]
        if each.reading:
            known = each.reading
            explained = "-" if math.isnan(known.explained) else f"{known.explained:.2f}"
            numbers = [explained, f"{known.error:.2g}", f"{known.spread:.2g}"]
        numbers += [f"{each.spread:.2g}", f"{each.agreement:.2f}"]
        lines.append([factor, *numbers, *(cell(each, border) for border in INNER)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(found: Found, border: int) -> str:
    """Return A's and B's percentages of a factor where the layers before `border` are A's."""
    if not found.is_seen:
        return "-"
    a, b, half = (round(100 * shares[border - 1].item()) for shares in found.origins)
    return f"{a} ± {half}, {b}"


def write_heat(path: Path, found: Mapping[str, Mapping[str, Found]]) -> None:
    """Write a heat map for each run: factors down, borders across, A's percentages within."""
    import numpy as np
    from matplotlib.figure import Figure

    from metrics.plots import write_figure

    figure = Figure(figsize=(6.2 * len(found), 4.6), layout="constrained")
    for place, (name, factors) in enumerate(found.items()):
        axes = figure.add_subplot(1, len(found), place + 1, title=name)
        shares = np.stack([100 * each.origins.a.numpy() for each in factors.values()])
        shares[[not each.is_seen for each in factors.values()]] = np.nan
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
    write_figure(figure, path)


def main() -> None:
    """Run the experiment, and end with one line if something is wrong."""
    args = read_arguments()
    run_script(PROGRAM, partial(compare, args), "interrupted; nothing was made")


if __name__ == "__main__":
    main()
