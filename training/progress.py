"""How a run is doing: means of its losses, speed, memory and time left, on the progress bar."""

import sys
import time
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from checkpoints.records import Record
from common.cli import Forgiving
from common.device import memory_gb
from model import Stage
from training.config import TrainConfig
from training.growth import Growth
from training.losses import LOSSES

Costs = dict[int, float]  # seconds per image at each resolution
SHOW_SECONDS = 10.0  # after which the bar is updated between records, where steps are slow


class Meter:
    """Averages the stats of steps between two records, and drives the progress bar."""

    def __init__(
        self, config: TrainConfig, iterations: int, done: int, costs: Costs | None = None
    ) -> None:
        self.growth = config.growth
        self.batch = config.batch
        self.penalty = LOSSES[config.loss].penalty_name
        self.costs = costs
        self.total = iterations * self.batch  # images
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self.not_finite: torch.Tensor | int = 0  # steps with a stat that is NaN or infinite
        self.since = self.shown = time.perf_counter()
        self.images = 0
        self.nimg = done * self.batch
        self.findings: list[str] = []  # shown in the bar
        self.bar = tqdm(
            total=iterations,
            initial=done,
            bar_format="{percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt}{postfix}",
            mininterval=0.5 if sys.stderr and sys.stderr.isatty() else 60,
            file=Forgiving(sys.stderr),
            disable=sys.stderr is None,
        )

    def add(self, stats: dict[str, torch.Tensor]) -> None:
        """Add the stats of one step, which stay on the device."""
        for name, value in stats.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        finite = torch.stack(list(stats.values())).isfinite().all()
        self.not_finite = self.not_finite + ~finite
        self.images += self.batch
        self.nimg += self.batch
        self.bar.update()
        if time.perf_counter() - self.shown > SHOW_SECONDS:
            self.show(self.so_far(self.growth.at(self.nimg), self.nimg))

    def read(self, stage: Stage, nimg: int, device: torch.device) -> Record:
        """Return the record of the steps since the last one, and show it. Waits for the device."""
        record = replace(self.so_far(stage, nimg), memory_gb=memory_gb(device))
        self.sums, self.counts, self.images, self.since = {}, {}, 0, time.perf_counter()
        self.show(record)
        return record

    def so_far(self, stage: Stage, nimg: int) -> Record:
        """Return the record of the steps since the last one."""
        rate = self.images / (time.perf_counter() - self.since)
        means: dict[str, Any] = {
            name: (total / self.counts[name]).item() for name, total in self.sums.items()
        }
        return Record(
            iteration=nimg // self.batch,
            nimg=nimg,
            resolution=stage.resolution,
            alpha=stage.alpha,
            **means,
            images_per_second=rate,
            seconds_left=seconds_left(self.growth, self.total, nimg, rate, self.costs),
        )

    def show(self, record: Record) -> None:
        """Show a record on the bar."""
        seen = f" r_t {record.r_t:.2f} p {record.p:.2f}" if record.p is not None else ""
        penalty = f" {self.penalty} {record.penalty:.3g}" if record.penalty is not None else ""
        self.bar.set_postfix_str(
            f"{record.resolution}px a{record.alpha:.2f} D {record.D_loss:.3f} "
            f"G {record.G_loss:.3f}{penalty}{seen} {record.images_per_second:.0f} img/s, "
            f"{clock(record.seconds_left or 0)} left"
            + "".join(f" ! {name}" for name in self.findings)
        )
        self.shown = time.perf_counter()

    def end_at(self, iterations: int) -> None:
        """Let the bar end at another iteration."""
        self.total = iterations * self.batch
        self.bar.total = iterations

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()


def seconds_left(
    growth: Growth, total: int, nimg: int, rate: float, costs: Costs | None = None
) -> float:
    """Return the time until `total` images, given images/s at the resolution of `nimg`.

    `costs` are seconds per image at each resolution, of which only the ratios count. If unknown,
    doubling the resolution doubles the cost (on a CPU, 8 to 64 px: 1.9 to 2.3 times).
    """
    costs = costs or {size: float(size) for size in growth.resolutions}
    here = growth.at(nimg).resolution
    return seconds(growth, costs, nimg, total) / costs[here] / rate


def seconds(growth: Growth, costs: Costs, begin: int, end: int) -> float:
    """Return how long the images `begin` to `end` take, at `costs` seconds per image."""
    return sum(n * costs[size] for size, n in growth.images_at(begin, end).items())


def clock(seconds: float) -> str:
    """Return a time as people write it: 42s, 7m, 3h05m."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f}s"
    return f"{minutes}m" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"
