"""The sample grid, single faces, style mixes and the film of generate.py."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from common.cli import UserError
from common.images import grid, write_image
from outputs.film import FILM_PX, enlarge, write_film
from outputs.job import Job
from sampling.latents import save_latents
from sampling.sampler import (
    PARTS,
    SHARED_NOISE,
    Faces,
    check_variety,
    find_layers,
    replace_layers,
    walk,
)

MAX_SHEET = 2**26  # pixels of a picture: 8192 x 8192, which viewers still open
MAX_FILM = 2**28  # pixels of all frames, which are held in memory: 0.8 GB

MixSeeds = tuple[Sequence[int], Sequence[int]]  # of the left column and of the top row


def grid_shape(count: int, n_row: int | None, n_col: int, resolution: int) -> tuple[int, int]:
    """Return the rows and columns of a grid for `count` images, with at most `n_row` rows.

    Without `n_row`, there are as many rows as fit into a picture. Raises UserError if the grid is
    too large for one.
    """
    n_col = min(n_col, count)
    rows_needed = -(-count // n_col)
    fitting = MAX_SHEET // (n_col * resolution**2)
    rows = min(rows_needed, n_row or max(1, fitting))
    if rows > fitting:
        raise UserError(
            f"--n_row, --n_col: {rows} x {n_col} images of {resolution} px are too many for one "
            f"picture; expected at most {MAX_SHEET // resolution**2:,} images",
            2,
        )
    return rows, n_col


def draw_samples(
    job: Job, numbers: Sequence[int], shape: tuple[int, int], singles: bool, w_out: Path | None
) -> list[str]:
    """Write sample.png with `shape` rows and columns of the faces; return what was written.

    With `singles` each face is also written to a file of its own; the styles of the faces on the
    grid go to `w_out`.
    """
    faces, (n_row, n_col) = job.faces, shape
    shown = numbers[: n_row * n_col]
    drawn = numbers if singles else shown
    cells: list[Tensor] = []
    for start in range(0, len(drawn), faces.batch):
        batch = drawn[start : start + faces.batch]
        latents = job.latents(batch)
        images = faces.render(latents.ws, latents.noise, job.bar.update)
        check_variety(images, batch, job.psi)
        if start < len(shown):
            cells.append(images)
        if singles:
            for number, image in zip(batch, images, strict=True):
                picture = Image.fromarray(image.permute(1, 2, 0).numpy())
                write_image(picture, job.path(single_name(job, number)))
    path = job.path("sample.png")
    write_image(grid(torch.cat(cells)[: len(shown)], n_col), path)
    lines = [f"{path}: {len(shown):,} of {len(numbers):,} {job.kind}s"]
    if w_out:
        save_latents(w_out, faces.G, job.latents(shown))
        lines.append(f"{w_out}: styles and noise of {len(shown):,} {job.kind}s")
    if singles:
        first, last = single_name(job, drawn[0]), single_name(job, drawn[-1])
        lines.append(f"{job.out / first} to {last}: {len(drawn):,} pictures")
    return lines


def single_name(job: Job, number: int) -> str:
    """Return the file name of one face."""
    return f"{job.kind}{number:04d}.png"


def choose_mixes(names: Sequence[str] | None, seeds: MixSeeds, faces: Faces) -> dict[str, range]:
    """Return the layers of each mix by its name; without `names`, the parts in use at this stage.

    Raises UserError for layers not in use, or if a sheet is too large.
    """
    left, top = seeds
    cells = (len(left) + 1) * (len(top) + 1)
    most = MAX_SHEET // faces.stage.resolution**2
    if cells > most:
        raise UserError(f"--mix_seeds: {cells:,} images on a sheet; expected at most {most:,}", 2)
    if names:
        return {name: find_layers(faces, name, "--mix_layers") for name in names}
    return {name: faces.part(name) for name in PARTS if faces.part(name)}


def draw_mixes(job: Job, seeds: MixSeeds, mixes: dict[str, range]) -> list[str]:
    """Write a sheet for each mix, as figure 3 of Karras et al. 2019; return what was written."""
    faces = job.faces
    left, top = (faces.ws(side, job.psi) for side in seeds)
    noise = faces.noise([SHARED_NOISE])
    sources = faces.render(torch.cat([left, top]), noise, job.bar.update)
    left_faces, top_faces = sources.split([len(left), len(top)])
    lines = []
    for name, layers in mixes.items():
        rows = [replace_layers(faces.G, ws.expand_as(top), top, layers) for ws in left]
        cells = faces.render(torch.cat(rows), noise, job.bar.update)
        path = job.path(f"mix_{name}.png")
        write_image(mix_sheet(left_faces, top_faces, cells), path)
        lines.append(f"{path}: layers {layers.start}-{layers.stop - 1} from the top row")
    return lines


def mix_sheet(left: Tensor, top: Tensor, cells: Tensor) -> Image.Image:
    """Return the sheet of uint8 images [L, 3, R, R], [T, 3, R, R] and [L * T, 3, R, R].

    A margin separates the sources from the mixes; the corner is blank.
    """
    body, head, side = grid(cells, len(top)), grid(top, len(top)), grid(left, 1)
    margin = max(2, left.shape[-1] // 8)
    x, y = side.width + margin, head.height + margin
    sheet = Image.new("RGB", (x + body.width, y + body.height), "white")
    for picture, place in ((head, (x, 0)), (side, (0, y)), (body, (x, y))):
        sheet.paste(picture, place)
    return sheet


def check_film(frames: int, resolution: int) -> None:
    """Raise UserError if a film has too many frames for the memory."""
    side = max(FILM_PX, resolution)
    if frames > MAX_FILM // side**2:
        raise UserError(
            f"--film: {frames:,} frames of {side} px; expected at most {MAX_FILM // side**2:,}. "
            "Use fewer --seeds or --frames",
            2,
        )


def draw_film(job: Job, numbers: Sequence[int], frames: int, suffix: str, fps: int) -> list[str]:
    """Write film.webp, .gif or .mp4: a closed walk through w, `frames` from one face to the next.

    All frames have the same noise. Returns what was written.
    """
    ws = walk(job.latents(numbers).ws, frames)
    noise = job.faces.noise([SHARED_NOISE])
    pictures = [
        enlarge(Image.fromarray(image.numpy()), FILM_PX)
        for batch in ws.split(job.faces.batch)
        for image in job.faces.render(batch, noise, job.bar.update).permute(0, 2, 3, 1).contiguous()
    ]
    path = job.path(f"film.{suffix}")
    write_film(pictures, path, fps)
    return [f"{path}: {len(pictures):,} frames, {len(pictures) / fps:.0f} s"]
