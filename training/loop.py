"""The loop of a run: taken up or begun, trained step by step, saved and logged. train.py's work."""

from __future__ import annotations

import argparse
import time
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from checkpoints import run_folder
from checkpoints.checkpoint import NotFiniteError
from checkpoints.records import Record
from checkpoints.run_folder import read_config, write_config
from common.cli import EXIT_CODES, Signals, UserError, is_out_of_memory, say, tell
from common.device import can_compile, choose_device, tune
from dataset import ImageBank
from model import ModelConfig
from training import distributed, planning, recovery
from training.config import TrainConfig, model_config, train_config
from training.deadline import End, late
from training.log import RunLog
from training.probes import Best, SampleSheet, Variety
from training.progress import Meter
from training.recovery import go_back, refuse_not_finite, save
from training.state import TrainState
from training.step import train_step
from training.watchdog import findings_of, look

PROGRAM = "train.py"


LOG_EVERY = 50  # iterations between records


SAVE_SECONDS = 300.0  # latest.pt is at most this old


MAY_CHANGE = {"iterations", "save_every", "sample_every", "metric_every"}


MAY_CHANGE |= {"lmdb", "device", "threads", "compile", "hours", "costs"}


# Above all signals, what the first process tells the others: the run has ended, or goes back.
ENDED, AGAIN = 999, 1000


def run_or_fail(args: argparse.Namespace) -> NoReturn:
    """Run and end; where memory runs out, say of what size and batch."""
    try:
        run(args)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory at up to {args.max_size} px with a batch of {args.batch} and "
            f"--width {args.width}; try a smaller --batch or --width in another --out"
        ) from error


def run(args: argparse.Namespace) -> NoReturn:
    """Set up what the flags ask for, train, and end."""

    device = choose_device(distributed.device_of_rank(args.device))
    tune(device)
    bank = ImageBank(args.lmdb, args.max_size, device)
    if args.batch:
        refuse_batch(args, bank)
    with distributed.joined(device):
        before = distributed.from_first(run_folder.read_config(args.out))
        begin = partial(begin_trial, args, device, before)
        lines = planning.settle(args, bank, begin, before)
        if lines and distributed.rank() == 0:
            say(lines)
        if args.dry_run:
            distributed.leave(0)
        refuse_batch(args, bank)
        if distributed.rank() > 0:
            code = follow(args, bank)
        else:
            with recovery.claim(args.out):
                code = lead(args, bank)
        distributed.leave(code)


def refuse_batch(args: argparse.Namespace, bank: ImageBank) -> None:
    """Raise UserError for a batch that cannot be split or filled."""

    distributed.refuse_batch(args.batch)
    if bank.count < args.batch:
        raise UserError(
            f"{args.lmdb}: {bank.count} images; expected at least a batch of {args.batch}. "
            "Add photos, or lower --batch"
        )


def begin_trial(
    args: argparse.Namespace,
    device: torch.device,
    before: dict[str, Any],
    width: float,
    batch: int,
) -> tuple[TrainConfig, TrainState]:
    """Return the settings and the new networks of a run, with what is not decided yet."""
    decided = {"width": width, "batch": batch, "iterations": args.iterations or 1}
    args = argparse.Namespace(**{**vars(args), **decided})
    config = train_config(args, device, before)
    return config, new_state(args, model_config(args, before), config, device)


def lead(args: argparse.Namespace, bank: ImageBank) -> int:
    """Take up the run in its folder, or begin it; train and write; return the exit code."""

    before = run_folder.read_config(args.out)
    model, config = model_config(args, before), train_config(args, bank.device, before)
    asked = {**vars(args), **vars(config)}
    asked |= {"w_dim": model.w_dim, "mapping_layers": model.mapping_layers}
    asked |= {"data": bank.digest, "threads": threads()}
    for name in ("out", "dry_run", "start"):  # a run folder may be moved
        del asked[name]
    asked = {k: str(v) if isinstance(v, Path) else v for k, v in asked.items()}
    changed = recovery.differences(args.out, asked, MAY_CHANGE)
    state = new_state(args, model, config, bank.device)
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
    if args.costs and not fresh:
        say([late(config, args, state.nimg)])
    return keep_training(state, config, bank, args)


def follow(args: argparse.Namespace, bank: ImageBank) -> int:
    """Compute this process's part of every step of the first one's; return the exit code."""

    signals = Signals()
    while True:
        model, config, digest, entries = distributed.from_first(None)
        if digest != bank.digest:
            raise distributed.UserError(
                f"{args.lmdb}: other photos than those of the first process; expected copies of "
                "one database on all machines"
            )
        state = new_state(args, model, config, bank.device)
        state.restore(entries)
        while True:
            stop = distributed.highest(signals.received, bank.device)
            if stop:
                break
            train_step(state, config, bank)
        if stop != AGAIN:
            return EXIT_CODES.get(stop, 0)


