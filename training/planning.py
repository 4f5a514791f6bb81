"""A run that ends on time: what `--hours` leaves open, chosen from seconds of real steps.

The choices stand in WIDTHS, BATCHES, FIRST_SIZES and GROWTH_SHARE. A plan is fixed in images and
recorded, so that a run which goes on does exactly what the run never stopped would have done. Only
the end is moved, by a run that was not stopped, and each time recorded before it is reached.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from common.cli import UserError, is_out_of_memory
from common.device import free_bytes, memory_gb
from critic import STD_GROUP
from dataset import ImageBank
from training import distributed
from training.config import TrainConfig
from training.deadline import time_of_day
from training.growth import Growth
from training.probes import Best, SampleSheet
from training.progress import Costs, clock, seconds
from training.state import TrainState
from training.step import train_step

# The widest networks whose run sees so many images at the last resolution. Below that more
# updates give better faces than more channels: at 1/8 faces are there after 30,000 images.
WIDTHS = ((0.125, 0), (0.25, 1_500_000), (0.5, 4_000_000), (1.0, 10_000_000))
# Likewise the largest batch: short runs need updates, long ones less noise in each.
BATCHES = ((8, 0), (16, 200_000), (32, 4_000_000))
# Where growth begins, px: in short runs a resolution costs as much to fade in as to learn anew.
FIRST_SIZES = ((32, 0), (8, 100_000))
GROWTH_SHARE = 0.35  # of the time, until the last resolution is faded in

LEFT_OPEN = ("init_size", "width", "batch", "phase", "iterations")  # by --hours, unless given
LEAST = 100  # iterations that are a run
PHASE = 1_000_000  # images: no resolution ends while it is timed
ENOUGH = 0.5  # seconds that plain steps are timed for, at each resolution
Begin = Callable[[float, int], tuple[TrainConfig, TrainState]]  # from width and batch


@dataclass(frozen=True)
class Plan:
    """What was chosen; `costs` are seconds an image takes, everything counted in."""

    init_size: int
    width: float
    batch: int
    phase: int | None  # None where nothing grows
    iterations: int
    costs: Costs


class Trial:
    """Steps of throw-away networks under a clock: the real steps, on the real photos.

    With several processes each makes its part, and all take the times of the first.
    """

    def __init__(self, args: argparse.Namespace, bank: ImageBank, begin: Begin, width: float):
        self.args, self.bank, self.width = args, bank, width
        self.asked, self.state = begin(width, args.batch or STD_GROUP * distributed.size())
        self.config = replace(self.asked, phase=PHASE)
        self.sizes = self.config.growth.resolutions
        self.sheet = SampleSheet(self.state.G, self.config.seed)
        self.costs: dict[tuple[int, int], float] = {}  # by batch and size
        self.metric = 0.0  # seconds a measurement takes
        if args.metric_every:
            G, dtype = self.state.G_ema, self.config.dtype
            best = Best(args.out, bank, G)
            last = self.config.growth.at(self.config.growth.images)
            self.metric = self._seconds(lambda: best.distance(G, last, dtype))

    def check_memory(self, batch: int) -> None:
        """Raise UserError if steps of `batch` need more than is free, judged by smaller ones."""
        small = STD_GROUP * distributed.size()
        peaks = []
        for n in (small, 2 * small):
            self._step(n, self.sizes[-1], 0)
            peaks.append(memory_gb(self.state.device))
        more = (batch - 2 * small) / small * (peaks[1] - peaks[0])
        free = free_bytes(self.state.device) / 2**30
        if more > free:
            raise UserError(
                f"a batch of {batch} at {self.sizes[-1]} px and width {self.width:g} needs about "
                f"{peaks[1] + more:.1f} GB; {peaks[1] + free:.1f} are there. Lower --batch, "
                "--width or --max_size"
            )

    def cost(self, batch: int, size: int) -> float:
        """Return the seconds an image takes at a resolution, with its share of R1 and grids."""
        if (batch, size) not in self.costs:
            self.costs[batch, size] = self._cost(batch, size)
        return self.costs[batch, size]

    def _cost(self, batch: int, size: int) -> float:
        with_r1 = [self._step(batch, size, 0) for _ in range(2)][-1]  # the first warms up
        plain: list[float] = []
        while len(plain) < 3 or sum(plain) < ENOUGH:
            plain.append(self._step(batch, size, 1))
        every = self.config.r1_every
        step = (with_r1 + (every - 1) * median(plain)) / every
        stage, dtype = self.config.growth.at(self._nimg(size)), self.config.dtype
        grid = self._seconds(lambda: self.sheet.draw(self.state.G_ema, stage, dtype))
        step += grid / self.args.sample_every + self.metric / (self.args.metric_every or 1)
        return step / batch

    def _nimg(self, size: int) -> int:
        return 2 * PHASE * self.sizes.index(size)

    def _step(self, batch: int, size: int, iteration: int) -> float:
        self.state.iteration, self.state.nimg = iteration, self._nimg(size)
        config = replace(self.config, batch=batch)
        return self._seconds(
            lambda: train_step(self.state, config, self.bank)["G_loss"].item()  # all is done then
        )

    def _seconds(self, work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        return float(distributed.from_first(time.perf_counter() - begin))


def resolve_plan(
    args: argparse.Namespace, bank: ImageBank, begin: Begin, before: dict[str, Any]
) -> list[str]:
    """Decide what is LEFT_OPEN in `args`; return lines that tell the plan, if one was made.

    A run that goes on takes the plan that it was started with, from `before`. The time begins
    at `args.start` (time.monotonic). All processes of a run call this. Raises UserError.
    """
    args.costs = before.get("costs")
    if args.hours and before:
        if before.get("hours") != args.hours:
            was = before.get("hours") or "none"
            raise UserError(
                f"--hours {args.hours:g}: the run in {args.out} was started with {was}. Give the "
                "same, or another --out"
            )
        for name in LEFT_OPEN:
            setattr(args, name, getattr(args, name) or before[name])
    elif args.hours:
        plan = make_plan(args, bank, begin)
        args.costs = {str(size): cost for size, cost in plan.costs.items()}
        for name in LEFT_OPEN:
            setattr(args, name, getattr(plan, name))
        return tell_plan(args, plan, bank)
    return tell_plan(args, estimate(args, bank, begin), bank) if args.dry_run else []


def make_plan(args: argparse.Namespace, bank: ImageBank, begin: Begin) -> Plan:
    """Return what fits into `args.hours` since `args.start`, keeping to what was given."""
    total = 3600 * args.hours
    trial, room = widest(args, bank, begin, total)
    batch = args.batch or largest(BATCHES, room, bank.count)
    trial.check_memory(batch)
    first = args.init_size or min(chosen(FIRST_SIZES, room), args.max_size)
    costs = {size: trial.cost(batch, size) for size in trial.sizes if size >= first}
    left = total - distributed.from_first(time.monotonic() - args.start)
    phase, iterations = lengths(args, first, costs, batch, left)
    if iterations < LEAST:
        a_second = lengths(args, first, costs, batch, 3600.0)[1] / 3600
        raise UserError(
            f"--hours {args.hours:g}: time for {max(0, iterations)} iterations; expected at least "
            f"{LEAST}. Give {(total - left + 1.2 * LEAST / a_second) / 3600:.2g} hours or more, or "
            "a lower --max_size"
        )
    return Plan(first, trial.width, batch, phase, iterations, costs)


def lengths(
    args: argparse.Namespace, first: int, costs: Costs, batch: int, left: float
) -> tuple[int | None, int]:
    """Return the images of a phase (None where nothing grows) and the iterations of a run.

    It begins at `first` px and has `left` seconds.
    """
    growth = Growth(first, args.max_size, PHASE)
    a_phase = seconds(growth, costs, 0, growth.images) / PHASE  # seconds, for each image of it
    phase = args.phase or (max(1, int(GROWTH_SHARE * left / a_phase)) if a_phase else None)
    growing = (phase or 0) * a_phase
    if args.phase and growing > left:
        raise UserError(
            f"--hours {args.hours:g}: too short for --phase {phase}, by which growth alone takes "
            f"{growing / 3600:.3g} hours; leave out --phase, or give more hours"
        )
    images = growth.images / PHASE * (phase or 0) + (left - growing) / costs[args.max_size]
    return phase, int(images / batch)


def widest(
    args: argparse.Namespace, bank: ImageBank, begin: Begin, total: float
) -> tuple[Trial, float]:
    """Return the networks to take, and how many images they see in `total` seconds at most."""
    rungs = ((args.width, 0),) if args.width else WIDTHS
    taken: tuple[Trial, float] | None = None
    for width, least in rungs:
        if taken and taken[1] < least:  # wider is slower still
            break
        batch = args.batch or largest(BATCHES, least, bank.count)
        try:
            trial = Trial(args, bank, begin, width)
            trial.check_memory(batch)
            room = total / trial.cost(batch, trial.sizes[-1])
        except (UserError, MemoryError, RuntimeError) as error:
            if not taken or not (isinstance(error, UserError) or is_out_of_memory(error)):
                raise
            break
        if room < least:
            break
        taken = trial, room
    assert taken  # the first rung asks for no images
    return taken


def largest(table: tuple[tuple[int, int], ...], room: float, count: int) -> int:
    """Return the batch of a table for `room` images, of which processes get equal parts."""
    unit = STD_GROUP * distributed.size()
    return max(unit, min(chosen(table, room), count) // unit * unit)


def chosen(table: tuple[tuple[int, int], ...], room: float) -> int:
    """Return the entry of a table, which goes by images, for `room` of them."""
    return [entry for entry, least in table if room >= least][-1]


def estimate(args: argparse.Namespace, bank: ImageBank, begin: Begin) -> Plan:
    """Return the run as asked, with what it costs."""
    trial = Trial(args, bank, begin, args.width)
    config = trial.asked
    trial.check_memory(config.batch)
    costs = {size: trial.cost(config.batch, size) for size in trial.sizes}
    first, last = config.init_size, config.iterations
    return Plan(first, args.width, config.batch, config.phase, last, costs)


def tell_plan(args: argparse.Namespace, plan: Plan, bank: ImageBank) -> list[str]:
    """Return the lines that tell a plan, its end and its memory."""
    growth = Growth(plan.init_size, args.max_size, plan.phase or 1)
    shown = growth.images_at(0, plan.iterations * plan.batch)
    times = {size: n * plan.costs[size] for size, n in shown.items()}
    left = sum(times.values())
    if args.hours and not args.dry_run:
        when = f"to end at {time_of_day(left)}"
    else:
        when = f"takes {clock(left)}; begun now it ends at {time_of_day(left)}"
    rows = [
        f"{size:6} {n:11,} {clock(times[size]):>7} {1 / plan.costs[size]:9.1f}"
        for size, n in shown.items()
    ]
    free = free_bytes(bank.device) / 2**30
    return [
        f"plan: {plan.iterations:,} iterations of {plan.batch}, width {plan.width:g}; {when}",
        f"{'px':>6} {'images':>11} {'time':>7} {'images/s':>9}",
        *rows,
        f"memory: {memory_gb(bank.device):.1f} GB at most, {free:.1f} more are free",
    ]
