"""What the repository promises of itself: small pieces, imports that go down, nobody's machine."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FUNCTION_LINES, MODULE_LINES = 60, 400
ROOMS = (
    "common",
    "ops",
    "data",
    "checkpoints",
    "sampling",
    "outputs",
    "metrics",
    "training",
    "web",
)
FOLDERS = (".", *ROOMS, "demo", "benchmarks", "experiments")
PROGRAMS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py"))

MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|work|Users|mnt|media)/\w")
INDEX_URL = re.compile(
    r"index[-_]url[ =\"']+(?!https://(?:pypi|download\.pytorch)\.org/)\S|trusted-hos[t]"
)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_functions_and_modules_keep_to_their_budgets(path: Path):
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name


def test_no_tracked_file_names_a_machine():
    git = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if git.returncode:
        pytest.skip("not a git checkout")
    for name in git.stdout.decode().split("\0")[:-1]:
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):  # a picture; or removed, not committed
            continue
        for pattern in (MACHINE_PATH, INDEX_URL):
            found = pattern.search(text)
            assert not found, f"{name}: {found and found[0]}"
