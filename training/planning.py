"""`--hours`: chooses what the flags leave open by timing real training steps.

The choices follow WIDTHS, BATCHES, FIRST_SIZES and GROWTH_SHARE. A plan counts images, not seconds,
and is stored in config.json, so a resumed run does exactly what an uninterrupted one would have
done. Only the last iteration can still move, see deadline.py.
"""

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

# Width, and the images at the last resolution from which on it pays. With fewer images, more
# updates give better faces than more channels: at 1/8, faces appear after 30,000 images.
WIDTHS = ((0.125, 0), (0.25, 1_500_000), (0.5, 4_000_000), (1.0, 10_000_000))
# Batch, likewise: short runs need many updates, long ones less noise in each.
BATCHES = ((8, 0), (16, 200_000), (32, 4_000_000))
# First resolution in px, likewise: in a short run, fading one in costs as much as it saves.
FIRST_SIZES = ((32, 0), (8, 100_000))
GROWTH_SHARE = 0.35  # of the time until the last resolution is faded in

PLANNED = ("init_size", "width", "batch", "phase", "iterations")  # by --hours, unless given
MIN_ITERATIONS = 100  # of a run
PHASE = 1_000_000  # images: longer than any resolution is timed for
TIMED_SECONDS = 0.5  # of plain steps, at least, at each resolution

BeginTrial = Callable[[float, int], tuple[TrainConfig, TrainState]]  # from width and batch


@dataclass(frozen=True)
class Plan:
    """What was chosen. `costs` are the seconds an image takes at each resolution, all included."""

    init_size: int
    width: float
    batch: int
    phase: int | None  # None where nothing grows
    iterations: int
    costs: Costs


class Trial:
    """Times training steps of throw-away networks on the real photos.

    With several processes, each computes its rows and all use the first one's times.
    """

    def __init__(self, args: argparse.Namespace, bank: ImageBank, begin: BeginTrial, width: float):
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
        """Raise UserError if a step of `batch` images needs more memory than is free.

        Extrapolated from smaller batches.
        """
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
        """Return the seconds per image at a resolution, with its share of R1 and sample grids."""
        if (batch, size) not in self.costs:
            self.costs[batch, size] = self._cost(batch, size)
        return self.costs[batch, size]

    def _cost(self, batch: int, size: int) -> float:
        with_r1 = [self._step(batch, size, 0) for _ in range(2)][-1]  # the first warms up
        plain: list[float] = []
        while len(plain) < 3 or sum(plain) < TIMED_SECONDS:
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
    args: argparse.Namespace, bank: ImageBank, begin: BeginTrial, before: dict[str, Any]
) -> list[str]:
    """Set what PLANNED names in `args`; return the lines that show the plan, if one was made.

    A resumed run keeps the plan in `before`, its config.json. Time counts from `args.start`
    (time.monotonic). All processes of a run call this. Raises UserError.
    """
    args.costs = before.get("costs")
    if args.hours and before:
        if before.get("hours") != args.hours:
            was = before.get("hours") or "none"
            raise UserError(
                f"--hours {args.hours:g}: the run in {args.out} was started with {was}. Give the "
                "same, or another --out"
            )
        for name in PLANNED:
            setattr(args, name, getattr(args, name) or before[name])
    elif args.hours:
        plan = make_plan(args, bank, begin)
        args.costs = {str(size): cost for size, cost in plan.costs.items()}
        for name in PLANNED:
            setattr(args, name, getattr(plan, name))
        return plan_lines(args, plan, bank)
    return plan_lines(args, estimate(args, bank, begin), bank) if args.dry_run else []


