"""Numbers at the edge and words, given to every flag of every script: a usage line, nothing made.

The flags are those that --help shows, so that none can be forgotten.
"""

import re
from pathlib import Path

import pytest
import torch

from checkpoints import checkpoint
from model import Generator, ModelConfig
from tests.support.run import ROOT, hashes
from tests.support.scripts import exit_code, flags_of

VALUES = ["0", "-1", "nan", "inf", "1" + "0" * 30, "1e9", "48", "0.5", "x", ""]
TEXT = {  # flags that take any text; tested elsewhere
    "prepare_data.py": {"--list", "--table", "--where", "--key"},
    "train.py": {"--out", "--init_from"},
    "generate.py": {"--out", "--w_in"},
    "evaluate.py": {"--out", "--inception"},
    "project.py": {"--out"},
    "explore.py": {"--host"},
    "demo/draw_faces.py": set(),
}
# How a usage line says what a flag accepts.
ALLOWED = r" in -?\d+\.\.\d|a number (above|from)|choose from|expected|at most|such as|needs"
ALLOWED += r"|is not |does not end with|ignored"
COUNT, FROM_0, SHARE = {"48"}, {"0", "48"}, {"0", "0.5"}
GOOD: dict[str, dict[str, set[str]]] = {  # which of VALUES a flag accepts; none if not listed
    "prepare_data.py": {
        "--quality": COUNT, "--min_size": COUNT, "--per_source": COUNT, "--holdout": FROM_0,
        "--workers": COUNT, "--seed": FROM_0,
    },
    "train.py": {
        "--seed": FROM_0, "--iterations": COUNT, "--phase": COUNT, "--batch": COUNT,
        "--width": {"0.5"}, "--lr": {"0.5"}, "--d_lr": {"0.5"}, "--r1_every": COUNT,
        "--r1_gamma": {*VALUES} - {"-1", "nan", "inf", "x", ""}, "--mixing": SHARE, "--ema": FROM_0,
        "--save_every": COUNT, "--sample_every": COUNT, "--metric_every": FROM_0,
        "--w_dim": COUNT, "--mapping_layers": COUNT, "--hours": {"48", "0.5"},
        "--augment_p": SHARE, "--freeze_d": {"0"},
    },
    "generate.py": {
        "--psi": {"-1", "0", "0.5"}, "--seeds": FROM_0, "--n_row": COUNT, "--n_col": COUNT,
        "--mix_layers": {"0"}, "--direction": {"0"}, "--frames": COUNT, "--fps": COUNT,
    },
    "evaluate.py": {"--samples": COUNT, "--psi": {"-1", "0", "0.5"}},
    "project.py": {"--steps": COUNT, "--seed": FROM_0},
    "explore.py": {"--port": COUNT, "--steps": COUNT},
    "demo/draw_faces.py": {"--count": COUNT, "--size": COUNT, "--seed": FROM_0, "--workers": COUNT},
}  # fmt: skip


@pytest.fixture(scope="module")
def paths(tiny_lmdb: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Return valid arguments for each script."""
    folder = tmp_path_factory.mktemp("edges")
    config = ModelConfig(16, 0.03, z_dim=16, w_dim=16, mapping_layers=2)
    with torch.random.fork_rng():
        entries = {"G_ema": Generator(config).state_dict(), "iteration": 0}
    checkpoint.save(folder / "faces.pt", config, entries)
    photo = folder / "photo.png"
    photo.write_bytes((ROOT / "doc" / "sample.jpg").read_bytes())
    return {
        "prepare_data.py": [photo, folder / "new.lmdb"],
        "train.py": [tiny_lmdb, Path("--out"), folder / "run"],
        "generate.py": [folder / "faces.pt", Path("--out"), folder / "out"],
        "evaluate.py": [folder / "faces.pt", tiny_lmdb, Path("--out"), folder / "out"],
        "project.py": [photo, folder / "faces.pt", Path("--out"), folder / "out"],
        "explore.py": [folder / "faces.pt"],
        "demo/draw_faces.py": [folder / "drawn"],
    }


@pytest.mark.parametrize("script", GOOD)
def test_numbers_at_the_edge_are_refused(script, paths, capsys):
    given = [str(path) for path in paths[script]]
    flags = flags_of(script, capsys)
    assert flags >= GOOD[script].keys() | TEXT[script]
    folder = paths["demo/draw_faces.py"][0].parent
    before = hashes(folder)
    for flag in sorted(flags - TEXT[script]):
        for value in VALUES:
            if value in GOOD[script].get(flag, set()):
                continue
            assert exit_code(script, [*given, f"{flag}={value}"]) == 2, (flag, value)
            (error,) = capsys.readouterr().err.splitlines()
            assert flag in error, (flag, value)
            assert re.search(ALLOWED, error), error
    assert hashes(folder) == before
