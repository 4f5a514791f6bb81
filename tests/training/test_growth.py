"""The growth table against the schedule of the official StyleGAN code, stated anew."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest

from model import Stage
from training.growth import Growth

SCHEDULES = [(4, 64, 600), (8, 64, 1000), (8, 16, 7), (4, 1024, 3), (32, 64, 1)]


def official_lod(growth: Growth, nimg: int) -> Fraction:
    """StyleGAN's `training_schedule`, training and transition a phase each: 0 is the finest."""
    phase_length = 2 * growth.phase
    index = nimg // phase_length
    within = nimg - index * phase_length
    lod = Fraction(int(math.log2(growth.max_size) - math.log2(growth.init_size)))
    lod -= index
    lod -= Fraction(max(within - growth.phase, 0), growth.phase)
    return max(lod, Fraction(0))


def moments(growth: Growth) -> list[int]:
    """Both sides of every border, points between, and far past the end."""
    borders = range(0, growth.images + 3 * growth.phase, growth.phase)
    near = [b + d for b in borders for d in (-1, 0, 1, growth.phase // 2, growth.phase // 3)]
    return sorted({n for n in near if n >= 0} | {10**9})


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_table_is_that_of_the_official_schedule(schedule):
    growth = Growth(*schedule)
    for nimg in moments(growth):
        stage, lod = growth.at(nimg), official_lod(growth, nimg)
        if stage.alpha == 0:  # as the official stage before, which looks the same
            assert stage.resolution == 2 * growth.max_size >> int(lod)
            assert lod == int(lod)
        else:
            assert stage.resolution == growth.max_size >> math.floor(lod)
            assert stage.alpha == pytest.approx(float(1 - (lod - math.floor(lod))), abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_schedule_never_goes_back_and_fades_in_steps_of_one_image(schedule):
    growth = Growth(*schedule)
    last = min(growth.images + 5, 20_000)
    levels = [
        math.log2(stage.resolution) - 1 + stage.alpha
        for stage in (growth.at(nimg) for nimg in range(last))
    ]
    for before, after in pairwise(levels):
        assert 0 <= after - before <= 1 / growth.phase + 1e-9


@pytest.mark.parametrize("size", [4, 8, 64, 1024])
def test_nothing_grows_where_the_first_size_is_the_last(size):
    growth = Growth(size, size, phase=10)
    assert {growth.at(nimg) for nimg in (0, 9, 10, 19, 20, 10**9)} == {Stage(size, 1.0)}
    assert growth.resolutions == [size]
    assert growth.images == 0


def test_the_first_resolution_is_held_for_one_phase_and_each_later_one_fades_in_for_one():
    growth = Growth(8, 32, phase=100)
    table = {0: (8, 1), 99: (8, 1), 100: (16, 0), 150: (16, 0.5), 199: (16, 0.99), 200: (16, 1)}
    table |= {299: (16, 1), 300: (32, 0), 375: (32, 0.75), 400: (32, 1), 500: (32, 1)}
    assert {nimg: tuple(growth.at(nimg)) for nimg in table} == table


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_resolutions_and_images_agree_with_the_table(schedule):
    growth = Growth(*schedule)
    passed = {growth.at(nimg).resolution for nimg in moments(growth)}
    assert growth.resolutions == sorted(passed)
    assert growth.at(growth.images) == Stage(growth.max_size, 1.0)
    assert growth.at(growth.images - 1) != Stage(growth.max_size, 1.0)
