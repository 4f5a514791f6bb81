"""Command line: an LMDB of faces -> a trained generator, in a run folder that can be resumed."""

import argparse
import time
from functools import partial
from pathlib import Path

from common.cli import FIRST_SIZE, MAX_SEED, Parser, device, integer, number, resolution, run_script
from training.losses import LOSSES

PROGRAM = "train.py"
EXAMPLES = """\
  python train.py faces.lmdb --init_size 64 --max_size 64
  python train.py faces.lmdb --hours 2
  python train.py faces.lmdb --init_size 8 --max_size 64 --width 0.25 --iterations 30000
  torchrun --nproc_per_node=2 train.py faces.lmdb
The same command again resumes a run, wherever it was stopped."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the flags; exit with code 2 and one line if they are wrong."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.hours:  # what the plan may choose is None, unless it was given
        planned = dict.fromkeys(("width", "batch", "iterations"))
        args = parser.parse_args(argv, argparse.Namespace(**planned))
        if args.iterations:
            parser.error("--hours plans the number of --iterations: give one of the two")
    if args.init_size and args.init_size > args.max_size:
        parser.error(f"--init_size {args.init_size}: above --max_size {args.max_size}")
    most = args.max_size.bit_length() - 3  # resolutions above 4 px
    if args.freeze_d > most:
        parser.error(f"--freeze_d {args.freeze_d}: at --max_size {args.max_size} at most {most}")
    if args.freeze_d and not args.init_from:
        parser.error(f"--freeze_d {args.freeze_d}: needs a D that has learned. Give --init_from")
    args.out = args.out or Path("runs") / args.lmdb.resolve().stem
    return args


def make_parser() -> Parser:
    """Return the parser with every flag and its default."""
    parser = Parser("Train a progressive StyleGAN on an LMDB of faces.", EXAMPLES)
    parser.add_argument("lmdb", type=Path, metavar="LMDB", help="made by prepare_data.py")
    add = parser.add_argument_group("run").add_argument
    add("--out", type=Path, metavar="DIR", help="run folder (default: runs/<name of the LMDB>)")
    add("--init_from", type=Path, metavar="CKPT", help="start from the weights of another run")
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    precision = ["auto", "fp32", "bf16", "fp16"]
    add("--precision", default="auto", choices=precision, help="of convolutions; auto: the fastest")
    compiling = "fuse what follows the convolutions, which takes a minute once; auto: on a GPU"
    add("--compile", default="auto", choices=["auto", "on", "off"], help=compiling)
    add("--seed", type=integer(0, MAX_SEED), default=0, metavar="N", help="of all random numbers")
    add = parser.add_argument_group("schedule").add_argument
    first = f"first resolution, which growth doubles (default: {FIRST_SIZE}; --hours may choose 32)"
    add("--init_size", type=resolution, metavar="PX", help=first)
    add("--max_size", type=resolution, default=64, metavar="PX", help="last resolution")
    add("--iterations", type=integer(1), default=100_000, metavar="N", help="length of the run")
    hours = "end after this time: plans iterations and, unless given, width, batch and growth"
    add("--hours", type=number(0, 10_000, above=True), metavar="X", help=hours)
    dry = "print the plan, its time and memory, and make nothing"
    add("--dry_run", action="store_true", help=dry)
    phase = "images to fade a resolution in, and to hold it (default: growth takes half the run)"
    add("--phase", type=integer(1), metavar="IMAGES", help=phase)
    add("--batch", type=integer(1, 4096), default=16, metavar="N", help="images per iteration")
    add_learning_flags(parser)
    add = parser.add_argument_group("output").add_argument
    every = partial(add, type=integer(1), metavar="N")
    every("--save_every", default=10_000, help="iterations between snapshots")
    every("--sample_every", default=100, help="iterations between sample grids")
    metric = "iterations between sliced Wasserstein distances; best.pt keeps the lowest; 0: none"
    add("--metric_every", type=integer(0), default=0, metavar="N", help=metric)
    return parser


def add_learning_flags(parser: Parser) -> None:
    """Add the flags of the networks and of how they learn."""
    add = parser.add_argument_group("networks and optimization").add_argument
    width = "channels relative to 512 at 4-32 px, 256 at 64 px, ..."
    add("--width", type=number(0, 4, above=True), default=1.0, metavar="X", help=width)
    dim = "length of z and w (default: 512 times the width)"
    add("--w_dim", type=integer(1, 4096), metavar="N", help=dim)
    depth = "layers from z to w (default: 2)"
    add("--mapping_layers", type=integer(1, 64), metavar="N", help=depth)
    kinds = "; ".join(f"{name}: {loss.summary}" for name, loss in LOSSES.items())
    add("--loss", default="r1", choices=list(LOSSES), help=kinds)
    rate = partial(add, type=number(0, 1, above=True), metavar="X")
    rate("--lr", help="Adam's learning rate (default: 0.001 / sqrt(width))")
    rate("--d_lr", help="learning rate of D (default: --lr)")
    gamma = "weight of R1 (and R2); 0: none"
    add("--r1_gamma", type=number(0), default=1.0, metavar="X", help=gamma)
    lazy = "iterations between R1 (and R2)"
    add("--r1_every", type=integer(1, 1024), default=16, metavar="N", help=lazy)
    add("--mixing", type=number(0, 1), default=0.9, metavar="P", help="probability of style mixing")
    ema = "half-life of the averaged generator"
    add("--ema", type=integer(0), default=10_000, metavar="IMAGES", help=ema)
    more = "also average over a quarter and four times as long, for evaluate.py to choose from"
    add("--more_ema", action="store_true", help=more)
    add("--no_mirror", action="store_true", help="do not mirror half of the photos")
    seen = "augment what D sees, so that it does not learn few photos by heart; ada: as needed"
    add("--augment", default="none", choices=["none", "fixed", "ada"], help=seen)
    chance = "probability of each augmentation with --augment fixed"
    add("--augment_p", type=number(0, 0.8), default=0.3, metavar="P", help=chance)
    frozen = "largest resolutions of D that keep the weights of --init_from"
    add("--freeze_d", type=integer(0, 8), default=0, metavar="N", help=frozen)


def work(args: argparse.Namespace) -> None:
    """Begin or resume the run, and train."""
    from training.loop import run  # here, as torch takes seconds to import

    run(args)


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    start = time.monotonic()
    args = parse_args(argv)
    args.start = start
    run_script(
        PROGRAM,
        partial(work, args),
        interrupted="interrupted before the first step; nothing is lost",
    )


if __name__ == "__main__":
    main()
