"""Command line: photos and a checkpoint -> styles that reproduce them, a sheet and a film.

The flags are defined here; the work is done in outputs/projection.py.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common.cli import MAX_SEED, STEPS, Parser, device, integer, run_script, say

PROGRAM = "project.py"
EXAMPLES = """\
  python project.py me.jpg runs/faces
  python project.py me.jpg you.png runs/faces --steps 300
  python generate.py runs/faces --mix runs/faces/projected/me.npz runs/faces/projected/you.npz

Photos may have any format that prepare_data.py reads. Their centre square is used: crop them like
the photos that the generator was trained on. NAME.npz is written for each photo; projection.png
shows photo, reconstruction and difference, with PSNR (in dB, higher is better) and SSIM (1 means
equal); projection.webp shows the search. Existing files of the same names are replaced."""


def parser() -> Parser:
    """Return the parser, which holds every default."""
    made = Parser("Find the styles that reproduce a photo.", EXAMPLES)
    made.prog = PROGRAM
    made.usage = "%(prog)s [options] PHOTO [PHOTO ...] CKPT"
    paths = "photos, then a file or run folder that train.py made"
    made.add_argument("paths", nargs="+", type=Path, metavar="PHOTO [PHOTO ...] CKPT", help=paths)
    add = made.add_argument
    add("--out", type=Path, metavar="DIR", help="folder (default: `projected` in the run folder)")
    steps = "steps of the search: more come closer to the photo, too many leave the space of faces"
    add("--steps", type=integer(1, 100_000), default=STEPS, metavar="N", help=steps)
    seed = "first seed of the samples that the search starts from"
    add("--seed", type=integer(0, MAX_SEED - 2**16), default=0, metavar="N", help=seed)
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    precision = "of the convolutions in the search; auto: the fastest"
    choices = ["auto", "fp32", "bf16"]
    add("--precision", default="auto", choices=choices, help=precision)
    return made


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the checked flags; exit with code 2 and one line if they are wrong."""
    made = parser()
    args = made.parse_intermixed_args(argv)
    *args.photos, args.checkpoint = args.paths
    if not args.photos:
        made.error("PHOTO, CKPT: only one path given; expected photos and a checkpoint")
    return args


def work(args: argparse.Namespace) -> None:
    """Project the photos."""
    from outputs.projection import project_all  # importing torch takes seconds

    say(project_all(args))


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    args = parse_args(argv)
    run_script(PROGRAM, partial(work, args), interrupted="interrupted; nothing was made")


if __name__ == "__main__":
    main()
