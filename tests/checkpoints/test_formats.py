"""Checkpoints of every format so far still load: tests/fixtures keeps one file of each.

format_1.pt is a full state of 8 px after two steps, with noise strengths of zero and a random
constant; format_1.png is what generate.py drew from it at the time.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkpoints import checkpoint
from tests.support.run import fork

DATA = Path(__file__).parents[1] / "fixtures"
FORMATS = sorted(DATA.glob("format_*.pt"))


def test_a_file_of_every_format_is_kept():
    assert [path.stem for path in FORMATS] == [
        f"format_{n}" for n in range(1, checkpoint.FORMAT + 1)
    ]


@pytest.mark.parametrize("path", FORMATS, ids=lambda path: path.stem)
def test_an_older_checkpoint_gives_the_pictures_that_it_gave(path, tmp_path):
    assert path.stat().st_size < 200_000
    flags = ("--seeds", "0-7", "--mix_seeds", "0", "1", "--precision", "fp32", "--out", tmp_path)
    ended = fork("generate.py", path, *flags).succeeded()
    assert "8 px (50% faded in) after 2 iterations" in ended.out
    now, then = (
        np.asarray(Image.open(file)).astype(int)
        for file in (tmp_path / "sample.png", path.with_suffix(".png"))
    )
    assert now.shape == then.shape
    assert np.abs(now - then).max() <= 2
    assert len(np.unique(then)) > 50
