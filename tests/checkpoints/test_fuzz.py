"""Damaged checkpoints by the hundred: none crashes, hangs or fills the memory."""

import pytest

from tests.support.run import fork


@pytest.mark.parametrize("count", [40, pytest.param(800, marks=pytest.mark.slow)])
def test_damaged_checkpoints_load_or_are_refused(tmp_path, count):
    """For many more: python tests/support/fuzz_checkpoint.py FOLDER 100000."""
    ended = fork("tests/support/fuzz_checkpoint.py", tmp_path, count)
    assert ended.code == 0, (ended.out, ended.err)
    assert ended.out.rstrip().endswith(f"{count} inputs, 0 bad")
