"""Faces drawn by demo/draw_faces.py."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def draw_faces(folder: Path, count: int) -> Path:
    """Draw `count` faces of each set at 64 px into `folder`, and return it."""
    script = [sys.executable, str(ROOT / "demo" / "draw_faces.py"), str(folder)]
    subprocess.run([*script, "--count", str(count), "--size", "64"], check=True)
    return folder
