"""generate.py's work: from a checkpoint to every picture that is asked for."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tqdm import tqdm

from common.cli import STEPS, UserError, say, tell
from common.device import choose_device, dtype_of_pictures
from data.photos import PhotoError
from outputs.directions import STRENGTHS, STRENGTHS_OF_ONE, draw_direction, draw_directions
from outputs.film import progress_paths, write_progress
from outputs.grids import check_film, choose_mixes, draw_film, draw_mixes, draw_samples, grid_shape
from outputs.job import Job
from outputs.third_face import draw_crossover, draw_third, project_photos
from sampling.directions import COUNT
from sampling.latents import load_latents
from sampling.mixing import Face, is_photo, layer_weights, read_face
from sampling.projector import load_projector, prepare_photos, recipe_of
from sampling.sampler import Loaded, load_faces

PROGRAM = "generate.py"
MOST_FACES = 3  # on the sheet of --directions

Plan = tuple[int, Callable[[Job], list[str]]]  # the number of images, and what draws them


def draw_all(args: argparse.Namespace) -> list[str]:
    """Make every picture asked for and return a line for each.

    Raises UserError or OSError.
    """
    history = progress_paths(args.checkpoint) if args.progress else []
    loaded = load_faces(args.checkpoint, choose_device(args.device), partial(tell, PROGRAM))
    faces = loaded.faces
    faces.dtype = dtype_of_pictures(args.precision, faces.device)
    stored = load_latents(args.w_in, faces.G, faces.stage.resolution) if args.w_in else None
    if stored:
        args.seeds = args.film_seeds = args.direction_seeds = range(len(stored.ws))
    if args.mix:
        total, draw = plan_third_face(args, loaded)
    elif args.directions or args.direction is not None:
        total, draw = plan_directions(args)
    else:
        total, draw = plan_grids(args, loaded)
    say([describe(loaded)])
    hidden = None if total > 4 * faces.batch else True  # None: shown on a terminal only
    with tqdm(total=total, unit=" images", leave=False, disable=hidden) as bar:
        job = Job(faces, args.psi, args.out or loaded.run / "generated", bar, stored)
        lines = draw(job)
    if history:
        path = job.path("progress.webp")
        write_progress(history, path)
        lines.append(f"{path}: {len(history):,} sample grids")
    return lines


def plan_grids(args: argparse.Namespace, loaded: Loaded) -> Plan:
    """Return the plan of the sample grid, the style mixes and the film. Raises UserError."""
    resolution = loaded.faces.stage.resolution
    mixes = choose_mixes(args.mix_layers, args.mix_seeds, loaded.faces)
    shape = grid_shape(len(args.seeds), args.n_row, args.n_col, resolution)
    film_frames = len(args.film_seeds) * args.frames if args.film else 0
    check_film(film_frames, resolution)

    def draw(job: Job) -> list[str]:
        lines = draw_samples(job, args.seeds, shape, args.singles, args.w_out)
        lines += draw_mixes(job, args.mix_seeds, mixes)
        if args.film:
            lines += draw_film(job, args.film_seeds, args.frames, args.film, args.fps)
        return lines

    samples = len(args.seeds) if args.singles else min(len(args.seeds), shape[0] * shape[1])
    left, top = map(len, args.mix_seeds)
    return samples + left + top + len(mixes) * left * top + film_frames, draw


def plan_directions(args: argparse.Namespace) -> Plan:
    """Return the plan of the sheet of --directions or --direction."""
    if args.directions:
        seeds = args.direction_seeds[:MOST_FACES]
        return COUNT * len(STRENGTHS) * len(seeds), partial(draw_directions, numbers=seeds)
    seeds = args.direction_seeds
    draw = partial(draw_direction, numbers=seeds, index=args.direction, strengths=args.strength)
    return STRENGTHS_OF_ONE * len(seeds), draw


def plan_third_face(args: argparse.Namespace, loaded: Loaded) -> Plan:
    """Return the plan of the sheet of --mix. Raises UserError.

    Photos are read and projected only when the sheet is drawn, as that takes long.
    """
    faces = loaded.faces
    weights = layer_weights(args.give, len(args.mix), faces) if args.give is not None else None
    known = {text: read_face(text, faces, args.psi) for text in args.mix if not is_photo(text)}

    def draw(job: Job) -> list[str]:
        paths = list(dict.fromkeys(Path(text) for text in args.mix if is_photo(text)))
        found, lines = find_photos(job, loaded, paths, args.precision) if paths else ({}, [])
        chosen = [known[text] if text in known else found[Path(text)] for text in args.mix]
        if weights is None:
            return lines + draw_crossover(job, chosen)
        return lines + draw_third(job, chosen, weights, args.w_out)

    return 2 * (faces.layers + 1) if weights is None else len(args.mix) + 1, draw


def find_photos(
    job: Job, loaded: Loaded, paths: list[Path], precision: str
) -> tuple[dict[Path, Face], list[str]]:
    """Project the photos of --mix; return their faces, and what was written. Raises UserError."""
    try:
        photos = prepare_photos(paths, recipe_of(loaded.faces, loaded.file))
    except PhotoError as error:
        raise UserError(f"--mix {error}, or an .npz file of styles") from error
    projector = load_projector(loaded, STEPS, precision, partial(tell, PROGRAM))
    found, lines = project_photos(job, paths, photos, projector)
    return dict(zip(paths, found, strict=True)), lines


def describe(loaded: Loaded) -> str:
    """Return the line that says what the pictures are made with."""
    resolution, alpha = loaded.faces.stage
    iteration = loaded.entries.get("iteration")
    after = f" after {iteration:,} iterations" if isinstance(iteration, int) else ""
    fading = f" ({alpha:.0%} faded in)" if alpha < 1 else ""
    return f"{loaded.file}: {resolution} px{fading}{after}, {loaded.faces.device}"
