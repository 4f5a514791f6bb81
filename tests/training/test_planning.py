"""A run that is given hours is planned, ends on time and resumes exactly."""

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from common.cli import FIRST_SIZE, UserError
from tests.support.run import Ended
from tests.support.training import GROWTH, call, config_of, digest, iteration_of, log_of, torchrun
from training import planning
from training.config import train_config
from training.deadline import End, images_in, time_of_day
from training.growth import Growth
from training.planning import make_plan, plan_lines
from training.progress import Costs, seconds

COSTS = {8: 0.001, 16: 0.002, 32: 0.005, 64: 0.012}  # about one core at width 1/8


def run(lmdb: Path, out: Path, *flags: str) -> Ended:
    """Train in this process, with nothing given that a plan decides; return how it ended."""
    return call([str(lmdb), "--out", str(out), *GROWTH, *flags])


def arguments(*flags: str) -> argparse.Namespace:
    args = train.parse_args(["faces.lmdb", *flags])
    args.start, args.costs = time.monotonic(), None
    return args


class Priced:
    """Stands for Trial: each width has its price, and no step is made."""

    full = False  # whether memory is

    def __init__(self, args: argparse.Namespace, bank: Any, begin: Any, width: float) -> None:
        growth = Growth(args.init_size or FIRST_SIZE, args.max_size, 10**6)
        self.width, self.sizes = width, growth.resolutions
        self.config = argparse.Namespace(growth=growth)

    def check_memory(self, batch: int) -> None:
        if self.full and self.width > 0.125:
            raise UserError("full")

    def cost(self, batch: int, size: int) -> float:
        return COSTS[size] * self.width / 0.125


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Callable[..., planning.Plan]:
    """Give what plans flags, at known prices."""
    monkeypatch.setattr(planning, "Trial", Priced)
    bank: Any = argparse.Namespace(count=5000)
    return lambda *flags: make_plan(arguments(*flags), bank, None)  # type: ignore[arg-type]


def test_images_at_counts_what_the_schedule_shows():
    for growth in (Growth(4, 16, 5), Growth(8, 8, 5), Growth(4, 32, 1)):
        for begin, end in ((0, 0), (0, 3), (3, 17), (0, 100), (14, 16), (60, 61)):
            counted = dict.fromkeys(growth.resolutions, 0)
            for nimg in range(begin, end):
                counted[growth.at(nimg).resolution] += 1
            assert growth.images_at(begin, end) == counted


@pytest.mark.parametrize("begin", [0, 100, 2_500, 9_000])
def test_as_many_images_fit_into_a_time_as_take_it(begin):
    growth = Growth(8, 64, 1000)
    for more in (0, 1, 700, 3_000, 20_000):
        time_left = seconds(growth, COSTS, begin, begin + more)
        assert images_in(growth, COSTS, begin, time_left) == pytest.approx(more)


@pytest.mark.parametrize("hours", [0.1, 0.5, 2, 24])
def test_a_plan_fills_its_time_and_grows_in_its_share_of_it(plan, hours):
    made = plan("--hours", str(hours), "--init_size", "8")
    assert made.phase
    growth = Growth(8, 64, made.phase)
    took = seconds(growth, made.costs, 0, made.iterations * made.batch)
    assert took == pytest.approx(3600 * hours, rel=0.005)
    growing = seconds(growth, made.costs, 0, growth.images)
    assert growing == pytest.approx(planning.GROWTH_SHARE * 3600 * hours, rel=0.005)


def test_more_time_gives_wider_networks_and_larger_batches(plan, monkeypatch):
    plans = [plan("--hours", hours) for hours in ("0.1", "24", "500")]
    assert [made.width for made in plans] == [0.125, 0.25, 1.0]
    assert [made.batch for made in plans] == [8, 16, 32]
    assert [made.init_size for made in plans] == [32, 8, 8]
    assert [min(made.costs) for made in plans] == [32, 8, 8]
    monkeypatch.setattr(Priced, "full", True)
    assert plan("--hours", "500").width == 0.125


def test_a_plan_keeps_the_flags_that_are_given(plan):
    flags = ["--width", "0.5", "--batch", "12", "--phase", "1000", "--init_size", "16"]
    made = plan("--hours", "1", *flags)
    assert (made.width, made.batch, made.phase) == (0.5, 12, 1000)
    assert list(made.costs) == [16, 32, 64]
    assert made.init_size == 16
    took = seconds(Growth(16, 64, 1000), made.costs, 0, made.iterations * 12)
    assert took == pytest.approx(3600, rel=0.005)
    assert plan("--hours", "1", "--init_size", "64").phase is None
    assert plan("--hours", "0.02", "--max_size", "16").init_size == 16


