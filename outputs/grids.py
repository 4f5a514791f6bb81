"""What generate.py writes: the sample grid, single faces, style mixes and the film.

Here sheets are laid out and written; what a picture is made of is sampling.py's, flags are
generate.py's.
"""

from __future__ import annotations

import argparse

import torch
from PIL import Image
from torch import Tensor

from common.cli import UserError
from common.images import grid, write_image
from outputs.film import FILM_PX, enlarge, write_film
from outputs.job import Job
from sampling.latents import Latents, save_latents
from sampling.sampler import (
    PARTS,
    SHARED_NOISE,
    Faces,
    find_layers,
    refuse_alike,
    replace_layers,
    walk,
)

MAX_SHEET = 2**26  # pixels of one picture: 8192 x 8192, what viewers still open
MAX_FILM = 2**28  # pixels of all frames, which are held in memory: 0.8 GB


def draw_samples(job: Job) -> list[str]:
    """Write sample.png and, if asked for, a file for each seed; return what was written."""
    faces, args = job.faces, job.args
    n_row, n_col = sample_grid(args, faces.stage.resolution)
    shown: list[Tensor] = []
    wanted = args.seeds if args.singles else args.seeds[: n_row * n_col]
    for start in range(0, len(wanted), faces.batch):
        batch = wanted[start : start + faces.batch]
        images = faces.render(*job.some(batch))
        refuse_alike(images, batch, args.psi)
        if start < n_row * n_col:
            shown.append(images)
        if args.singles:
            for seed, image in zip(batch, images, strict=True):
                picture = Image.fromarray(image.permute(1, 2, 0).numpy())
                write_image(picture, job.path(job.single(seed)))
        job.bar.update(len(batch))
    sheet = torch.cat(shown)[: n_row * n_col]
    path = job.path("sample.png")
    write_image(grid(sheet, n_col), path)
    kind = "faces" if job.latents else "seeds"
    lines = [f"{path}: {len(sheet):,} of {len(args.seeds):,} {kind}"]
    if args.w_out:
        save_latents(args.w_out, faces.G, Latents(*job.some(args.seeds[: len(sheet)])))
        lines.append(f"{args.w_out}: styles and noise of {len(sheet):,} {kind}")
    if args.singles:
        first, last = job.single(wanted[0]), job.single(wanted[-1])
        lines.append(f"{job.out / first} to {last}: {len(wanted):,} pictures")
    return lines


def sample_grid(args: argparse.Namespace, resolution: int) -> tuple[int, int]:
    """Return the rows and columns of the sample grid; UserError if it would be too large."""
    n_col = min(args.n_col, len(args.seeds))
    n_row = -(-len(args.seeds) // n_col)
    fitting = MAX_SHEET // (n_col * resolution**2)
    n_row = min(n_row, args.n_row or max(1, fitting))
    if n_row > fitting:
        raise UserError(
            f"--n_row, --n_col: {n_row} x {n_col} images of {resolution} px are too many for one "
            f"picture; expected at most {MAX_SHEET // resolution**2:,} images",
            2,
        )
    return n_row, n_col


def choose_mixes(args: argparse.Namespace, faces: Faces) -> dict[str, range]:
    """Return the layers of each mix by its name; UserError where the model has none such.

    If none are named, parts that this stage does not have are left out.
    """
    left, top = args.mix_seeds
    cells = (len(left) + 1) * (len(top) + 1)
    most = MAX_SHEET // faces.stage.resolution**2
    if cells > most:
        raise UserError(f"--mix_seeds: {cells:,} images on a sheet; expected at most {most:,}", 2)
    if args.mix_layers:
        return {name: find_layers(faces, name, "--mix_layers") for name in args.mix_layers}
    return {name: faces.part(name) for name in PARTS if faces.part(name)}


def draw_mixes(job: Job, mixes: dict[str, range]) -> list[str]:
    """Write a sheet for each mix, as figure 3 of Karras et al. 2019; return what was written."""
    faces = job.faces
    left, top = (faces.ws(chosen, job.args.psi) for chosen in job.args.mix_seeds)
    noise = faces.noise([SHARED_NOISE])
    sources = torch.cat(list(job.render(torch.cat([left, top]), noise)))
    left_faces, top_faces = sources.split([len(left), len(top)])
    lines = []
    for name, layers in mixes.items():
        rows = [replace_layers(faces.G, ws.expand_as(top), top, layers) for ws in left]
        cells = torch.cat(list(job.render(torch.cat(rows), noise)))
        path = job.path(f"mix_{name}.png")
        write_image(mix_sheet(left_faces, top_faces, cells), path)
        lines.append(f"{path}: layers {layers.start}-{layers.stop - 1} from the top row")
    return lines


def mix_sheet(left: Tensor, top: Tensor, cells: Tensor) -> Image.Image:
    """Return the sheet of uint8 images [L, 3, R, R], [T, 3, R, R] and [L * T, 3, R, R].

    The sources stand apart from the mixes; the corner between them is blank.
    """
    body, head, side = grid(cells, len(top)), grid(top, len(top)), grid(left, 1)
    margin = max(2, left.shape[-1] // 8)
    x, y = side.width + margin, head.height + margin
    sheet = Image.new("RGB", (x + body.width, y + body.height), "white")
    for picture, place in ((head, (x, 0)), (side, (0, y)), (body, (x, y))):
        sheet.paste(picture, place)
    return sheet


def film_length(args: argparse.Namespace, resolution: int) -> int:
    """Return the frames of the film, 0 if there is none; UserError if they are too many."""
    frames = len(args.film_seeds) * args.frames if args.film else 0
    side = max(FILM_PX, resolution)
    if frames > MAX_FILM // side**2:
        raise UserError(
            f"--film: {frames:,} frames of {side} px; expected at most {MAX_FILM // side**2:,}. "
            "Take fewer --seeds or --frames",
            2,
        )
    return frames


def draw_film(job: Job) -> list[str]:
    """Write the walk through w, with one noise for all frames; return what was written."""
    faces, args = job.faces, job.args
    ws = walk(job.some(args.film_seeds)[0], args.frames)
    batches = job.render(ws, faces.noise([SHARED_NOISE]))
    frames = [
        enlarge(Image.fromarray(image.numpy()), FILM_PX)
        for images in batches
        for image in images.permute(0, 2, 3, 1).contiguous()
    ]
    path = job.path(f"film.{args.film}")
    write_film(frames, path, args.fps)
    return [f"{path}: {len(frames):,} frames, {len(frames) / args.fps:.0f} s"]


def planned(args: argparse.Namespace, faces: Faces, mixes: int) -> int:
    """Return how many images are to be rendered; UserError if a sheet or film is too large."""
    n_row, n_col = sample_grid(args, faces.stage.resolution)
    samples = len(args.seeds) if args.singles else min(len(args.seeds), n_row * n_col)
    left, top = map(len, args.mix_seeds)
    sources = left + top
    return samples + sources + mixes * left * top + film_length(args, faces.stage.resolution)
