"""Train a progressive StyleGAN on an LMDB of faces: flags, the loop and what it saves when."""

from __future__ import annotations

import argparse
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from command_line import (
    MAX_SEED,
    Parser,
    device,
    fail,
    integer,
    interruptible,
    number,
    resolution,
    say,
    tell,
)

if TYPE_CHECKING:  # torch takes seconds to import: not before the flags are known to be good
    import torch

    from dataset import ImageBank
    from run_folder import Signals
    from training import TrainConfig, TrainState

PROGRAM = "train.py"
LOG_EVERY = 50  # iterations between records
SAVE_SECONDS = 300.0  # latest.pt is at most this old
MAY_CHANGE = {"iterations", "save_every", "sample_every", "metric_every"}
MAY_CHANGE |= {"lmdb", "device", "threads", "compile"}
AGAIN = 1000  # above all signals: what the first process tells the others before it goes back
EXAMPLES = """\
  python train.py faces.lmdb --init_size 64 --max_size 64
  python train.py faces.lmdb --init_size 8 --max_size 64 --width 0.25 --iterations 30000
  torchrun --nproc_per_node=2 train.py faces.lmdb
The same command again continues a run that was stopped, wherever it stopped."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the flags; here stands every default."""
    parser = Parser("Train a progressive StyleGAN on an LMDB of faces.", EXAMPLES)
    parser.add_argument("lmdb", type=Path, metavar="LMDB", help="made by prepare_data.py")
    run = parser.add_argument_group("run")
    add = run.add_argument
    add("--out", type=Path, metavar="DIR", help="run folder (default: runs/<name of the LMDB>)")
    add("--init_from", type=Path, metavar="CKPT", help="start from the weights of another run")
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    precision = ["auto", "fp32", "bf16", "fp16"]
    add("--precision", default="auto", choices=precision, help="of convolutions; auto: fastest")
    compiling = "fuse what follows the convolutions, at the price of a minute; auto: on a GPU"
    add("--compile", default="auto", choices=["auto", "on", "off"], help=compiling)
    add("--seed", type=integer(0, MAX_SEED), default=0, metavar="N", help="of all that is random")
    schedule = parser.add_argument_group("schedule")
    add = schedule.add_argument
    add("--init_size", type=resolution, default=8, metavar="PX", help="first resolution")
    add("--max_size", type=resolution, default=64, metavar="PX", help="last resolution")
    add("--iterations", type=integer(1), default=100_000, metavar="N", help="length of the run")
    phase = "images to fade a resolution in, and to hold it (default: growth takes half the run)"
    add("--phase", type=integer(1), metavar="IMAGES", help=phase)
    add("--batch", type=integer(1, 4096), default=16, metavar="N", help="images an iteration")
    add_learning_flags(parser)
    output = parser.add_argument_group("output")
    add = output.add_argument
    add(
        "--save_every", type=integer(1), default=10_000, metavar="N", help="iterations per snapshot"
    )
    add(
        "--sample_every",
        type=integer(1),
        default=100,
        metavar="N",
        help="iterations per sample grid",
    )
    metric = "iterations between sliced Wasserstein distances; best.pt keeps the lowest; 0: none"
    add("--metric_every", type=integer(0), default=0, metavar="N", help=metric)
    args = parser.parse_args(argv)
    if args.init_size > args.max_size:
        parser.error(f"--init_size {args.init_size}: above --max_size {args.max_size}")
    refuse_freezing(parser, args)
    args.out = args.out or Path("runs") / args.lmdb.resolve().stem
    return args


def add_learning_flags(parser: Parser) -> None:
    """Add the flags of the networks and of how they learn."""
    model = parser.add_argument_group("networks and optimization")
    add = model.add_argument
    width = "channels relative to 512 at 4-32 px, 256 at 64 px, ..."
    add("--width", type=number(0, 4, above=True), default=1.0, metavar="X", help=width)
    loss = "logistic with R1, Wasserstein, or relativistic pairs with R1 and R2"
    add("--loss", default="r1", choices=["r1", "wgan-gp", "rpgan"], help=loss)
    rate = number(0, 1, above=True)
    add("--lr", type=rate, default=0.001, metavar="X", help="Adam's learning rate")
    add("--d_lr", type=rate, metavar="X", help="that of D, if it differs from --lr")
    gamma = "weight of R1 (and R2); 0: none"
    add("--r1_gamma", type=number(0), default=1.0, metavar="X", help=gamma)
    lazy = "iterations between R1 (and R2)"
    add("--r1_every", type=integer(1, 1024), default=16, metavar="N", help=lazy)
    add("--mixing", type=number(0, 1), default=0.9, metavar="P", help="probability of style mixing")
    ema = "half-life of the averaged generator"
    add("--ema", type=integer(0), default=10_000, metavar="IMAGES", help=ema)
    add("--no_mirror", action="store_true", help="do not mirror half of the photos")
    seen = "change what D sees, against learning few photos by heart: never, evenly, or as needed"
    add("--augment", default="none", choices=["none", "fixed", "ada"], help=seen)
    chance = "probability of each change with --augment fixed"
    add("--augment_p", type=number(0, 0.8), default=0.3, metavar="P", help=chance)
    frozen = "largest resolutions of D to leave as --init_from has them"
    add("--freeze_d", type=integer(0, 8), default=0, metavar="N", help=frozen)


