"""A model card says what the run knows, and that the rest is unknown."""

import json
from pathlib import Path

import pytest

from dataset import ImageBank
from outputs.model_card import write_card
from sampling.sampler import load_faces
from tests.support.generators import CPU, save_generator

FIGURES = {"SWD 16 px": [12.34, 0.5], "recall": [0.25, 0.0625]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a snapshot that was taken after 160 images."""
    run = tmp_path / "run"
    save_generator(run / "snapshots" / "000010.pt", iteration=10, nimg=160)
    return run


def configure(run: Path, lmdb: Path | str, digest: str | None) -> None:
    config = {"lmdb": str(lmdb), "data": digest, "batch": 16, "precision": "bf16", "phase": 80}
    config |= {"device": "cpu", "threads": 2, "no_mirror": False}
    (run / "config.json").write_text(json.dumps(config))


def log(run: Path, *records: dict[str, float]) -> None:
    (run / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def evaluated(run: Path, *checkpoints: dict[str, object]) -> None:
    """Write what evaluate.py would have."""
    found: dict[str, object] = {"psi": 1.0, "floor": {name: [1.5, 0.25] for name in FIGURES}}
    found |= {"checkpoints": checkpoints, "copies": {"count": 3, "of": 90}}
    (run / "evaluation").mkdir()
    (run / "evaluation" / "figures.json").write_text(json.dumps(found))


def card_of(file: Path, licence: str = "unknown") -> str:
    """Return the card of a checkpoint."""
    path = file.with_name("card.md")
    write_card(path, load_faces(file, CPU, print), "faces.zip", licence, "How to use it.")
    return path.read_text()


def test_a_card_says_what_the_run_knows(run: Path, tiny_lmdb: Path) -> None:
    configure(run, tiny_lmdb, ImageBank(tiny_lmdb, 16).digest)
    log(
        run,
        {"iteration": 5, "nimg": 80, "images_per_second": 0.01},
        {"iteration": 10, "nimg": 160, "images_per_second": 0.02},
        {"iteration": 625, "nimg": 9999, "images_per_second": 1},
    )
    checkpoints = [f"{run}/snapshots/{iteration:06d}.pt" for iteration in (5, 10)]
    evaluated(
        run,
        {"file": checkpoints[0], "iteration": 5, "figures": {"recall": [0.5, 0.5]}},
        {"file": checkpoints[1], "iteration": 10, "figures": FIGURES},
    )
    card = card_of(run / "snapshots" / "000010.pt", "cc-by-4.0")
    for said in [
        "license: cc-by-4.0\n",
        "# faces.zip\n",
        "How to use it.",
        "24 photos from `drawn`, each also mirrored",
        "160 photos shown in 10 iterations of 16 (bf16): 3.3 hours",  # 8000 s + 4000 s
        "| SWD 16 px | 12.34 ± 0.5 | 1.5 ± 0.25 |",
        "| recall | 0.25 ± 0.062 | 1.5 ± 0.25 |",
        "of 90 samples of the run's best checkpoint, 3 were",
        "## Intended use",
        "## Limits",
    ]:
        assert said in card
    assert str(run) not in card
    assert str(tiny_lmdb.parent) not in card


def test_a_card_says_what_is_unknown(run: Path) -> None:
    card = card_of(run / "snapshots" / "000010.pt")
    for said in (
        "license: unknown",
        "there is no config.json",
        "the time it took is unknown",
        "Not measured",
        "none has been chosen",
    ):
        assert said in card


def test_the_cost_passes_over_lines_of_the_log_that_tell_no_speed(run: Path) -> None:
    log(
        run,
        {"iteration": 5, "nimg": 80, "images_per_second": 0.01},
        {"iteration": 5, "nimg": 80, "swd": 12.5},
        {"iteration": 10, "nimg": 160, "images_per_second": 0.02},
        {"iteration": 10, "nimg": 160, "end": 20},
    )
    assert "10 iterations: 3.3 hours" in card_of(run / "snapshots" / "000010.pt")


def test_the_metrics_are_those_of_the_same_average(run: Path) -> None:
    long = save_generator(run / "ema_long.pt", seed=1, iteration=10, nimg=160)
    snapshot = {"file": f"{run}/snapshots/000010.pt", "iteration": 10, "figures": FIGURES}
    own = {"SWD 16 px": [7.5, 0.5]}
    evaluated(run, snapshot, {"file": f"{run}/ema_long.pt", "iteration": 10, "figures": own})
    assert "| SWD 16 px | 7.5 ± 0.5 | 1.5 ± 0.25 |" in card_of(long)
    assert "| SWD 16 px | 12.34 ± 0.5 |" in card_of(run / "snapshots" / "000010.pt")


def test_an_average_that_was_not_measured_has_no_metrics_of_another(run: Path) -> None:
    short = save_generator(run / "ema_short.pt", seed=1, iteration=10, nimg=160)
    evaluated(run, {"file": f"{run}/snapshots/000010.pt", "iteration": 10, "figures": FIGURES})
    assert "The run was measured, but not this checkpoint" in card_of(short)


def test_another_database_at_a_relative_path_is_not_taken_for_the_one_trained_on(
    run: Path, tiny_lmdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_lmdb.parent)
    configure(run, tiny_lmdb.name, "another digest")
    assert "It was not available" in card_of(run / "snapshots" / "000010.pt")
    configure(run, tiny_lmdb, "another digest")
    assert "It has changed since." in card_of(run / "snapshots" / "000010.pt")
    configure(run, tiny_lmdb.name, ImageBank(tiny_lmdb, 16).digest)
    assert "24 photos from `drawn`" in card_of(run / "snapshots" / "000010.pt")
