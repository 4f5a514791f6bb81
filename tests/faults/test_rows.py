"""Every row of the list of faults has a test, named after it, that runs the real command."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROWS = {f"{part}{n:02d}" for part, n in (("p", 29), ("t", 28), ("g", 15)) for n in range(1, n + 1)}
STARTS = {"run", "fork", "start", "peak_megabytes", "LongRun"}  # what starts a script


def called(function: ast.FunctionDef) -> set[str]:
    """Return the names of what a function calls."""
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return {name.id for name in calls if isinstance(name, ast.Name)}


def test_each_of_the_72_rows_has_a_test_that_runs_the_command() -> None:
    """P1-P29 prepare_data.py, T1-T28 train.py, G1-G15 generate.py: test_p01_..., with its row."""
    functions = [
        node
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    starting = set(STARTS)
    for _ in range(3):  # through functions that call one another
        starting |= {each.name for each in functions if called(each) & starting}
    rows: dict[str, list[ast.FunctionDef]] = defaultdict(list)
    for each in functions:
        if row := re.match(r"test_([ptg]\d\d)_", each.name):
            rows[row[1]].append(each)
    assert rows.keys() == ROWS
    assert len(ROWS) == 72
    for row, tests in rows.items():
        label = f"{row[0].upper()}{int(row[1:])}"
        assert all(re.match(rf"{label}\b", ast.get_docstring(test) or "") for test in tests), row
        assert any(test.name in starting for test in tests), row
