"""What the repository promises of itself: small pieces, imports that go down, nobody's machine."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FUNCTION_LINES, MODULE_LINES = 60, 400
FOLDERS = (".", "demo", "benchmarks", "experiments")
PROGRAMS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py"))

# Each file imports from the rows above its own. The last row is the scripts: none imports them.
LEVELS = [
    "augment command_line convolving device features files growth images loss metrics pages photos"
    " restoring sheets similarity styling wording",
    "archives database film model plots safetensors_file",
    "dataset folding tables workers writer",
    "rosinality selection",
    "checkpoint latents parallel run_folder watchdog",
    "sampling training",
    "best card drawing evaluation image_files meter onnx_file projection recovery settings",
    "directions mixing planning",
    "studio",
    "answers",
    "webpage",
    "evaluate explore export generate prepare_data project train",
]
LEVEL = {name: level for level, row in enumerate(LEVELS) for name in row.split()}

MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|work|Users|mnt|media)/\w")
INDEX_URL = re.compile(
    r"index[-_]url[ =\"']+(?!https://(?:pypi|download\.pytorch)\.org/)\S|trusted-hos[t]"
)


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, also within functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_functions_and_modules_keep_to_their_budgets(path: Path):
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_imports_go_down_only(path: Path):
    assert path.parent != ROOT or path.stem in LEVEL, "a new module needs its place in LEVELS"
    scripts = len(LEVELS) - 1  # the level of the other folders, too
    level = LEVEL[path.stem] if path.parent == ROOT else scripts
    ours = imports(path) & LEVEL.keys()
    assert [name for name in sorted(ours) if LEVEL[name] >= level] == []


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
