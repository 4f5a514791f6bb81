"""The loop of a run: begun or resumed, trained step by step, logged and saved. train.py's work."""

import argparse
import time
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from checkpoints.checkpoint import NotFiniteError
from checkpoints.records import Record
from checkpoints.run_folder import read_config, write_config
from common.cli import EXIT_CODES, Signals, UserError, is_out_of_memory, say, tell
from common.device import can_compile, choose_device, tune
from dataset import ImageBank
from model import ModelConfig, Stage
from training import distributed, recovery
from training.config import TrainConfig, model_config, train_config
from training.deadline import End, resumed_line
from training.log import RunLog
from training.planning import resolve_plan
from training.probes import Best, SampleSheet, Variety
from training.progress import Meter
from training.state import TrainState
from training.step import train_step
from training.watchdog import diagnose, findings_of

LOG_EVERY = 50  # iterations between records
SAVE_SECONDS = 300.0  # latest.pt is at most this old
# What a resumed run may be given anew.
MAY_CHANGE = {"iterations", "save_every", "sample_every", "metric_every"}
MAY_CHANGE |= {"lmdb", "device", "threads", "compile", "hours", "costs"}
# The first process sends the others the number of a signal, or one of these: the run is done, or
# restarts from its last good state.
DONE, RESTART = 999, 1000

inform = partial(tell, "train.py")


def run(args: argparse.Namespace) -> NoReturn:
    """Train as the flags say, and exit. Raises UserError or OSError."""
    try:
        train_or_plan(args)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory at up to {args.max_size} px with a batch of {args.batch} and "
            f"--width {args.width}; try a smaller --batch or --width in another --out"
        ) from error


def train_or_plan(args: argparse.Namespace) -> NoReturn:
    """Open the data, decide what the flags leave open, train unless --dry_run, and exit."""
    device = choose_device(distributed.device_of_rank(args.device))
    tune(device)
    bank = ImageBank(args.lmdb, args.max_size, device)
    if args.batch:
        check_batch(args, bank)
    with distributed.joined(device):
        before = distributed.from_first(read_config(args.out))
        lines = resolve_plan(args, bank, partial(begin_trial, args, device, before), before)
        if lines and distributed.rank() == 0:
            say(lines)
        if args.dry_run:
            distributed.leave(0)
        check_batch(args, bank)
        if distributed.rank() > 0:
            code = follow(args, bank)
        else:
            with recovery.claim(args.out):
                code = lead(args, bank)
        distributed.leave(code)


def check_batch(args: argparse.Namespace, bank: ImageBank) -> None:
    """Raise UserError for a batch that cannot be split over the processes, or filled."""
    distributed.check_batch(args.batch)
    if bank.count < args.batch:
        raise UserError(
            f"{args.lmdb}: {bank.count} images; expected at least a batch of {args.batch}. "
            "Add photos, or lower --batch"
        )


def begin_trial(
    args: argparse.Namespace, device: torch.device, before: dict[str, Any], width: float, batch: int
) -> tuple[TrainConfig, TrainState]:
    """Return settings and new networks of a given width and batch, for planning to time."""
    decided = {"width": width, "batch": batch, "iterations": args.iterations or 1}
    args = argparse.Namespace(**{**vars(args), **decided})
    config = train_config(args, device, before)
    return config, new_state(args, model_config(args, before), config, device)


def new_state(
    args: argparse.Namespace, model: ModelConfig, config: TrainConfig, device: torch.device
) -> TrainState:
    """Return a new state, compiled if that is asked for and possible."""
    state = TrainState(model, config, device)
    if args.compile == "on" or (args.compile == "auto" and device.type == "cuda"):
        if can_compile(device):
            state.compile()
        else:
            inform("torch.compile finds no compiler here; going on without it")
    return state


