"""Command line: a checkpoint of train.py -> sample grid, style mixes, single faces and films.

The flags are defined here; the pictures are drawn in outputs/pictures.py.
"""

import argparse
import importlib.util
import os
import re
from functools import partial
from pathlib import Path

from common.cli import MAX_SEED, PSI, Parser, device, integer, number, run_script, say

PROGRAM = "generate.py"
MAX_IMAGES = 1_000_000
N_ROW, N_COL = 8, 8  # of the sample grid
FILM_SEEDS = range(8)
MIX_SEEDS = (range(6), range(6, 14))  # left and top
DIRECTION_SEEDS = range(6)
PARTS = ("coarse", "middle", "fine")  # of the layers
EXAMPLES = """\
  python generate.py runs/faces
  python generate.py runs/faces/snapshots/010000.pt --seeds 0-63,85 --singles --psi 1
  python generate.py runs/faces --mix_seeds 3,5,8 20-29 --mix_layers coarse,0-1 --film webp
  python generate.py runs/faces --mix 3 me.jpg
  python generate.py runs/faces --mix 3 5 8 --give 'A:coarse=0.5 B:middle,8-9'
  python generate.py runs/faces --directions

Layers are numbered from 0, two for each resolution: 0-1 are of 4 px, 2-3 of 8 px, ... 8-9 of 64 px.
coarse is the layers of 4 and 8 px (0-3), middle those of 16 and 32 px (4-7), fine all from 64 px up
(8-9 in a model of 64 px). In a mix, the layers of --mix_layers come from the face at the top of the
column, all others from the face at the left of the row; both faces are shown with the noise of the
mix. --mix, --directions and --direction draw only their own sheet. With --give, the rest of each
layer comes in equal parts from the faces that are not named for it. A photo is first projected as
by project.py, and its styles are kept as an .npz file beside the sheet. A seed always gives the
same picture, whatever the other flags, except --psi and --precision. Existing files of the same
names are replaced."""


def parser() -> Parser:
    """Return the parser, which holds every default."""
    made = Parser("Make pictures with a trained generator.", EXAMPLES)
    made.prog = PROGRAM
    ckpt = "file or run folder that train.py made; the size is read from it"
    made.add_argument("checkpoint", type=Path, metavar="CKPT", help=ckpt)
    add = made.add_argument
    add("--out", type=Path, metavar="DIR", help="folder (default: `generated` in the run folder)")
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    precision = "of convolutions; auto: bf16 on a CPU that has it, else fp32"
    add("--precision", default="auto", choices=["auto", "fp32", "bf16"], help=precision)
    psi = "truncation: 1 for full variety, towards 0 for the mean face"
    add("--psi", type=number(-2, 2), default=PSI, metavar="X", help=psi)
    add = made.add_argument_group("samples").add_argument
    chosen = "such as 0-63,85 (default: from 0, as many as the grid holds; 0-7 for --film)"
    add("--seeds", type=seeds, metavar="SEEDS", help=chosen)
    n_row = "maximum number of rows of sample.png (default: 8, or as many as --seeds need)"
    add("--n_row", type=integer(1, 1000), metavar="N", help=n_row)
    n_col = "images per row"
    add("--n_col", type=integer(1, 1000), default=N_COL, metavar="N", help=n_col)
    add("--singles", action="store_true", help="also write seed0085.png for each seed")
    add = made.add_argument_group("style mixing").add_argument
    mixed = "faces of the left column and of the top row (default: 0-5 6-13)"
    add("--mix_seeds", type=seeds, nargs=2, metavar=("LEFT", "TOP"), help=mixed)
    layers = "layers from the top face; commas separate mixes (default: coarse,middle,fine)"
    add("--mix_layers", type=mix_layers, metavar="LAYERS", help=f"such as coarse,0-3: {layers}")
    mixed = (
        "2 to 8 faces: seeds, photos or .npz files; two are mixed at every border between layers"
    )
    add("--mix", nargs="+", type=face, metavar="A B", help=mixed)
    given = "which of the faces give which layers to a third: 'A:coarse=0.5 B:middle,8-9'"
    add("--give", type=gifts, metavar="WHO", help=given)
    add = made.add_argument_group("directions in w").add_argument
    first = "the first --seeds moved along the ten directions that change the styles most"
    add("--directions", action="store_true", help=first)
    one = "--seeds moved along one of those directions"
    add("--direction", type=integer(0, 9), metavar="0-9", help=one)
    strength = "range of --direction, in standard deviations of w"
    add("--strength", type=span, default="-4..4", metavar="FROM..TO", help=strength)
    add = made.add_argument_group("styles as files").add_argument
    add("--w_in", type=Path, metavar="FILE", help="show the faces in an .npz file, not --seeds")
    written = "write the faces of sample.png, or the one of --give, as an .npz file"
    add("--w_out", type=w_file, metavar="FILE", help=written)
    add = made.add_argument_group("films").add_argument
    film = "also write a smooth closed walk through w from seed to seed: webp, gif or mp4"
    add("--film", choices=["webp", "gif", "mp4"], metavar="FORMAT", help=film)
    frames = "frames of --film from one seed to the next"
    add("--frames", type=integer(1, 10_000), default=50, metavar="N", help=frames)
    add("--fps", type=integer(1, 100), default=25, metavar="N", help="frames of --film per second")
    progress = "also write progress.webp: the sample grids of the run folder, first to last"
    add("--progress", action="store_true", help=progress)
    return made


