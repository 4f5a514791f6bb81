"""What each of two drawn faces gives to a third, layer by layer, where the truth is known.

A small network learns to read what was drawn from the pictures of demo/draw_faces.py. Then it reads
faces of a generator, and the third faces that mixing makes of two of them at every border.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from command_line import Parser, device, fail, integer, interruptible, number, say, tell

if TYPE_CHECKING:  # torch takes seconds to import: not before the flags are known to be good
    from torch import Tensor

    from experiments.factors import Drawn, Reading
    from sampling import Faces

PROGRAM = "two_faces"
SIZE = 64  # px
UNSEEN = 10  # of the drawn faces one in so many is kept apart, to examine the reader
BOOTSTRAP = 200
EXAMPLES = """\
  python demo/draw_faces.py faces --count 5000 --size 64
  python prepare_data.py faces/young faces/old mix.lmdb --per_source 2500
  python train.py mix.lmdb --init_size 8 --max_size 64 --width 0.125
  python -m experiments.two_faces faces runs/mix"""


class Found(NamedTuple):
    """What was found of a factor in a generator's faces.

    `spread` is its standard deviation among them, in its own unit; `shares` [layers] is what each
    layer gives of it, and `interval` [layers / 2] half the 95 % interval of each resolution's.
    """

    spread: float
    shares: Tensor
    interval: Tensor


def read_arguments() -> argparse.Namespace:
    """Return the flags."""
    parser = Parser("Measure what each of two drawn faces gives to a third.", EXAMPLES)
    parser.prog = f"python -m experiments.{PROGRAM}"
    add = parser.add_argument
    add("faces", type=Path, metavar="FACES", help="folder that demo/draw_faces.py filled")
    add("runs", type=Path, nargs="+", metavar="RUN", help="trained on (some of) those faces")
    add("--out", type=Path, default=Path("two_faces"), metavar="DIR", help="folder to write to")
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    add("--pairs", type=integer(10), default=1000, metavar="N", help="pairs of faces to mix")
    add("--psi", type=number(-2, 2), default=0.7, metavar="X", help="truncation of the faces")
    add("--epochs", type=integer(1), default=8, metavar="N", help="of the reader over the faces")
    add("--seed", type=integer(0), default=0, metavar="N", help="of the reader")
    return parser.parse_args()


def compare(args: argparse.Namespace) -> None:
    """Train the reader, examine it, measure every run, and write what was found.

    Raises CheckpointError, DeviceError, PhotoError, SamplingError, OSError or KeyError.
    """
    from tqdm import tqdm

    from device import choose_device
    from experiments.factors import examine, train_reader
    from sampling import SamplingError, load_faces

    generators: dict[str, Faces] = {}
    for path in args.runs:
        faces, _, _ = load_faces(path, choose_device(args.device), partial(tell, PROGRAM))
        if faces.stage.resolution != SIZE:
            raise SamplingError(f"{path}: of {faces.stage.resolution} px; expected {SIZE} px")
        generators[path.name] = faces
    args.out.mkdir(parents=True, exist_ok=True)
    learned, unseen = read_faces(args.faces)
    with tqdm(desc="reader", unit=" images", leave=False, disable=None) as bar:
        reader = train_reader(learned, args.epochs, args.seed, bar.update)
    readings = examine(reader, unseen)
    found = {}
    for name, faces in generators.items():
        with tqdm(desc=name, unit=" images", leave=False, disable=None) as bar:
            read = [reader.read(each) for each in draw(faces, args, bar.update)]
        found[name] = measure(read, args.seed)
    tables = [table(name, found[name], readings) for name in found]
    text = "\n\n".join(tables)
    (args.out / "two_faces.md").write_text(f"{text}\n", encoding="utf-8")
    if importlib.util.find_spec("matplotlib"):
        write_heat(args.out / "two_faces.png", found, readings)
    say([text, f"{args.out}: two_faces.md; two_faces.png, if matplotlib is installed"])


def read_faces(folder: Path) -> tuple[Drawn, Drawn]:
    """Return the faces to learn from and those to examine the reader with, prepared as data are.

    Raises PhotoError, OSError, or KeyError if faces.csv lacks a column.
    """
    import numpy as np
    import torch
    from PIL import Image

    from experiments.factors import Drawn, read_table
    from photos import MIN_SIZE, QUALITY, Recipe, prepare_photo

    columns = read_table(folder / "faces.csv")
    recipe = Recipe((SIZE,), QUALITY, MIN_SIZE)
    pictures = []
    for file in columns:
        (record,) = prepare_photo(folder / file, recipe)
        with Image.open(io.BytesIO(record)) as image:
            pictures.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(pictures)))
    drawn = Drawn(torch.stack(pictures)[order], torch.tensor(list(columns.values()))[order])
    apart = len(order) // UNSEEN
    return Drawn(*(part[apart:] for part in drawn)), Drawn(*(part[:apart] for part in drawn))


def draw(faces: Faces, args: argparse.Namespace, done: Callable[[int], object]) -> Iterator[Tensor]:
    """Yield pictures [N, 3, 64, 64] of the third faces: those of B, then for each border, A's last.

    Layers before the border are A's, the others B's; all share one noise.
    """
    from drawing import SHARED_NOISE

    seeds = range(2 * args.pairs)
    a, b = (faces.ws(part, args.psi) for part in (seeds[: args.pairs], seeds[args.pairs :]))
    for border in range(faces.layers + 1):
        yield faces.render(faces.G.mix(a, b, border), faces.noise([SHARED_NOISE]))
        done(args.pairs)


def measure(read: Sequence[Tensor], seed: int) -> dict[str, Found]:
    """Return what was found of each factor as `read` [N, columns] for each border of `draw`."""
    import torch

    from experiments.factors import COLUMNS, half_interval, layer_shares, span

    found = {}
    for factor in COLUMNS:
        b, *thirds, a = (each[:, span(factor)] for each in read)
        shares = layer_shares(a, b, torch.stack(thirds))
        interval = half_interval(a, b, torch.stack(thirds), BOOTSTRAP, seed)
        spread = torch.cat([a, b]).std(0).mean().item()
        found[factor] = Found(spread, shares, interval)
    return found


def is_seen(found: Found, reading: Reading) -> bool:
    """Return whether faces differ in a factor by more than the reader errs."""
    return found.spread > reading.error


def table(name: str, found: Mapping[str, Found], readings: Mapping[str, Reading]) -> str:
    """Return a table in Markdown: the percentage of each factor that each resolution gives."""
    resolutions = len(next(iter(found.values())).interval)
    heads = [name, "reader: R²", "error", "spread", *(f"{4 << i} px" for i in range(resolutions))]
    lines = [heads, ["---"] * len(heads)]
    for factor, each in found.items():
        reading = readings[factor]
        numbers = [f"{reading.explained:.2f}", f"{reading.error:.2g}", f"{each.spread:.2g}"]
        given = each.shares.view(-1, 2).sum(1).tolist()
        cells = [
            f"{100 * share:.0f} ± {100 * half:.0f}"
            for share, half in zip(given, each.interval.tolist(), strict=True)
        ]
        seen = is_seen(each, reading)
        lines.append([factor, *numbers, *(cells if seen else ["-"] * resolutions)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_heat(
    path: Path, found: Mapping[str, Mapping[str, Found]], readings: Mapping[str, Reading]
) -> None:
    """Write a heat map for each run: factors down, layers across, percentages within."""
    import numpy as np
    from matplotlib.figure import Figure

    from plots import write_figure

    figure = Figure(figsize=(6.2 * len(found), 4.4), layout="constrained")
    for place, (name, factors) in enumerate(found.items()):
        axes = figure.add_subplot(1, len(found), place + 1, title=name)
        seen = [is_seen(each, readings[factor]) for factor, each in factors.items()]
        shares = np.stack([100 * each.shares.numpy() for each in factors.values()])
        shares[~np.array(seen)] = np.nan
        axes.imshow(shares, cmap="magma", vmin=0, vmax=60, aspect="auto")
        axes.set_yticks(range(len(factors)), list(factors))
        layers = range(shares.shape[1])
        axes.set_xticks(
            layers, [f"{i}\n{4 << i // 2} px" if i % 2 == 0 else str(i) for i in layers]
        )
        axes.set_xlabel("layer")
        for (row, column), share in np.ndenumerate(shares):
            text = f"{share:.0f}" if np.isfinite(share) else "-"
            colour = "black" if share > 35 or np.isnan(share) else "white"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    figure.suptitle("What a layer of A gives to the third face, % of each factor")
    write_figure(figure, path)


def main() -> None:
    """Run the experiment, and end with one line if something is wrong."""
    args = read_arguments()
    from checkpoint import CheckpointError
    from device import DeviceError
    from photos import PhotoError
    from sampling import SamplingError

    with interruptible(PROGRAM, "interrupted; nothing was made"):
        try:
            compare(args)
        except (CheckpointError, DeviceError, PhotoError, SamplingError, OSError) as error:
            fail(PROGRAM, error)


if __name__ == "__main__":
    main()
