"""Projects photos that a run has not seen, measures the reconstructions and mixes them.

The sheet shows generated images only: reconstructions and their mixes, no photo.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from checkpoints.checkpoint import load_discriminator
from checkpoints.run_folder import read_config
from common.cli import UserError, say, tell
from common.device import choose_device, choose_precision
from common.images import to_uint8, write_image
from data.lmdb_format import HOLDOUT
from dataset import ImageBank
from outputs.sheet import Row, beside, sheet
from sampling.mixing import Face, blend
from sampling.projector import Projection, Projector, as_trained
from sampling.sampler import Faces, load_faces
from sampling.similarity import psnr, ssim

COLUMNS = 2  # of the sheet
HEADS = ("A", "B", "coarse of A,\nrest of B", "middle of A,\nrest of B", "half of\neach")


def project_held_out(args: argparse.Namespace) -> None:
    """Project photos, write own_photos.md and mixes.png, and print the metrics.

    Raises UserError or OSError.
    """
    device = choose_device(args.device)
    faces, file, entries = load_faces(args.checkpoint, device, partial(tell, "own_photos"))
    targets = as_trained(read_held_out(args, file.parent, faces), faces)
    D = load_discriminator(file, entries, faces.G)
    dtype = torch.bfloat16 if choose_precision("auto", device) == "bf16" else torch.float32
    projector = Projector(faces, D, args.steps, dtype)
    wall, cpu = time.perf_counter(), time.process_time()
    with tqdm(total=args.photos * args.steps, unit=" steps", leave=False, disable=None) as bar:
        projection = projector.project(targets, 0, bar.update)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    photos, reconstructions = to_uint8(targets).cpu(), projection.frames[-1]
    psnrs, ssims = psnr(photos, reconstructions), ssim(photos, reconstructions)
    text = (
        f"{file}, after {entries.get('nimg', 0):,} images: {args.photos} photos held out, "
        f"{args.steps} steps: PSNR {psnrs.mean():.2f} dB on average "
        f"({psnrs.min():.2f} to {psnrs.max():.2f}), SSIM {ssims.mean():.3f} "
        f"({ssims.min():.3f} to {ssims.max():.3f}); for each {wall / args.photos:.1f} s, "
        f"{cpu / args.photos:.1f} s of CPU time, {torch.get_num_threads()} threads"
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "own_photos.md").write_text(f"{text}\n", encoding="utf-8")
    write_image(draw_mixes(faces, projection, args.pairs), args.out / "mixes.png")
    say([text, f"{args.out}: own_photos.md; mixes.png, {args.pairs} pairs"])


def read_held_out(args: argparse.Namespace, run: Path, faces: Faces) -> Tensor:
    """Return the first photos held out, uint8 [N, 3, R, R] at full resolution, on the device.

    Raises UserError if the run learned from other photos, or too few are held out.
    """
    resolution = faces.G.config.resolution
    if read_config(run).get("data") != ImageBank(args.lmdb, resolution).digest:
        raise UserError(f"{args.lmdb}: not the photos of {run}; expected its own database")
    bank = ImageBank(args.lmdb, resolution, faces.device, HOLDOUT)
    if bank.count < args.photos:
        raise UserError(
            f"{args.lmdb}: {bank.count} photos held out; expected --photos {args.photos}. "
            "Hold more out: prepare_data.py --holdout"
        )
    return bank.take(np.arange(args.photos))


def draw_mixes(faces: Faces, projection: Projection, pairs: int) -> Image.Image:
    """Return a sheet with a row for each pair of photos: the columns are HEADS."""

    def face(i: int) -> Face:
        latents = projection.latents
        return Face("", latents.ws[i : i + 1], [maps[i : i + 1] for maps in latents.noise])

    weights = mixing_weights(faces)
    rows = []
    for pair in range(pairs):
        mixed = blend([face(2 * pair), face(2 * pair + 1)], weights)
        rows.append(Row(f"{pair + 1}", list(faces.render(mixed.ws, mixed.noise))))
    height = -(-len(rows) // COLUMNS)
    panels = [rows[start : start + height] for start in range(0, len(rows), height)]
    return beside([sheet(panel, HEADS) for panel in panels])


def mixing_weights(faces: Faces) -> Tensor:
    """Return the weights of A and B in each layer for each of HEADS: [5, 2, layers in use]."""
    of_a = torch.zeros(len(HEADS), faces.layers)
    of_a[0] = 1
    for row, part in ((2, "coarse"), (3, "middle")):
        layers = faces.part(part)
        of_a[row, layers.start : layers.stop] = 1
    of_a[4] = 0.5
    return torch.stack([of_a, 1 - of_a], dim=1)
