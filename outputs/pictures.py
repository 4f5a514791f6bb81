"""A checkpoint becomes every picture that generate.py was asked for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from checkpoints.run_folder import run_of
from common.cli import (
    STEPS,
    UserError,
    say,
    tell,
)
from common.device import choose_device, dtype_of_pictures
from data.photos import PhotoError
from outputs import directions, third_face
from outputs.film import progress_paths, write_progress
from outputs.grids import choose_mixes, draw_film, draw_mixes, draw_samples, planned
from outputs.job import Job
from sampling import mixing
from sampling.directions import COUNT
from sampling.latents import load_latents
from sampling.projector import Projector, load_projector, recipe_of
from sampling.sampler import Faces, load_faces

PROGRAM = "generate.py"
MOST_FACES = 3  # on the sheet of --directions


def draw_all(args: argparse.Namespace) -> list[str]:
    """Make every picture asked for and return a line for each.

    Raises UserError or OSError.
    """

    history = progress_paths(args.checkpoint) if args.progress else []
    loaded = load_faces(args.checkpoint, choose_device(args.device), partial(tell, PROGRAM))
    faces, file, entries = loaded
    faces.dtype = dtype_of_pictures(args.precision, faces.device)
    latents = load_latents(args.w_in, faces.G, faces.stage.resolution) if args.w_in else None
    if latents:
        args.seeds = args.film_seeds = args.direction_seeds = range(len(latents.ws))
    if args.mix:
        total, draw = plan_mix(args, loaded)
    else:
        plan = plan_directions if args.directions or args.direction is not None else plan_grids
        total, draw = plan(args, faces)
    say([describe(file, faces, entries)])
    # The bar shows on a terminal only, and only when there is something to wait for.
    hidden = None if total > 4 * faces.batch else True
    with tqdm(total=total, unit=" images", leave=False, disable=hidden) as bar:
        job = Job(faces, args, args.out or run_of(file) / "generated", bar, latents)
        lines = draw(job)
    if history:
        path = job.path("progress.webp")
        write_progress(history, path)
        lines.append(f"{path}: {len(history):,} sample grids")
    return lines


Plan = tuple[int, Callable[["Job"], list[str]]]  # images to render, and what renders them


def plan_grids(args: argparse.Namespace, faces: Faces) -> Plan:
    """Return the plan of the sample grid, the grids of mixes and the film. Raises UserError."""

    mixes = choose_mixes(args, faces)

    def draw(job: Job) -> list[str]:
        lines = draw_samples(job) + draw_mixes(job, mixes)
        return lines + (draw_film(job) if args.film else [])

    return planned(args, faces, len(mixes)), draw


def plan_directions(args: argparse.Namespace, faces: Faces) -> Plan:
    """Return the plan of the one sheet of --directions or --direction."""

    if args.directions:
        numbers = args.direction_seeds[:MOST_FACES]
        count = COUNT * len(directions.SHOWN) * len(numbers)
        return count, partial(directions.draw_directions, numbers=numbers)
    numbers = args.direction_seeds
    count = directions.STRENGTHS * len(numbers)
    return count, partial(directions.draw_direction, numbers=numbers)


def plan_mix(args: argparse.Namespace, loaded: tuple[Faces, Path, dict[str, Any]]) -> Plan:
    """Return the plan of the one sheet of --mix. Raises UserError.

    What takes long, to find photos, is left to the drawing.
    """

    faces, file, _ = loaded
    weights = None if args.give is None else mixing.shares(args.give, len(args.mix), faces)
    photos = list(dict.fromkeys(Path(text) for text in args.mix if mixing.is_photo(text)))
    known = {
        text: mixing.read_face(text, faces, args.psi)
        for text in args.mix
        if not mixing.is_photo(text)
    }

    def load() -> Projector:
        return load_projector(loaded, STEPS, args.precision, partial(tell, PROGRAM))

    def draw(job: Job) -> list[str]:
        try:
            found, lines = ({}, [])
            if photos:
                recipe = recipe_of(faces, file)
                found, lines = third_face.find_photos(job, photos, recipe, load)
        except PhotoError as error:
            raise UserError(f"--mix {error}, or an .npz file of styles") from error
        chosen = [known[text] if text in known else found[Path(text)] for text in args.mix]
        if weights is None:
            return lines + third_face.draw_crossover(job, chosen)
        return lines + third_face.draw_third(job, chosen, weights)

    return 2 * (faces.layers + 1) if weights is None else len(args.mix) + 1, draw


def describe(file: Path, faces: Faces, entries: dict[str, Any]) -> str:
    """Return the line that says what the pictures are made with."""
    resolution, alpha = faces.stage
    iteration = entries.get("iteration")
    after = f" after {iteration:,} iterations" if isinstance(iteration, int) else ""
    fading = f" ({alpha:.0%} faded in)" if alpha < 1 else ""
    return f"{file}: {resolution} px{fading}{after}, {faces.device}"