def make_plan(args: argparse.Namespace, bank: ImageBank, begin: BeginTrial) -> Plan:
    """Return the plan that fits into `args.hours`, keeping to the flags that are given."""
    total = 3600 * args.hours
    trial, affordable = widest_trial(args, bank, begin, total)
    batch = args.batch or batch_for(BATCHES, affordable, bank.count)
    trial.check_memory(batch)
    first = args.init_size or min(last_reached(FIRST_SIZES, affordable), args.max_size)
    costs = {size: trial.cost(batch, size) for size in trial.sizes if size >= first}
    left = total - distributed.from_first(time.monotonic() - args.start)
    phase, iterations = phase_and_iterations(args, first, costs, batch, left)
    if iterations < MIN_ITERATIONS:
        per_second = phase_and_iterations(args, first, costs, batch, 3600.0)[1] / 3600
        enough = (total - left + 1.2 * MIN_ITERATIONS / per_second) / 3600
        raise UserError(
            f"--hours {args.hours:g}: time for {max(0, iterations)} iterations; expected at least "
            f"{MIN_ITERATIONS}. Give {enough:.2g} hours or more, or a lower --max_size"
        )
    return Plan(first, trial.width, batch, phase, iterations, costs)


def phase_and_iterations(
    args: argparse.Namespace, first: int, costs: Costs, batch: int, left: float
) -> tuple[int | None, int]:
    """Return the images per phase and the iterations of a run from `first` px in `left` seconds.

    The phase is None where nothing grows.
    """
    growth = Growth(first, args.max_size, PHASE)
    a_phase = seconds(growth, costs, 0, growth.images) / PHASE  # seconds per image of a phase
    phase = args.phase or (max(1, int(GROWTH_SHARE * left / a_phase)) if a_phase else None)
    growing = (phase or 0) * a_phase
    if args.phase and growing > left:
        raise UserError(
            f"--hours {args.hours:g}: too short for --phase {phase}, with which growth alone takes "
            f"{growing / 3600:.3g} hours; leave out --phase, or give more hours"
        )
    images = growth.images / PHASE * (phase or 0) + (left - growing) / costs[args.max_size]
    return phase, int(images / batch)


def widest_trial(
    args: argparse.Namespace, bank: ImageBank, begin: BeginTrial, total: float
) -> tuple[Trial, float]:
    """Return the widest networks that pay, and how many images they see in `total` seconds."""
    rungs = ((args.width, 0),) if args.width else WIDTHS
    taken: tuple[Trial, float] | None = None  # the trial, and the images it has time for
    for width, least in rungs:
        if taken and taken[1] < least:  # a wider one would be slower still
            break
        batch = args.batch or batch_for(BATCHES, least, bank.count)
        try:
            trial = Trial(args, bank, begin, width)
            trial.check_memory(batch)
            affordable = total / trial.cost(batch, trial.sizes[-1])
        except (UserError, MemoryError, RuntimeError) as error:
            if not taken or not (isinstance(error, UserError) or is_out_of_memory(error)):
                raise
            break
        if affordable < least:
            break
        taken = trial, affordable
    assert taken  # the narrowest needs no number of images
    return taken


def batch_for(table: tuple[tuple[int, int], ...], affordable: float, count: int) -> int:
    """Return the batch for a run of `affordable` images, a multiple that processes can share."""
    unit = STD_GROUP * distributed.size()
    return max(unit, min(last_reached(table, affordable), count) // unit * unit)


def last_reached(table: tuple[tuple[int, int], ...], affordable: float) -> int:
    """Return the last entry of a table that a run of `affordable` images reaches."""
    return [entry for entry, least in table if affordable >= least][-1]


def estimate(args: argparse.Namespace, bank: ImageBank, begin: BeginTrial) -> Plan:
    """Return the run that the flags ask for, with what it costs."""
    trial = Trial(args, bank, begin, args.width)
    config = trial.asked
    trial.check_memory(config.batch)
    costs = {size: trial.cost(config.batch, size) for size in trial.sizes}
    first, last = config.init_size, config.iterations
    return Plan(first, args.width, config.batch, config.phase, last, costs)


def plan_lines(args: argparse.Namespace, plan: Plan, bank: ImageBank) -> list[str]:
    """Return the lines that show a plan, when it ends and its memory."""
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
