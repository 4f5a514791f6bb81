"""Photos and a checkpoint become styles, a sheet and a film: project.py's work."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from checkpoints.run_folder import run_of
from common.cli import tell
from common.device import choose_device
from common.images import grid, to_uint8, write_image
from outputs.film import FILM_QUALITY, enlarge, write_animation
from outputs.sheet import Row, beside, difference, heat, sheet
from sampling.latents import Latents, save_latents, unique_names
from sampling.projector import Projection, as_trained, load_projector, prepare_photos, recipe_of
from sampling.sampler import Faces, load_faces
from sampling.similarity import psnr, ssim

PROGRAM = "project.py"


FILM_PHOTOS = 8  # at most in the film, side by side


FILM_PX = 128  # of each of them, at least


FILM_MS, FILM_HOLD_MS = 100, 2000  # of each frame, and of the last


MOST = 64.0  # of 255: the difference that is brightest on the sheet


SHEET_ROWS, SHEET_COLUMNS = 8, 3  # photos below each other before they stand side by side


def project_all(args: argparse.Namespace) -> list[str]:
    """Project the photos, write every file, and return a line for each photo and picture.

    Raises UserError or OSError.
    """

    device = choose_device(args.device)
    told = partial(tell, PROGRAM)
    loaded = load_faces(args.checkpoint, device, told)
    faces, file, _ = loaded
    targets = as_trained(prepare_photos(args.photos, recipe_of(faces, file)), faces).to(device)
    projector = load_projector(loaded, args.steps, args.precision, told)
    total = len(targets) * args.steps
    with tqdm(total=total, unit=" steps", leave=False, disable=None) as bar:
        projection = projector.project(targets, args.seed, bar.update)
    out = args.out or run_of(file) / "projected"
    out.mkdir(parents=True, exist_ok=True)
    return write_all(out, args.photos, faces, to_uint8(targets).cpu(), projection)


def write_all(
    out: Path, paths: Sequence[Path], faces: Faces, targets: Tensor, projection: Projection
) -> list[str]:
    """Write a file of styles for each photo, the sheet and the film; return what was written."""

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

    shown = min(len(targets), FILM_PHOTOS)
    pairs = [torch.cat([targets[:shown], reached[:shown]]) for reached in way]
    frames = [enlarge(grid(pair, shown), FILM_PX * shown) for pair in pairs]
    milliseconds = [FILM_MS] * (len(frames) - 1) + [FILM_HOLD_MS]
    write_animation(frames, path, milliseconds, FILM_QUALITY)
    return f"{path}: the way there, {shown} photos"
