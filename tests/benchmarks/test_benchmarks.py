"""The benchmarks at their smallest sizes, and their arithmetic against numbers worked by hand."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.flops import FlopCounter
from benchmarks.harness import Range, alternate, cells, compare, ratio, table
from benchmarks.ours import OurTraining

ROOT = Path(__file__).parents[2]
TINY = ["--width", 0.03125, "--resolution", 8]


def measured(tmp_path: Path, name: str, *flags: object) -> dict[str, Any]:
    """Run a benchmark and return what it wrote."""
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, flags), "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) >= 2
    results: dict[str, Any] = json.loads(file.read_text())
    return results


@pytest.mark.slow
def test_train_step_measures_speed_work_and_share(tmp_path: Path) -> None:
    flags = ["--width", 0.03125, 0.0625, "--resolution", 8, "--batch", 4, "--rounds", 1]
    results = measured(tmp_path, "train_step", *flags)
    assert results.keys() == {"peak_gflops", "width_0.03125", "width_0.0625"}
    for width in ("width_0.03125", "width_0.0625"):
        found = results[width]
        peak = results["peak_gflops"][found["ours_dtype"]]
        assert found["share"] == pytest.approx(found["ours"] * found["ours_gflop_per_image"] / peak)
        assert 0 < found["share"] < 1
    widths = [results[width]["ours_gflop_per_image"] for width in ("width_0.03125", "width_0.0625")]
    assert widths[0] < widths[1]


@pytest.mark.slow
def test_growth_measures_every_resolution(tmp_path: Path) -> None:
    results = measured(tmp_path, "growth", "--width", 0.03125, "--batch", 4, "--rounds", 1)
    assert list(results) == ["8", "16", "32", "64"]
    assert results["64"]["ours_ratio"] == [1, 1, 1]
    assert results["8"]["ours_ratio"][0] == pytest.approx(
        results["8"]["ours"] / results["64"]["ours"]
    )


@pytest.mark.slow
def test_prepare_measures_small_and_large_photos(tmp_path: Path) -> None:
    results = measured(tmp_path, "prepare", "--small", 3, "--large", 1, "--rounds", 1)
    assert results["small"]["photos"] == 3
    assert results["12_megapixels"].keys() == {"photos", "ours"}


@pytest.mark.slow
def test_generate_startup_and_memory_write_their_results(tmp_path: Path) -> None:
    assert measured(tmp_path, "generate", *TINY, "--rounds", 1)["ours"] > 0
    waits = measured(tmp_path, "startup", "--width", 0.03125, "--images", 16, "--rounds", 1)
    assert "first step of train.py" in waits
    assert waits["train.py --help"] > 0
    assert measured(tmp_path, "memory", *TINY, "--batch", 4)["ours"] > 50


def test_a_folder_that_is_no_checkout_is_refused_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.growth", "--peer", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "holds no train.py" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_needs_no_torch() -> None:
    names = "explore, generate, growth, memory, prepare, startup, train_step"
    code = f"import sys; from benchmarks import {names}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_sides_are_measured_in_turn() -> None:
    called = []

    def side(name: str, seconds: float) -> float:
        called.append(name)
        return seconds

    results = alternate({"ours": lambda: side("a", 1), "peer": lambda: side("b", 2)}, 3)
    assert "".join(called) == "ababab"
    assert results == {"ours": [1, 1, 1], "peer": [2, 2, 2]}


def test_ratios_are_of_pairs_and_speeds_of_medians() -> None:
    peer, ours = [8.0, 12.0, 9.0], [2.0, 4.0, 1.0]
    assert ratio(peer, ours) == Range(4.0, 3.0, 9.0)  # of 4, 3 and 9
    results = compare({"ours": ours, "peer": peer}, amount=18)
    assert results == {"ours": 9.0, "peer": 2.0, "ratio": 4.0, "ratio_range": [3.0, 9.0]}
    assert cells(results) == ["9.00", "2.00", "4.00 (3.00-9.00)"]
    assert cells(compare({"ours": ours})) == ["2.00", None, None]
    assert table(["a", "bb"], [["100", None]]) == "  a  bb\n100   -"


@pytest.mark.slow
def test_steps_with_r1_count_as_often_as_in_training(
    tiny_lmdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = OurTraining(tiny_lmdb, 1 / 32, 4, 8, 16)
    monkeypatch.setattr(training, "step", lambda iteration: {0: 33.0, 1: 1.0}[iteration])
    assert training.seconds() == 3.0  # (33 + 15 * 1) / 16
    assert training.config.growth.at(training.nimg) == (8, 1.0)
    assert OurTraining(tiny_lmdb, 1 / 32, 4, 16, 16).nimg == 2 * training.config.phase


def test_convolutions_and_their_gradients_are_counted() -> None:
    x = torch.zeros(2, 3, 8, 8, requires_grad=True)
    weight = torch.zeros(5, 3, 3, 3, requires_grad=True)
    forward = 2 * 2 * 5 * 8 * 8 * 3 * 9
    with FlopCounter() as counter:
        y = torch.nn.functional.conv2d(x, weight, padding=1)
    assert counter.total == forward
    with FlopCounter() as counter:
        y.sum().backward()
    assert counter.total == 2 * forward


@pytest.mark.slow
def test_explore_measures_the_time_from_a_slider_to_the_face(tmp_path: Path) -> None:
    results = measured(tmp_path, "explore", *TINY, "--threads", 1, "--rounds", 2)
    assert results.keys() == {"slider_threads_1", "psi_threads_1"}
    for found in results.values():
        assert found.keys() == {"ms", "cpu_ms"}
        assert found["ms"][0] > 0
    slider, psi = (results[f"{name}_threads_1"]["cpu_ms"][0] for name in ("slider", "psi"))
    assert psi > slider  # three faces, not one