def new_state(
    args: argparse.Namespace, model: ModelConfig, config: TrainConfig, device: torch.device
) -> TrainState:
    """Return the state of a run that begins, compiled if that is wanted and possible."""

    state = TrainState(model, config, device)
    if args.compile == "on" or (args.compile == "auto" and device.type == "cuda"):
        if can_compile(device):
            state.compile()
        else:
            tell(PROGRAM, "torch.compile finds no compiler here; going on without it")
    return state


def threads() -> int:
    """Return how many CPU threads torch computes with."""

    return torch.get_num_threads()


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

    signals, end = Signals(), End(config, args, state.iteration)
    while True:
        distributed.from_first((state.config, config, bank.digest, state.entries()))
        try:
            train(state, end, bank, args, signals)
            break
        except NotFiniteError as error:
            distributed.highest(AGAIN, state.device)
            go_back(state, config, args.out, error, partial(tell, PROGRAM))
    if signals.received:
        tell(
            PROGRAM, f"stopped at iteration {state.iteration:,}, saved; the same command continues"
        )
    else:
        say([f"done: {args.out}; see samples/ and try: python generate.py {args.out}"])
    return signals.exit_code


def train(
    state: TrainState, end: End, bank: ImageBank, args: argparse.Namespace, signals: Signals
) -> None:
    """Train to the end or to a signal. Raises NotFiniteError.

    What is due is written first, then the step is made.
    """

    config = end.config
    sheet = SampleSheet(state.G, config.seed, state.device)
    variety = Variety(bank, state.G, config.seed)
    best = Best(args.out, bank, state.G_ema) if args.metric_every else None
    saved = time.monotonic()
    meter = Meter(config, end.iterations, state.iteration, end.costs)
    with (
        closing(meter),
        closing(RunLog(args.out, state.iteration, partial(meter.tell, PROGRAM))) as log,
    ):
        while True:
            stage = config.growth.at(state.nimg)
            done = state.iteration >= end.iterations
            if state.iteration % args.sample_every == 0 or done:
                refuse_not_finite(state, int(meter.not_finite))
                log.show(state.iteration, sheet.draw(state.G_ema, stage, config.dtype))
            snapshot = state.iteration and (state.iteration % args.save_every == 0 or done)
            if snapshot or time.monotonic() - saved > SAVE_SECONDS:
                refuse_not_finite(state, int(meter.not_finite))
                save(state, config, args.out, bool(snapshot))
                saved = time.monotonic()
            stop = distributed.highest(ENDED if done else signals.received, state.device)
            signals.received = 0 if done else stop
            if stop:
                break
            meter.add(train_step(state, config, bank))
            keep_time(state, end, args.out, meter, log)
            if state.iteration % LOG_EVERY == 0:
                refuse_not_finite(state, int(meter.not_finite))
                record = replace(
                    meter.read(stage, state.nimg, state.device),
                    lr=state.lr,
                    d_lr=state.lr * config.d_lr / config.lr,
                    variety=variety.measure(state.G_ema, stage, config.dtype),
                )
                watch(record, config.loss, meter, log)
            if best and state.iteration % args.metric_every == 0:
                distance = best.measure(state, config.growth.at(state.nimg), config.dtype)
                log.write(Record(state.iteration, state.nimg, swd=distance))
        if not done:
            with suppress(NotFiniteError):  # then what was saved before is the last good state
                refuse_not_finite(state, int(meter.not_finite))
                save(state, config, args.out)


def watch(record: Record, loss: str, meter: Meter, log: RunLog) -> None:
    """Log a record with what it shows, and tell that."""
    found = look([*log.records, record], loss)
    for finding in found:
        meter.tell(PROGRAM, finding.sentence)
    log.write(replace(record, findings=tuple(finding.name for finding in found)))
    meter.findings = findings_of(log.records)


def keep_time(state: TrainState, end: End, out: Path, meter: Meter, log: RunLog) -> None:
    """Move the end of a planned run if it would not be on time."""

    iterations = end.on_time(state.nimg, time.monotonic())
    if iterations == end.iterations:
        return
    with suppress(OSError):  # an end that is not recorded is not moved
        write_config(out, {**read_config(out), "iterations": iterations})
        end.iterations = iterations
        meter.end_at(iterations)
        log.write(Record(state.iteration, state.nimg, end=iterations))