def lead(args: argparse.Namespace, bank: ImageBank) -> int:
    """Resume the run in its folder or begin it, train, and return the exit code."""
    before = read_config(args.out)
    model, config = model_config(args, before), train_config(args, bank.device, before)
    asked = settings_to_keep(args, model, config, bank)
    changed = recovery.differences(args.out, asked, MAY_CHANGE)
    state = new_state(args, model, config, bank.device)
    is_new = not recovery.resume(state, args.out, inform)
    if is_new and args.init_from:
        recovery.start_from(state, args.init_from, inform)
    write_config(args.out, {**asked, "recipe": bank.recipe.settings()})
    if is_new:
        recovery.save(state, config, args.out)  # the first good state to go back to
    if changed:
        inform(f"continuing with {', '.join(changed)}")
    say([describe(state, config, bank)])
    if args.costs and not is_new:
        say([resumed_line(config, args, state.nimg)])
    return train_until_it_ends(state, config, bank, args)


def follow(args: argparse.Namespace, bank: ImageBank) -> int:
    """Compute this process's rows of every batch of the leader's; return the exit code."""
    signals = Signals()
    while True:
        model, config, digest, entries = distributed.from_first(None)
        if digest != bank.digest:
            raise UserError(
                f"{args.lmdb}: other photos than those of the first process; expected copies of "
                "one database on all machines"
            )
        state = new_state(args, model, config, bank.device)
        state.restore(entries)
        while not (stop := distributed.maximum(signals.received, bank.device)):
            train_step(state, config, bank)
        if stop != RESTART:
            return EXIT_CODES.get(stop, 0)


def settings_to_keep(
    args: argparse.Namespace, model: ModelConfig, config: TrainConfig, bank: ImageBank
) -> dict[str, Any]:
    """Return what config.json holds: the flags, with everything left open decided."""
    kept = {**vars(args), **vars(config)}
    kept |= {"w_dim": model.w_dim, "mapping_layers": model.mapping_layers}
    kept |= {"data": bank.digest, "threads": torch.get_num_threads()}
    kept["lmdb"] = args.lmdb.absolute()  # export.py may be run from another folder
    for name in ("out", "dry_run", "start"):  # a run folder may be moved
        del kept[name]
    return {name: str(v) if isinstance(v, Path) else v for name, v in kept.items()}


def describe(state: TrainState, config: TrainConfig, bank: ImageBank) -> str:
    """Return the line that a run begins with."""
    G, D = (sum(p.numel() for p in net.parameters()) / 1e6 for net in (state.G, state.D))
    sizes = "-".join(map(str, config.growth.resolutions))
    growth = f" ({config.phase:,} images per phase)" if "-" in sizes else ""
    threads = f" ({torch.get_num_threads()} threads)" if state.device.type == "cpu" else ""
    done = f", {state.iteration:,} done" if state.iteration else ""
    return (
        f"{state.device}{threads}, {config.precision}; G {G:.1f} M and D {D:.1f} M parameters; "
        f"{bank.count:,} images; {sizes} px{growth}, "
        f"{config.iterations:,} iterations of {config.batch}{done}"
    )


def train_until_it_ends(
    state: TrainState, config: TrainConfig, bank: ImageBank, args: argparse.Namespace
) -> int:
    """Train to the end or a signal, going back where numbers overflow; return the exit code."""
    signals, end = Signals(), End(config, args, state.iteration)
    while True:
        distributed.from_first((state.model, config, bank.digest, state.entries()))
        try:
            with closing(Loop(state, end, bank, args, signals)) as loop:
                loop.run()
            break
        except NotFiniteError as error:
            distributed.maximum(RESTART, state.device)
            recovery.go_back(state, config, args.out, error, inform)
    if signals.received:
        inform(f"stopped at iteration {state.iteration:,}, saved; the same command continues")
    else:
        say([f"done: {args.out}; see samples/ and try: python generate.py {args.out}"])
    return signals.exit_code


