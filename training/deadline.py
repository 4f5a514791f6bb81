"""The end of a run with --hours: moved, so that it ends on time at whatever speed it has."""

import argparse
import time
from collections import deque

from training.config import TrainConfig
from training.growth import Growth
from training.progress import Costs, seconds

# Shares of the planned time:
NEAR = 0.4  # while more is left, the end is not moved
SPEED_OVER = 0.1  # how far back the speed is measured
WORTH = 0.01  # an end that is off by less is not moved


class End:
    """The iteration after which a run ends, which a planned run moves to end on time.

    A resumed run, `done` iterations in, keeps the end that config.json records.
    """

    def __init__(self, config: TrainConfig, args: argparse.Namespace, done: int) -> None:
        self.config = config
        self.iterations = config.iterations
        self.costs = costs_of(args)
        self.length = 3600 * (args.hours or 0.0)
        self.at = args.start + self.length if args.hours and not done else None
        self.seen: deque[tuple[float, int]] = deque()  # times, and images at them

    def on_time(self, nimg: int, now: float) -> int:
        """Return the iteration to end after, judged by the recent speed.

        Unchanged while the end is far away, or if it would hardly move. `now` is
        time.monotonic().
        """
        if self.at is None or self.costs is None:
            return self.iterations
        speed = self._speed(nimg, now)
        if not speed:
            return self.iterations
        config, left = self.config, max(0.0, self.at - now)
        total = self.iterations * config.batch
        expected = seconds(config.growth, self.costs, nimg, total) / speed
        far = min(left, expected) > NEAR * self.length
        if far or abs(left - expected) < WORTH * self.length:
            return self.iterations
        more = images_in(config.growth, self.costs, nimg, left * speed)
        return round((nimg + more) / config.batch)

    def _speed(self, nimg: int, now: float) -> float:
        """Return the recent speed relative to the planned one; 0 if unknown."""
        if self.seen and self.seen[-1][1] >= nimg:  # the run went back to an earlier state
            self.seen.clear()
        self.seen.append((now, nimg))
        while len(self.seen) > 2 and now - self.seen[1][0] > SPEED_OVER * self.length:
            self.seen.popleft()
        since, first = self.seen[0]
        if nimg == first or self.costs is None:
            return 0.0
        return seconds(self.config.growth, self.costs, first, nimg) / (now - since)


def costs_of(args: argparse.Namespace) -> Costs | None:
    """Return the costs that the plan was made with, as config.json keeps them."""
    return {int(size): float(cost) for size, cost in args.costs.items()} if args.costs else None


def images_in(growth: Growth, costs: Costs, nimg: int, time_left: float) -> float:
    """Return how many images from `nimg` on take `time_left` seconds: the inverse of `seconds`."""
    images = 0.0
    for size, n in growth.images_at(nimg, max(nimg, growth.images)).items():
        part = min(float(n), time_left / costs[size])
        images += part
        time_left -= part * costs[size]
    return images + max(0.0, time_left) / costs[growth.max_size]


def resumed_line(config: TrainConfig, args: argparse.Namespace, nimg: int) -> str:
    """Return the line that says when a planned run that was interrupted will end."""
    costs = costs_of(args)
    assert costs
    left = seconds(config.growth, costs, nimg, config.iterations * config.batch)
    return (
        f"planned for {args.hours:g} hours and interrupted: at the planned speed it ends at "
        f"{time_of_day(left)}"
    )


def time_of_day(left: float) -> str:
    """Return the time of day in `left` seconds, with the date if that is not today."""
    then, now = time.localtime(time.time() + left), time.localtime()
    today = then[:3] == now[:3]
    return time.strftime("%H:%M" if today else "%H:%M on %Y-%m-%d", then)