def refuse_freezing(parser: Parser, args: argparse.Namespace) -> None:
    """End with a line if --freeze_d cannot be had."""
    most = args.max_size.bit_length() - 3  # resolutions above 4 px
    if args.freeze_d > most:
        parser.error(f"--freeze_d {args.freeze_d}: at --max_size {args.max_size} at most {most}")
    if args.freeze_d and not args.init_from:
        parser.error(f"--freeze_d {args.freeze_d}: needs a D that has learned. Give --init_from")


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    args = parse_args(argv)
    with interruptible(PROGRAM, "interrupted before the first step; nothing is lost"):
        run_or_fail(args)


def run_or_fail(args: argparse.Namespace) -> NoReturn:
    """Run and end, with one line if something is wrong."""
    from checkpoint import CheckpointError
    from database import DataError
    from device import DeviceError, is_out_of_memory
    from metrics import MetricError
    from parallel import ParallelError
    from run_folder import RunError

    try:
        run(args)
    except (DataError, CheckpointError, DeviceError, MetricError) as error:
        fail(PROGRAM, error)
    except (ParallelError, RunError, OSError) as error:
        fail(PROGRAM, error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fail(
            PROGRAM,
            MemoryError(
                f"out of memory at up to {args.max_size} px with a batch of {args.batch} and "
                f"--width {args.width}; try a smaller --batch or --width in another --out"
            ),
        )


def run(args: argparse.Namespace) -> NoReturn:
    """Set up what the flags ask for, train, and end."""
    import parallel
    import run_folder
    from dataset import ImageBank
    from device import choose_device, tune

    device = choose_device(parallel.device_of_rank(args.device))
    tune(device)
    parallel.refuse_batch(args.batch)
    bank = ImageBank(args.lmdb, args.max_size, device)
    if bank.count < args.batch:
        raise run_folder.RunError(
            f"{args.lmdb}: {bank.count} images; expected at least a batch of {args.batch}. "
            "Add photos, or lower --batch"
        )
    with parallel.joined(device):
        if parallel.rank() > 0:
            code = follow(args, bank)
        else:
            with run_folder.claim(args.out):
                code = lead(args, bank)
        parallel.leave(code)


def lead(args: argparse.Namespace, bank: ImageBank) -> int:
    """Take up the run in its folder, or begin it; train and write; return the exit code."""
    import recovery
    import run_folder

    config = train_config(args, bank.device, run_folder.read_config(args.out))
    asked = {**vars(args), **vars(config), "data": bank.digest, "threads": threads()}
    del asked["out"]  # a run folder may be moved
    asked = {k: str(v) if isinstance(v, Path) else v for k, v in asked.items()}
    changed = run_folder.differences(args.out, asked, MAY_CHANGE)
    state = new_state(args, config, bank.device)
    inform = partial(tell, PROGRAM)
    fresh = not recovery.resume(state, args.out, inform)
    if fresh and args.init_from:
        recovery.start_from(state, args.init_from, inform)
    run_folder.write_config(args.out, asked)
    if fresh:
        recovery.save(state, config, args.out)  # the first good state to go back to
    if changed:
        tell(PROGRAM, f"going on with {', '.join(changed)}")
    say([describe(state, config, bank)])
    return keep_training(state, config, bank, args)


def follow(args: argparse.Namespace, bank: ImageBank) -> int:
    """Compute this process's part of every step of the first one's; return the exit code."""
    import parallel
    from command_line import EXIT_CODES
    from run_folder import Signals
    from training import train_step

    signals = Signals()
    while True:
        config, digest, entries = parallel.from_first(None)
        if digest != bank.digest:
            raise parallel.ParallelError(
                f"{args.lmdb}: other photos than those of the first process; expected copies of "
                "one database on all machines"
            )
        state = new_state(args, config, bank.device)
        state.restore(entries)
        while True:
            stop = parallel.highest(signals.received, bank.device)
            if stop or state.iteration >= config.iterations:
                break
            train_step(state, config, bank)
        if stop != AGAIN:
            return EXIT_CODES.get(stop, 0)


def new_state(args: argparse.Namespace, config: TrainConfig, device: torch.device) -> TrainState:
    """Return the state of a run that begins, compiled if that is wanted and possible."""
    from device import can_compile
    from model import ModelConfig
    from training import TrainState

    state = TrainState(ModelConfig(args.max_size, args.width), config, device)
    if args.compile == "on" or (args.compile == "auto" and device.type == "cuda"):
        if can_compile(device):
            state.compile()
        else:
            tell(PROGRAM, "torch.compile finds no compiler here; going on without it")
    return state


def threads() -> int:
    """Return how many CPU threads torch computes with."""
    import torch

    return torch.get_num_threads()


def train_config(
    args: argparse.Namespace, device: torch.device, before: dict[str, Any]
) -> TrainConfig:
    """Return the settings with everything left open decided.

    A run that goes on keeps the phase of `before`: a longer one must not move its growth.
    """
    from device import choose_precision
    from training import TrainConfig

    doublings = (args.max_size // args.init_size).bit_length() - 1
    half_run = args.iterations * args.batch // 2
    phase = args.phase or before.get("phase") or max(1, half_run // max(1, 2 * doublings))
    return TrainConfig(
        init_size=args.init_size,
        max_size=args.max_size,
        iterations=args.iterations,
        batch=args.batch,
        phase=phase,
        lr=args.lr,
        d_lr=args.d_lr or args.lr,
        loss=args.loss,
        r1_gamma=args.r1_gamma,
        r1_every=args.r1_every,
        mixing=args.mixing,
        ema=args.ema,
        augment=args.augment,
        augment_p=args.augment_p,
        freeze_d=args.freeze_d,
        mirror=not args.no_mirror,
        precision=choose_precision(args.precision, device),
        seed=args.seed,
    )


def describe(state: TrainState, config: TrainConfig, bank: ImageBank) -> str:
    """Return the line that a run begins with."""
    million = [sum(p.numel() for p in net.parameters()) / 1e6 for net in (state.G, state.D)]
    sizes = "-".join(map(str, config.growth.resolutions))
    growth = f" ({config.phase:,} images a phase)" if "-" in sizes else ""
    device = f"{state.device} ({threads()} threads)" if state.device.type == "cpu" else state.device
    done = f", {state.iteration:,} done" if state.iteration else ""
    return (
        f"{device}, {config.precision}; G {million[0]:.1f} M and D {million[1]:.1f} M parameters; "
        f"{bank.count:,} images; {sizes} px{growth}, "
        f"{config.iterations:,} iterations of {config.batch}{done}"
    )


def keep_training(
    state: TrainState, config: TrainConfig, bank: ImageBank, args: argparse.Namespace
) -> int:
    """Train, going back as often as it helps when numbers overflow; return the exit code."""
    import parallel
    from checkpoint import NotFiniteError
    from recovery import go_back
    from run_folder import Signals

    signals = Signals()
    while True:
        parallel.from_first((config, bank.digest, state.entries()))
        try:
            train(state, config, bank, args, signals)
            break
        except NotFiniteError as error:
            parallel.highest(AGAIN, state.device)
            go_back(state, config, args.out, error, partial(tell, PROGRAM))
    if signals.received:
        tell(
            PROGRAM, f"stopped at iteration {state.iteration:,}, saved; the same command continues"
        )
    else:
        say([f"done: {args.out}; see samples/ and try: python generate.py {args.out}"])
    return signals.exit_code


def train(
    state: TrainState,
    config: TrainConfig,
    bank: ImageBank,
    args: argparse.Namespace,
    signals: Signals,
) -> None:
    """Train to the end or to a signal. Raises NotFiniteError.

    What is due is written first, then the step is made.
    """
    import parallel
    from best import Best
    from checkpoint import NotFiniteError
    from meter import Meter
    from recovery import refuse_not_finite, save
    from run_folder import RunLog, SampleSheet
    from training import train_step

    sheet = SampleSheet(state.G, config.seed, state.device)
    best = Best(args.out, bank, state.G_ema) if args.metric_every else None
    saved = time.monotonic()
    with (
        closing(Meter(config.growth, config.iterations, config.batch, state.iteration)) as meter,
        closing(RunLog(args.out, state.iteration, partial(meter.tell, PROGRAM))) as log,
    ):
        while True:
            stage = config.growth.at(state.nimg)
            done = state.iteration >= config.iterations
            if state.iteration % args.sample_every == 0 or done:
                refuse_not_finite(state, int(meter.not_finite))
                log.show(state.iteration, sheet.draw(state.G_ema, stage, config.dtype))
            snapshot = state.iteration and (state.iteration % args.save_every == 0 or done)
            if snapshot or time.monotonic() - saved > SAVE_SECONDS:
                refuse_not_finite(state, int(meter.not_finite))
                save(state, config, args.out, bool(snapshot))
                saved = time.monotonic()
            signals.received = parallel.highest(signals.received, state.device)
            if done or signals.received:
                break
            meter.add(train_step(state, config, bank))
            if state.iteration % LOG_EVERY == 0:
                refuse_not_finite(state, int(meter.not_finite))
                rates = {"lr": state.lr, "d_lr": state.lr * config.d_lr / config.lr}
                log.write(state.iteration, meter.read(stage, state.nimg, state.device) | rates)
            if best and state.iteration % args.metric_every == 0:
                distance = best.measure(state, config.growth.at(state.nimg), config.dtype)
                log.write(state.iteration, {"nimg": state.nimg, "swd": distance})
        if signals.received and not done:
            with suppress(NotFiniteError):  # then what was saved before is the last good state
                refuse_not_finite(state, int(meter.not_finite))
                save(state, config, args.out)


if __name__ == "__main__":
    main()
