"""Damaged checkpoints by the hundred: none crashes, hangs or fills the memory."""

import sys
from pathlib import Path

from tests.support.run import run


def test_damaged_checkpoints_load_or_are_refused(tmp_path: Path) -> None:
    """For many more: python tests/support/fuzz_checkpoint.py FOLDER 100000."""
    script = Path(__file__).parents[1] / "support" / "fuzz_checkpoint.py"
    ended = run([sys.executable, str(script), str(tmp_path), "400"])
    assert ended.code == 0, (ended.out, ended.err)
    assert ended.out.rstrip().endswith("400 inputs, 0 bad")