def seeds(text: str) -> list[int]:
    """Parse seeds such as 0-63,85: at most a million, in the order given."""
    found: list[range] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,19})(?:-(\d{1,19}))?", part, re.ASCII)
        if not match:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of seeds such as 0-63,85")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last <= MAX_SEED:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not an ascending range within 0..{MAX_SEED}"
            )
        found.append(range(first, last + 1))
    count = sum(each.stop - each.start for each in found)
    if count > MAX_IMAGES:
        raise argparse.ArgumentTypeError(f"{count:,} seeds; expected at most {MAX_IMAGES:,}")
    return [seed for each in found for seed in each]


def mix_layers(text: str) -> list[str]:
    """Parse layers to mix: names of parts, numbers and ranges, separated by commas."""
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", part, re.ASCII)
        ascending = match and int(match[1]) <= int(match[2] or match[1])
        if part not in PARTS and not ascending:
            names = ", ".join(PARTS)
            raise argparse.ArgumentTypeError(f"{part!r} is not {names}, nor layers such as 0-3")
    return list(dict.fromkeys(text.split(",")))


def face(text: str) -> str:
    """Parse a face to mix: a seed, or the name of a photo or file of styles."""
    if text.isdecimal():
        return str(integer(0, MAX_SEED)(text))
    if not os.path.exists(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a seed nor a file; expected a number from 0, a photo or an .npz"
        )
    return text


def w_file(text: str) -> Path:
    """Parse the name of a file of styles."""
    if not text.endswith(".npz"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end with .npz")
    return Path(text)


def gifts(text: str) -> list[tuple[str, str, float]]:
    """Parse --give: faces with their layers and weights; a weight that is left out is 1."""
    found = []
    for item in text.split():
        name, _, parts = item.partition(":")
        for part in parts.split(","):
            layers, _, weight = part.partition("=")
            if not re.fullmatch("[A-H]", name):
                raise argparse.ArgumentTypeError(f"{item!r} is not such as A:coarse or B:0-3=0.5")
            (layers,) = mix_layers(layers)
            found.append((name, layers, number(0, 1)(weight or "1")))
    return found


def span(text: str) -> tuple[float, float]:
    """Parse a range of strengths such as -4..4."""
    first, _, last = text.partition("..")
    parse = number(-100, 100)
    return parse(first), parse(last)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the flags, checked as far as possible without the model."""
    made = parser()
    args = made.parse_args(argv)
    args.mix_seeds = args.mix_seeds or MIX_SEEDS
    check_sources(made, args)
    args.film_seeds = args.seeds or FILM_SEEDS
    args.direction_seeds = args.seeds or DIRECTION_SEEDS
    args.seeds = args.seeds or range((args.n_row or N_ROW) * args.n_col)
    if args.film and len(args.film_seeds) < 2:
        made.error("--film: a walk needs more than one seed; expected two --seeds or more")
    if args.film == "mp4" and not importlib.util.find_spec("av"):
        made.error("--film mp4: needs the package av (pip install av); webp and gif need nothing")
    if args.progress and not os.path.isdir(args.checkpoint):
        made.error(f"--progress: {args.checkpoint} is not a folder; expected a run of train.py")
    return args


def check_sources(made: Parser, args: argparse.Namespace) -> None:
    """End with a usage error if the flags name the faces twice, or not at all."""
    sheets = [f"--{name}" for name in ("mix", "directions") if getattr(args, name)]
    sheets += ["--direction"] if args.direction is not None else []
    if len(sheets) > 1:
        made.error(f"{' and '.join(sheets)}: expected only one of them")
    if args.give is not None and not args.mix:
        made.error("--give: needs the faces of --mix; expected --mix A B")
    if args.mix and not 2 <= len(args.mix) <= 8:
        made.error(f"--mix: {len(args.mix)} faces; expected 2 to 8")
    if args.mix and len(args.mix) > 2 and args.give is None:
        made.error("--mix: more than two faces need --give, such as --give 'A:coarse B:middle'")
    if args.w_in and (args.seeds or args.mix):
        made.error("--w_in: replaces other faces; expected neither --seeds nor --mix")
    if args.w_out and sheets and not args.give:
        made.error(
            f"--w_out: {sheets[0]} makes no faces to write; expected --mix with --give, or neither"
        )


def work(args: argparse.Namespace) -> None:
    """Draw all pictures."""
    from outputs.pictures import draw_all  # importing torch takes seconds

    say(draw_all(args))


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    args = parse_args(argv)
    run_script(
        PROGRAM,
        partial(work, args),
        interrupted="interrupted; finished pictures stay",
        out_of_memory="out of memory; try --device cpu, or fewer --seeds",
    )


if __name__ == "__main__":
    main()
