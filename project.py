"""Command line: photos and a checkpoint -> the styles that show them, a sheet and a film.

A photo is prepared by the function that prepared the data. The search itself is projection.py's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import (
    MAX_SEED,
    STEPS,
    Parser,
    device,
    integer,
    run_script,
    say,
    tell,
)

if TYPE_CHECKING:  # torch takes seconds to import: not before the flags are known to be good
    from PIL import Image
    from torch import Tensor

    from sampling.projector import Projection
    from sampling.sampler import Faces

PROGRAM = "project.py"
FILM_PHOTOS = 8  # at most in the film, side by side
FILM_PX = 128  # of each of them, at least
FILM_MS, FILM_HOLD_MS = 100, 2000  # of each frame, and of the last
MOST = 64.0  # of 255: the difference that is brightest on the sheet
SHEET_ROWS, SHEET_COLUMNS = 8, 3  # photos below each other before they stand side by side
EXAMPLES = """\
  python project.py me.jpg runs/faces
  python project.py me.jpg you.png runs/faces --steps 300
  python generate.py runs/faces --mix runs/faces/projected/me.npz runs/faces/projected/you.npz

Photos may be of any format that prepare_data.py reads; the centre square is used, so crop them as
the photos were that the generator learned from. For each photo NAME.npz is written; projection.png
shows photo, reconstruction and difference, with PSNR (dB, higher is closer) and SSIM (1 is the
same), projection.webp the way there. Files of the same names are replaced."""


def parser() -> Parser:
    """Return the parser; here stands every default."""
    made = Parser("Find the styles that show a photo.", EXAMPLES)
    made.prog = PROGRAM
    made.usage = "%(prog)s [options] PHOTO [PHOTO ...] CKPT"
    paths = "photos; at the end a file or run folder that train.py made"
    made.add_argument("paths", nargs="+", type=Path, metavar="PHOTO [PHOTO ...] CKPT", help=paths)
    add = made.add_argument
    add("--out", type=Path, metavar="DIR", help="folder (default: `projected` in the run folder)")
    steps = "steps of the search: more come closer to the photo, at last closer than a face can"
    add("--steps", type=integer(1, 100_000), default=STEPS, metavar="N", help=steps)
    seed = "first seed of the samples that the search begins with"
    add("--seed", type=integer(0, MAX_SEED - 2**16), default=0, metavar="N", help=seed)
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    precision = "of convolutions in the search; auto: fastest"
    choices = ["auto", "fp32", "bf16"]
    add("--precision", default="auto", choices=choices, help=precision)
    return made


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the checked flags; exit with code 2 and one line if they are wrong."""
    made = parser()
    args = made.parse_intermixed_args(argv)
    *args.photos, args.checkpoint = args.paths
    if not args.photos:
        made.error("PHOTO, CKPT: only one path is given; expected photos and a checkpoint")
    return args


def project_all(args: argparse.Namespace) -> list[str]:
    """Project the photos, write every file, and return a line for each photo and picture.

    Raises UserError or OSError.
    """
    from tqdm import tqdm

    from common.device import choose_device
    from common.images import to_uint8
    from outputs.grids import default_out
    from sampling.projector import as_trained, load_projector, read_photos
    from sampling.sampler import load_faces

    device = choose_device(args.device)
    told = partial(tell, PROGRAM)
    loaded = load_faces(args.checkpoint, device, told)
    faces, file, _ = loaded
    targets = as_trained(read_photos(args.photos, faces), faces).to(device)
    projector = load_projector(loaded, args.steps, args.precision, told)
    total = len(targets) * args.steps
    with tqdm(total=total, unit=" steps", leave=False, disable=None) as bar:
        projection = projector.project(targets, args.seed, bar.update)
    out = args.out or default_out(file, "projected")
    out.mkdir(parents=True, exist_ok=True)
    return write_all(out, args.photos, faces, to_uint8(targets).cpu(), projection)


def write_all(
    out: Path, paths: Sequence[Path], faces: Faces, targets: Tensor, projection: Projection
) -> list[str]:
    """Write a file of styles for each photo, the sheet and the film; return what was written."""
    from common.images import write_image
    from sampling.latents import Latents, save_latents, unique_names
    from sampling.similarity import psnr, ssim

    latents, reached = projection.latents, projection.way[-1]
    ratios, likenesses = psnr(targets, reached).tolist(), ssim(targets, reached).tolist()
    lines, labels = [], []
    for i, name in enumerate(unique_names(paths)):
        path = out / f"{name}.npz"
        one = slice(i, i + 1)
        save_latents(path, faces.G, Latents(latents.ws[one], [maps[one] for maps in latents.noise]))
        labels.append(f"{name[:20]}\n{ratios[i]:.1f} dB\nSSIM {likenesses[i]:.2f}")
        lines.append(f"{path}: PSNR {ratios[i]:.2f} dB, SSIM {likenesses[i]:.3f}")
    mean = f"PSNR {sum(ratios) / len(ratios):.2f} dB, SSIM {sum(likenesses) / len(ratios):.3f}"
    path = out / "projection.png"
    write_image(draw_sheet(targets, reached, labels, mean), path)
    lines.append(f"{path}: {len(paths):,} photos, mean {mean}")
    return [*lines, write_way(out / "projection.webp", targets, projection.way)]


def draw_sheet(targets: Tensor, reached: Tensor, labels: Sequence[str], mean: str) -> Image.Image:
    """Return photo, reconstruction and difference of each photo, side by side if there are many.

    The scale of differences is fixed, so that sheets can be compared.
    """
    from outputs.sheet import Row, beside, difference, heat, sheet

    change = heat(difference(targets, reached), MOST)
    triples = zip(labels, zip(targets, reached, change, strict=True), strict=True)
    rows = [Row(label, pictures) for label, pictures in triples]
    columns = min(SHEET_COLUMNS, -(-len(rows) // SHEET_ROWS))
    share = -(-len(rows) // columns)
    heads = ("photo", "reconstruction", "difference")
    panels = []
    for start in range(0, len(rows), share):
        first = start == 0
        title = f"{len(rows)} photos, mean {mean}" if first and len(rows) > 1 else " "
        panel = rows[start : start + share]
        panels.append(sheet(panel, heads, title, MOST if first else None))
    return beside(panels)


def write_way(path: Path, targets: Tensor, way: Sequence[Tensor]) -> str:
    """Write the film of the way: photos above, what shows them below; return what was written."""
    import torch

    from common.images import grid
    from outputs.film import FILM_QUALITY, enlarge, write_animation

    shown = min(len(targets), FILM_PHOTOS)
    pairs = [torch.cat([targets[:shown], reached[:shown]]) for reached in way]
    frames = [enlarge(grid(pair, shown), FILM_PX * shown) for pair in pairs]
    milliseconds = [FILM_MS] * (len(frames) - 1) + [FILM_HOLD_MS]
    write_animation(frames, path, milliseconds, FILM_QUALITY)
    return f"{path}: the way there, {shown} photos"


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    args = parse_args(argv)
    run_script(
        PROGRAM,
        lambda: say(project_all(args)),
        interrupted="interrupted; nothing was made",
    )


if __name__ == "__main__":
    main()