class Loop:
    """Steps from the state as it is until the end, a signal, or numbers that are not finite."""

    def __init__(
        self,
        state: TrainState,
        end: End,
        bank: ImageBank,
        args: argparse.Namespace,
        signals: Signals,
    ) -> None:
        self.state, self.end, self.bank, self.args, self.signals = state, end, bank, args, signals
        self.config = end.config
        self.sheet = SampleSheet(state.G, self.config.seed)
        self.variety = Variety(bank, state.G, self.config.seed)
        self.best = Best(args.out, bank, state.G_ema) if args.metric_every else None
        self.saved = time.monotonic()
        self.log = RunLog(args.out, state.iteration, inform)
        self.meter = Meter(self.config, end.iterations, state.iteration, end.costs)
        self.log.tell = self.tell

    def tell(self, line: str) -> None:
        """Print a line on stderr in the place of the bar."""
        self.meter.bar.clear()
        inform(line)

    def close(self) -> None:
        """Close the log and leave the bar as it stands."""
        self.log.close()
        self.meter.close()

    def run(self) -> None:
        """Train. What is due is written first, then a step is made. Raises NotFiniteError."""
        state = self.state
        while True:
            is_done = state.iteration >= self.end.iterations
            self.write_what_is_due(is_done)
            stop = distributed.maximum(DONE if is_done else self.signals.received, state.device)
            self.signals.received = 0 if is_done else stop
            if stop:
                break
            stage = self.config.growth.at(state.nimg)
            self.meter.add(train_step(state, self.config, self.bank))
            self.adjust_end()
            if state.iteration % LOG_EVERY == 0:
                self.write_record(stage)
            if self.best and state.iteration % self.args.metric_every == 0:
                now = self.config.growth.at(state.nimg)
                distance = self.best.measure(state, now, self.config.dtype)
                self.log.write(Record(state.iteration, state.nimg, swd=distance))
        if not is_done:
            with suppress(NotFiniteError):  # then what was saved before is the last good state
                self.save(is_snapshot=False)

    def write_what_is_due(self, is_done: bool) -> None:
        """Write the sample grid and the checkpoint of this iteration, where one is due."""
        iteration, args = self.state.iteration, self.args
        if iteration % args.sample_every == 0 or is_done:
            self.check_finite()
            stage = self.config.growth.at(self.state.nimg)
            self.log.show(iteration, self.sheet.draw(self.state.G_ema, stage, self.config.dtype))
        is_snapshot = bool(iteration) and (iteration % args.save_every == 0 or is_done)
        if is_snapshot or time.monotonic() - self.saved > SAVE_SECONDS:
            self.save(is_snapshot)

    def save(self, is_snapshot: bool) -> None:
        """Write the full state, and a snapshot beside it. Raises NotFiniteError."""
        self.check_finite()
        recovery.save(self.state, self.config, self.args.out, is_snapshot)
        self.saved = time.monotonic()

    def check_finite(self) -> None:
        """Raise NotFiniteError if losses since the last record, or G_ema, are not finite."""
        recovery.check_finite(self.state, int(self.meter.not_finite))

    def write_record(self, stage: Stage) -> None:
        """Log the steps since the last record, the last one at `stage`, with a diagnosis."""
        self.check_finite()
        state, config = self.state, self.config
        record = replace(
            self.meter.read(stage, state.nimg, state.device),
            lr=state.lr,
            d_lr=state.lr * config.d_lr / config.lr,
            variety=self.variety.measure(state.G_ema, stage, config.dtype),
        )
        found = diagnose([*self.log.records, record], config.loss)
        for finding in found:
            self.tell(finding.sentence)
        self.log.write(replace(record, findings=tuple(finding.name for finding in found)))
        self.meter.findings = findings_of(self.log.records)

    def adjust_end(self) -> None:
        """Move the end of a planned run that would not be on time."""
        iterations = self.end.on_time(self.state.nimg, time.monotonic())
        if iterations == self.end.iterations:
            return
        out = self.args.out
        with suppress(OSError):  # an end that is not recorded is not moved
            write_config(out, {**read_config(out), "iterations": iterations})
            self.end.iterations = iterations
            self.meter.end_at(iterations)
            self.log.write(Record(self.state.iteration, self.state.nimg, end=iterations))
