"""workers.py: results in order, silence, and an end in time when a process dies or is stopped."""

import contextlib
import io
import multiprocessing
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.cli import UserError
from data.photos import Recipe
from data.workers import Place, Workers, prepare_place
from tests.support.folders import encoded, photos


def test_outcomes_come_in_the_order_of_the_photos(tmp_path: Path) -> None:
    places: list[Place] = [bytes(path) for path in sorted(photos(tmp_path, 20).iterdir())]
    Image.effect_noise((1000, 1000), 90).save(tmp_path / "000000.png")  # done after the others
    (tmp_path / "000007.png").write_bytes(b"x")
    recipe = Recipe((32, 64))
    with Workers(2, recipe) as workers:
        found = list(workers.prepare(places))
    assert found == [prepare_place(place, recipe) for place in places]
    assert found[7] == "not an image"


@pytest.mark.parametrize("raised", [UserError, KeyboardInterrupt])
def test_a_worker_killed_while_it_sends_ends_the_run(
    tmp_path: Path, raised: type[BaseException]
) -> None:
    """More than a pipe holds is being sent, and the rest of it never comes."""
    Image.effect_noise((512, 512), 90).save(tmp_path / "a.png")
    places: list[Place] = [bytes(tmp_path / "a.png")] * 16
    with pytest.raises(raised), Workers(2, Recipe((512,), 100)) as workers:  # noqa: PT012
        assert len(list(workers.prepare(places))) == 16  # so both have started
        outcomes = workers.prepare(places)
        next(outcomes)
        pipes, deadline = workers._processes, time.monotonic() + 30
        while not any(pipe.poll() for pipe in pipes) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # nothing is received meanwhile: the sender waits for room in its pipe
        started = time.monotonic()
        if raised is KeyboardInterrupt:
            raise KeyboardInterrupt
        next(process for pipe, process in pipes.items() if pipe.poll()).kill()
        list(outcomes)
    assert multiprocessing.active_children() == []
    assert time.monotonic() - started < 5


def test_the_libraries_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """At damaged TIFFs libtiff prints to stderr, bypassing Python."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    places: list[Place] = []
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"):
        image = noise.convert("1") if compression == "group4" else noise
        content = bytearray(encoded(image, "TIFF", compression=compression))
        content[60:400] = bytes(b ^ 0x5A for b in content[60:400])
        (tmp_path / compression).write_bytes(content)
        places.append(bytes(tmp_path / compression))
        with (
            contextlib.suppress(OSError),
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(content)) as image,
        ):
            image.load()
    assert capfd.readouterr().err  # what a program that lets them print would show
    with Workers(1, Recipe((64,))) as workers:
        found = [str(outcome).partition(":")[0] for outcome in workers.prepare(places)]
    assert found.count("damaged") > 1
    assert capfd.readouterr().err == ""
