"""What earlier versions wrote can still be used: a database, a run folder, a file of styles.

tests/fixtures/run_of_2026.zip holds one of each, made of drawn faces of 16 px: 60 iterations with
--more_ema and --augment ada, and the sample grid that generate.py drew of it then.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkpoints import checkpoint, records
from dataset import ImageBank
from tests.support.run import fork

FIXTURE = Path(__file__).parents[1] / "fixtures" / "run_of_2026.zip"
PLAIN = ("--device", "cpu", "--precision", "fp32")


@pytest.fixture
def made_then(tmp_path: Path) -> Path:
    shutil.unpack_archive(FIXTURE, tmp_path)
    return tmp_path


def test_a_database_gives_the_photos_it_held(made_then):
    bank = ImageBank(made_then / "faces.lmdb", 16)
    assert (bank.count, bank.held_out) == (32, 8)
    config = json.loads((made_then / "run" / "config.json").read_text())
    assert bank.digest == config["data"]


def test_a_run_goes_on_where_it_stopped_and_keeps_its_log(made_then):
    run = made_then / "run"
    before = (run / "log.jsonl").read_text()
    flags = "--max_size 16 --width 0.02 --batch 4 --init_size 8 --phase 60 --save_every 30"
    flags += " --sample_every 60 --more_ema --augment ada --iterations 66"
    ended = fork(
        "train.py", "faces.lmdb", "--out", "run", *flags.split(), *PLAIN, cwd=made_then
    ).succeeded()
    assert ended.messages == ["train.py: continuing with iterations 66 (was 60)"]
    assert checkpoint.load(run / "latest.pt")["iteration"] == 66
    assert (run / "log.jsonl").read_text().startswith(before)
    assert [r.iteration for _, r in records.read_log(run) if r] == [50]


@pytest.mark.parametrize("file", ["", "snapshots/000060.pt"])
def test_a_checkpoint_makes_the_picture_it_made(made_then, file):
    run = made_then / "run"
    expected = np.asarray(Image.open(run / "generated" / "sample.png"), np.int16)
    flags = ("--seeds", "0-3", "--out", made_then / "now", *PLAIN)
    fork("generate.py", run / file, *flags).succeeded()
    found = np.asarray(Image.open(made_then / "now" / "sample.png"), np.int16)
    assert np.abs(found - expected).max() <= 1  # another processor may round otherwise


def test_a_file_of_styles_makes_the_picture_it_made(made_then):
    run, styles = made_then / "run", made_then / "styles.npz"
    expected = np.asarray(Image.open(run / "generated" / "sample.png"), np.int16)
    fork("generate.py", run, "--w_in", styles, "--out", made_then / "now", *PLAIN).succeeded()
    found = np.asarray(Image.open(made_then / "now" / "sample.png"), np.int16)
    assert np.abs(found - expected).max() <= 1
