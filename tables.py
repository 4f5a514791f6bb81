"""Lists and tables of file names, and conditions on a table's rows."""

import csv
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from database import printable

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}


class SelectionError(Exception):
    """A list, table or condition that cannot be used; its text is the whole message."""


@dataclass(frozen=True)
class Condition:
    """What --where asks of a row: Young=-1, Age>=40, Hair!=grey."""

    column: str
    sign: str
    value: str

    def __str__(self) -> str:
        return f"{self.column}{self.sign}{self.value}"

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Return the condition that `text` states; raise ValueError if it states none."""
        match = re.fullmatch(r"\s*(.+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", text)
        if match is None:
            raise ValueError(f"{text!r} is no condition; expected COLUMN=VALUE, or != < > <= >=")
        condition = cls(*match.groups())
        if condition.sign not in ("=", "!=") and _number(condition.value) is None:
            raise ValueError(f"{text!r} compares with no number; expected one after {match[2]}")
        return condition

    def holds(self, cell: str) -> bool:
        """Return whether a cell of the column fulfils it; two numbers are compared as numbers."""
        left, right = _number(cell), _number(self.value)
        if left is not None and right is not None:
            return OPERATORS[self.sign](left, right)
        if self.sign in ("=", "!="):
            return (cell == self.value) == (self.sign == "=")
        return False


@dataclass(frozen=True)
class Wanted:
    """Names that a list or table has, and those of them that are wanted."""

    origin: str  # for messages: "the list", "the table"
    names: frozenset[str]
    chosen: frozenset[str]


def read_list(path: Path) -> Wanted:
    """Return what a text file with one name a line asks for."""
    names = frozenset(line.strip() for line in _lines(path)) - {""}
    if not names:
        raise SelectionError(
            f"{printable(path)}: no names in it; expected one a line. Check the file"
        )
    return Wanted("the list", names, names)


def read_table(path: Path, key: str | None, conditions: Sequence[Condition]) -> Wanted:
    """Return what a table asks for: a CSV with a header, or one in the form of CelebA's."""
    header, rows = _table(path)
    column = _column(path, header, key, "--key") if key else 0
    tests = [(_column(path, header, c.column, "--where"), c) for c in conditions]
    names, chosen = set(), set()
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise SelectionError(
                f"{printable(path)}: row {number} has {len(row)} values; expected "
                f"{len(header)}, as in the header. Correct the table"
            )
        names.add(row[column])
        if all(condition.holds(row[place]) for place, condition in tests):
            chosen.add(row[column])
    return Wanted("the table", frozenset(names), frozenset(chosen))


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    lines = [line for line in _lines(path) if line.strip()]
    if lines and lines[0].strip().isdigit():  # CelebA: a count, the columns, the rows
        header = ["file", *lines[1].split()] if len(lines) > 1 else []
        rows = [line.split() for line in lines[2:]]
    else:
        first = lines[0] if lines else ""
        rows = list(csv.reader(lines, delimiter=max(",;\t", key=first.count)))
        rows = [[cell.strip() for cell in row] for row in rows]
        header, rows = (rows[0], rows[1:]) if rows else ([], [])
    if not rows:
        raise SelectionError(
            f"{printable(path)}: no rows in it; expected a header and rows. Check the file"
        )
    return header, rows


def _lines(path: Path) -> list[str]:
    try:
        # Names of files may be any bytes, and spreadsheets begin their files with a mark.
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise SelectionError(
            f"{printable(path)}: cannot be read ({error.strerror}); expected a text file. "
            "Check the name"
        ) from None
    return [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]


def _column(path: Path, header: list[str], name: str, flag: str) -> int:
    if name not in header:
        known = ", ".join(header[:50])
        raise SelectionError(
            f"{flag} {name}: no such column in {printable(path)}; expected one of {known}. "
            "Check the name"
        )
    return header.index(name)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