def test_a_plan_is_what_runs_and_what_a_resumed_run_keeps(monkeypatch):
    monkeypatch.setattr(planning, "Trial", Priced)
    bank: Any = argparse.Namespace(count=5000, device=torch.device("cpu"))

    def growth(before: dict[str, Any]) -> Growth:
        args = arguments("--hours", "0.1")
        planning.resolve_plan(args, bank, None, before)  # type: ignore[arg-type]
        return train_config(args, bank.device, before).growth

    assert growth({}).resolutions == [32, 64]
    begun = {"hours": 0.1, "init_size": 16, "width": 0.125, "batch": 8, "iterations": 500}
    assert growth({**begun, "phase": 300}) == Growth(16, 64, 300)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--hours", "0.0001"], "expected at least 100. Give 0.00"),
        (["--hours", "0.1", "--phase", "100000"], "too short for --phase 100000"),
    ],
)
def test_too_little_time_is_refused(plan, flags, words):
    with pytest.raises(UserError, match=words):
        plan(*flags)


def ended(hours: float, costs: Costs, speed: Callable[[float], float]) -> float:
    """Return the share of its time that a run takes whose speed, 1 as planned, changes."""
    length = 3600 * hours
    growth = Growth(8, 64, int(planning.GROWTH_SHARE * length / 0.021 / 1.2))
    images = images_in(growth, costs, 0, length)
    args = arguments("--hours", str(hours))
    args.costs, args.start, args.batch = {str(k): v for k, v in costs.items()}, 0.0, 8
    args.iterations, args.width, args.phase = int(images / 8), 0.125, growth.phase
    end = End(train_config(args, torch.device("cpu"), {}), args, done=0)
    now = 0.0
    iteration = 0
    while iteration < end.iterations:
        now += seconds(growth, costs, 8 * iteration, 8 * iteration + 8) / speed(now / length)
        iteration += 1
        end.iterations = end.on_time(8 * iteration, now)
    return now / length


SPEEDS: dict[str, Callable[[float], float]] = {
    "as planned": lambda _: 1.0,
    "15 % slower": lambda _: 0.85,
    "15 % faster": lambda _: 1.15,
    "slower and slower": lambda share: 1 - 0.15 * share,
    "faster and faster": lambda share: 1 + 0.15 * share,
    "15 % slower from nine tenths on": lambda share: 1.0 if share < 0.9 else 0.85,
    "15 % faster from nine tenths on": lambda share: 1.0 if share < 0.9 else 1.15,
    "half as fast": lambda _: 0.5,
    "twice as fast": lambda _: 2.0,
    "up and down": lambda share: random.Random(share).choice((0.6, 1.0, 1.4)),
}


@pytest.mark.parametrize("hours", [0.02, 0.1])
@pytest.mark.parametrize("speed", SPEEDS)
def test_a_run_whose_speed_drifts_ends_within_five_percent(hours, speed):
    assert 0.95 < ended(hours, COSTS, SPEEDS[speed]) < 1.05


def test_a_run_as_fast_as_planned_keeps_its_end():
    args = arguments("--hours", "1")
    args.costs, args.start, args.batch = {str(k): v for k, v in COSTS.items()}, 0.0, 8
    args.iterations, args.width, args.phase = 1000, 0.125, 500
    config = train_config(args, torch.device("cpu"), {})
    args.hours = seconds(config.growth, COSTS, 0, 8000) / 3600
    end = End(config, args, done=0)
    for nimg in range(400, 8001, 400):
        assert end.on_time(nimg, seconds(config.growth, COSTS, 0, nimg)) == 1000
    gone_on = End(config, args, done=50)
    for nimg in range(800, 8001, 400):
        assert gone_on.on_time(nimg, 1e6) == 1000


def test_a_plan_is_printed_in_a_few_lines():
    args = arguments("--hours", "2")
    bank: Any = argparse.Namespace(device=torch.device("cpu"))
    made = planning.Plan(8, 0.125, 16, 10_000, 30_000, COSTS)
    lines = plan_lines(args, made, bank)
    assert "30,000 iterations of 16, width 0.125; to end at " in lines[0]
    assert lines[2].split() == ["8", "10,000", "10s", "1000.0"]
    assert lines[5].split() == ["64", "430,000", "1h26m", "83.3"]
    assert lines[6].startswith("memory: ")
    assert len(lines) == 7
    assert len(time_of_day(0)) == 5
    assert " on 20" in time_of_day(2 * 86_400)


