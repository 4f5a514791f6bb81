"""What the repository promises of itself: small pieces, imports that go down, nobody's machine."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FUNCTION_LINES, MODULE_LINES = 60, 350
ROOMS = {"common", "ops", "data", "checkpoints", "sampling", "outputs", "metrics"}
ROOMS |= {"training", "web"}
SCRIPTS = {"prepare_data", "train", "generate", "project", "evaluate", "export", "explore"}
FOLDERS = (".", *sorted(ROOMS), "demo", "benchmarks", "experiments")
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


def imported(path: Path) -> set[str]:
    """Return the first names of all modules that a file imports anywhere, also in functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def contracts() -> dict[str, set[str]]:
    """Return what each room may import, as CONTRIBUTING.md draws it."""
    rows = re.findall(
        r"^\| `(\w+)` \| .* \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    return {room: set(re.findall(r"\w+", others)) for room, others in rows}


def test_rooms_import_what_the_drawing_says_and_each_lies_below_the_rooms_it_imports():
    drawn = contracts()
    rooms = list(drawn)
    assert ROOMS | {"model", "critic", "dataset"} == set(rooms)
    for room, others in drawn.items():
        assert all(rooms.index(other) < rooms.index(room) for other in others), room
        files = [ROOT / f"{room}.py"] if room not in ROOMS else (ROOT / room).glob("*.py")
        ours = set().union(*map(imported, files)) & (drawn.keys() | SCRIPTS) - {room}
        assert ours == others, room


def test_only_tests_import_scripts_and_a_script_calls_one_room():
    for name in SCRIPTS:
        assert len(imported(ROOT / f"{name}.py") & (ROOMS - {"common"})) == 1, name
    others = [path for path in PROGRAMS if path.stem not in SCRIPTS]
    assert [str(path) for path in others if imported(path) & SCRIPTS] == []


def test_a_room_begins_with_its_contract():
    for room in ROOMS:
        (docstring,) = ast.parse((ROOT / room / "__init__.py").read_text()).body
        assert isinstance(docstring, ast.Expr), room


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
