"""project.py's work: from photos and a checkpoint to files of styles, a sheet and a film."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from common.cli import tell
from common.device import choose_device
from common.images import grid, to_uint8, write_image
from outputs.film import FILM_QUALITY, enlarge, write_animation
from outputs.sheet import Row, beside, difference, heat, sheet
from sampling.latents import save_latents, unique_names
from sampling.projector import Projection, as_trained, load_projector, prepare_photos, recipe_of
from sampling.sampler import Faces, load_faces
from sampling.similarity import psnr, ssim

PROGRAM = "project.py"
FILM_PHOTOS = 8  # at most, side by side
FILM_PX = 128  # of each of them, at least
FILM_MS, FILM_HOLD_MS = 100, 2000  # of each frame, and of the last
BRIGHTEST = 64.0  # of 255: the difference at the bright end of heat maps
PANEL_ROWS, PANELS = 8, 3  # photos in a panel of the sheet before there is another, up to PANELS


def project_all(args: argparse.Namespace) -> list[str]:
    """Project the photos, write every file, and return a line for each.

    Raises UserError or OSError.
    """
    device, warn = choose_device(args.device), partial(tell, PROGRAM)
    loaded = load_faces(args.checkpoint, device, warn)
    faces = loaded.faces
    photos = prepare_photos(args.photos, recipe_of(faces, loaded.file))
    targets = as_trained(photos, faces).to(device)
    projector = load_projector(loaded, args.steps, args.precision, warn)
    total = len(targets) * args.steps
    with tqdm(total=total, unit=" steps", leave=False, disable=None) as bar:
        projection = projector.project(targets, args.seed, bar.update)
    out = args.out or loaded.run / "projected"
    out.mkdir(parents=True, exist_ok=True)
    return write_all(out, args.photos, faces, to_uint8(targets).cpu(), projection)


def write_all(
    out: Path, paths: Sequence[Path], faces: Faces, targets: Tensor, projection: Projection
) -> list[str]:
    """Write a file of styles for each photo, the sheet and the film; return what was written."""
    reached = projection.frames[-1]
    ratios, similarities = psnr(targets, reached).tolist(), ssim(targets, reached).tolist()
    lines, labels = [], []
    for i, name in enumerate(unique_names(paths)):
        path = out / f"{name}.npz"
        save_latents(path, faces.G, projection.latents[i : i + 1])
        labels.append(f"{name[:20]}\n{ratios[i]:.1f} dB\nSSIM {similarities[i]:.2f}")
        lines.append(f"{path}: PSNR {ratios[i]:.2f} dB, SSIM {similarities[i]:.3f}")
    mean = f"PSNR {sum(ratios) / len(ratios):.2f} dB, SSIM {sum(similarities) / len(ratios):.3f}"
    path = out / "projection.png"
    write_image(projection_sheet(targets, reached, labels, mean), path)
    lines.append(f"{path}: {len(paths):,} photos, mean {mean}")
    return [*lines, write_search(out / "projection.webp", targets, projection.frames)]


def projection_sheet(
    targets: Tensor, reached: Tensor, labels: Sequence[str], mean: str
) -> Image.Image:
    """Return a sheet of photo, reconstruction and difference; many photos stand in panels.

    The scale of differences is fixed, so that sheets can be compared.
    """
    change = heat(difference(targets, reached), BRIGHTEST)
    triples = zip(labels, zip(targets, reached, change, strict=True), strict=True)
    rows = [Row(label, pictures) for label, pictures in triples]
    count = min(PANELS, -(-len(rows) // PANEL_ROWS))
    share = -(-len(rows) // count)
    heads = ("photo", "reconstruction", "difference")
    panels = []
    for start in range(0, len(rows), share):
        first = start == 0
        title = f"{len(rows)} photos, mean {mean}" if first and len(rows) > 1 else " "
        panel = rows[start : start + share]
        panels.append(sheet(panel, heads, title, BRIGHTEST if first else None))
    return beside(panels)


def write_search(path: Path, targets: Tensor, frames: Sequence[Tensor]) -> str:
    """Write the film of the search, photos above and pictures below; return what was written."""
    shown = min(len(targets), FILM_PHOTOS)
    pairs = [torch.cat([targets[:shown], pictures[:shown]]) for pictures in frames]
    sheets = [enlarge(grid(pair, shown), FILM_PX * shown) for pair in pairs]
    milliseconds = [FILM_MS] * (len(sheets) - 1) + [FILM_HOLD_MS]
    write_animation(sheets, path, milliseconds, FILM_QUALITY)
    return f"{path}: the search, {shown} photos"