@pytest.fixture
def moved(plan: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run of 0.01 hours be planned with some 220 iterations, and cut to 20 at the 10th."""
    monkeypatch.setattr(Priced, "cost", lambda *_: 0.02)
    on_time = {80: 20}
    cut = lambda end, nimg, _: on_time.get(nimg, end.iterations) if end.at else end.iterations  # noqa: E731
    monkeypatch.setattr(End, "on_time", cut)


@pytest.mark.usefixtures("moved")
def test_a_planned_run_that_was_stopped_goes_on_to_the_end_that_is_recorded(tiny_lmdb, tmp_path):
    out, unbroken, short = tmp_path / "run", tmp_path / "unbroken", tmp_path / "short"
    hours = ["--hours", "0.01", "--width", "0.03"]
    printed = run(tiny_lmdb, out, *hours).succeeded().out
    assert "iterations of 8, width 0.03; to end at " in printed
    config = config_of(out)
    assert config["iterations"] == iteration_of(out) == 20
    assert [line["end"] for line in log_of(out) if "end" in line] == [20]
    asked = [f"--{name}={config[name]}" for name in ("batch", "phase", "width")]
    run(tiny_lmdb, unbroken, *asked, "--iterations", "20").succeeded()
    assert digest(unbroken / "latest.pt") == digest(out / "latest.pt")
    run(tiny_lmdb, short, *asked, "--iterations", "5").succeeded()
    for name in ("latest.pt", "previous.pt"):  # as if it had been killed: what it saved is older
        (out / name).write_bytes((short / "latest.pt").read_bytes())
    printed = run(tiny_lmdb, out, *hours).succeeded().out
    assert "planned for 0.01 hours and interrupted: at the planned speed it ends at " in printed
    assert digest(unbroken / "latest.pt") == digest(out / "latest.pt")
    assert config_of(out) == config


def test_a_run_cannot_be_given_other_hours(tiny_lmdb, tmp_path):
    out = tmp_path / "run"
    given = ["--width", "0.03", "--batch", "4"]
    run(tiny_lmdb, out, *given, "--iterations", "2").succeeded()
    assert "was started with none" in run(tiny_lmdb, out, *given, "--hours", "1").failed()


@pytest.mark.parametrize("hours", [["--hours", "1"], []])
def test_a_dry_run_prints_time_and_memory_and_makes_nothing(tiny_lmdb, tmp_path, hours):
    small = ["--width", "0.03", "--batch", "4", "--dry_run"]
    lines = run(tiny_lmdb, tmp_path / "run", *small, *hours).succeeded().out.splitlines()
    assert [line.split()[0] for line in lines] == ["plan:", "px", "4", "8", "memory:"]
    assert list(tmp_path.iterdir()) == []
    if not hours:
        assert "100,000 iterations of 4" in lines[0]
        assert "takes " in lines[0]


def test_impossible_hours_are_one_line_and_make_nothing(tiny_lmdb, tmp_path):
    error = run(tiny_lmdb, tmp_path / "run", "--hours", "0.00001", "--width", "0.03").failed()
    assert "expected at least 100. Give 0.0" in error
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_does_not_fit_is_refused_before_it_is_tried(monkeypatch):
    peaks = iter((1.0, 1.5))
    monkeypatch.setattr(planning, "memory_gb", lambda _: next(peaks))
    monkeypatch.setattr(planning, "free_bytes", lambda _: 2 * 2**30)
    monkeypatch.setattr(planning.Trial, "_step", lambda *_: 0.0)
    trial = object.__new__(planning.Trial)
    trial.sizes, trial.width = [8], 0.03
    trial.state = argparse.Namespace(device=torch.device("cpu"))  # type: ignore[assignment]
    trial.check_memory(16)  # 1.5 GB, and half of one for each four images more: 2.5
    peaks = iter((1.0, 1.5))
    with pytest.raises(UserError, match=r"batch of 32 at 8 px .* about 4.5 GB; 3.5 are there"):
        trial.check_memory(32)


@pytest.mark.slow
def test_two_processes_make_one_plan(tiny_lmdb, tmp_path):
    given = ["--width", "0.03", "--batch", "8", "--hours", "1", "--dry_run"]
    printed = torchrun(2, [str(tiny_lmdb), "--out", str(tmp_path / "run"), *GROWTH, *given])
    assert printed.count("plan: ") == 1
    assert "of 8, width 0.03" in printed
    assert list(tmp_path.iterdir()) == []
