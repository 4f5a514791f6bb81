"""How near projections come to photos that a run has not seen, and what mixes of two look like.

The sheet shows generated pictures only: reconstructions and their mixes, no photo.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import Parser, UserError, device, integer, run_script, say, tell

if TYPE_CHECKING:  # torch takes seconds to import: not before the flags are known to be good
    from PIL import Image
    from torch import Tensor

    from sampling.projector import Projection
    from sampling.sampler import Faces

PROGRAM = "own_photos"
COLUMNS = 2  # of the sheet
HEADS = ("A", "B", "coarse of A,\nrest of B", "middle of A,\nrest of B", "half of\neach")
EXAMPLES = """\
  python prepare_data.py celeba celeba5k.lmdb --per_source 5000 --holdout 1000
  python -m experiments.own_photos runs/celeba5k celeba5k.lmdb"""


def read_arguments() -> argparse.Namespace:
    """Return the flags."""
    parser = Parser("Project photos that a run has not seen, and mix them.", EXAMPLES)
    parser.prog = f"python -m experiments.{PROGRAM}"
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="RUN", help="run folder, with its discriminator")
    add("lmdb", type=Path, metavar="LMDB", help="its database, with photos held out")
    add("--out", type=Path, default=Path(PROGRAM), metavar="DIR", help="folder to write to")
    add("--photos", type=integer(2), default=50, metavar="N", help="the first ones held out")
    add("--pairs", type=integer(1, 100), default=10, metavar="N", help="pairs of them to mix")
    add("--steps", type=integer(1), default=100, metavar="N", help="of each projection")
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    args = parser.parse_args()
    if 2 * args.pairs > args.photos:
        parser.error(f"--pairs {args.pairs}: expected at most half of --photos {args.photos}")
    return args


def project_unseen(args: argparse.Namespace) -> None:
    """Project, write own_photos.md and mixes.png, and tell the figures.

    Raises UserError or OSError.
    """
    import torch
    from tqdm import tqdm

    from checkpoints.checkpoint import load_discriminator
    from common.device import choose_device, choose_precision
    from common.images import to_uint8, write_image
    from sampling.projector import Projector, as_trained
    from sampling.sampler import load_faces
    from sampling.similarity import psnr, ssim

    chosen = choose_device(args.device)
    faces, file, entries = load_faces(args.checkpoint, chosen, partial(tell, PROGRAM))
    targets = as_trained(read_unseen(args, file.parent, faces), faces)
    D = load_discriminator(file, entries, faces.G)
    dtype = torch.bfloat16 if choose_precision("auto", chosen) == "bf16" else torch.float32
    projector = Projector(faces, D, args.steps, dtype)
    begun, used = time.perf_counter(), time.process_time()
    with tqdm(total=args.photos * args.steps, unit=" steps", leave=False, disable=None) as bar:
        projection = projector.project(targets, 0, bar.update)
    elapsed, used = time.perf_counter() - begun, time.process_time() - used
    photos, shown = to_uint8(targets).cpu(), projection.frames[-1]
    closeness, likeness = psnr(photos, shown), ssim(photos, shown)
    text = (
        f"{file}, after {entries.get('nimg', 0):,} images: {args.photos} photos held out, "
        f"{args.steps} steps: PSNR {closeness.mean():.2f} dB on average "
        f"({closeness.min():.2f} to {closeness.max():.2f}), SSIM {likeness.mean():.3f} "
        f"({likeness.min():.3f} to {likeness.max():.3f}); for each {elapsed / args.photos:.1f} s, "
        f"{used / args.photos:.1f} s of processors, {torch.get_num_threads()} threads"
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "own_photos.md").write_text(f"{text}\n", encoding="utf-8")
    write_image(draw_mixes(faces, projection, args.pairs), args.out / "mixes.png")
    say([text, f"{args.out}: own_photos.md; mixes.png, {args.pairs} pairs"])


def read_unseen(args: argparse.Namespace, run: Path, faces: Faces) -> Tensor:
    """Return the first photos held out, uint8 [N, 3, R, R] of full size, on the device.

    Raises UserError: the run learned from other photos, or too few are held out.
    """
    import numpy as np

    from checkpoints.run_folder import read_config
    from data.lmdb_format import HOLDOUT
    from dataset import ImageBank

    resolution = faces.G.config.resolution
    trained_on = read_config(run).get("data")
    if trained_on != ImageBank(args.lmdb, resolution).digest:
        raise UserError(f"{args.lmdb}: not the photos of {run}; expected its own database")
    bank = ImageBank(args.lmdb, resolution, faces.device, HOLDOUT)
    if bank.count < args.photos:
        raise UserError(
            f"{args.lmdb}: {bank.count} photos held out; expected --photos {args.photos}. "
            "Hold more out: prepare_data.py --holdout"
        )
    return bank.take(np.arange(args.photos))


def draw_mixes(faces: Faces, projection: Projection, pairs: int) -> Image.Image:
    """Return a row for each pair: both reconstructions, and what --give would make of them."""
    from outputs.sheet import Row, beside, sheet
    from sampling.mixing import Face, blend

    def face(i: int) -> Face:
        latents = projection.latents
        return Face("", latents.ws[i : i + 1], [maps[i : i + 1] for maps in latents.noise])

    weights = shares(faces)
    rows = []
    for pair in range(pairs):
        third = blend([face(2 * pair), face(2 * pair + 1)], weights)
        rows.append(Row(f"{pair + 1}", list(faces.render(third.ws, third.noise))))
    share = -(-len(rows) // COLUMNS)
    panels = [rows[start : start + share] for start in range(0, len(rows), share)]
    return beside([sheet(panel, HEADS) for panel in panels])


def shares(faces: Faces) -> Tensor:
    """Return the weights [5, 2, layers in use] of HEADS."""
    import torch

    of_a = torch.zeros(len(HEADS), faces.layers)
    of_a[0] = 1
    for row, part in ((2, "coarse"), (3, "middle")):
        layers = faces.part(part)
        of_a[row, layers.start : layers.stop] = 1
    of_a[4] = 0.5
    return torch.stack([of_a, 1 - of_a], dim=1)


def main() -> None:
    """Run the experiment, and end with one line if something is wrong."""
    args = read_arguments()
    run_script(PROGRAM, partial(project_unseen, args), "interrupted; nothing was made")


if __name__ == "__main__":
    main()
