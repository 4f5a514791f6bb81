"""Lists and tables of file names, and conditions on a table's rows.

A table is CelebA's list_attr_celeba.txt, a CSV with a header, or JSON lines. The latter two may be
Hugging Face's metadata.csv and metadata.jsonl, whose column file_name names the files.
"""

import csv
import json
import operator
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.cli import UserError
from data.lmdb_format import printable
from data.photos import PhotoError
from data.zips import Member, is_archive, open_member

FILE_NAME = "file_name"  # the column of Hugging Face's tables that names the files
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Condition:
    """A condition of --where on a row, such as Young=-1, Age>=40 or Hair!=grey."""

    column: str
    sign: str
    value: str

    def __str__(self) -> str:
        return f"{self.column}{self.sign}{self.value}"

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Return the condition written as `text`; raise ValueError if it is none."""
        match = re.fullmatch(r"\s*(.+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", text)
        if match is None:
            raise ValueError(f"{text!r} is not a condition; expected COLUMN=VALUE, or != < > <= >=")
        condition = cls(*match.groups())
        if condition.sign not in ("=", "!=") and _number(condition.value) is None:
            raise ValueError(f"{text!r} has no number after {match[2]}; expected one")
        return condition

    def holds(self, cell: str) -> bool:
        """Return whether a cell of the column meets it; two numbers are compared as numbers."""
        left, right = _number(cell), _number(self.value)
        if left is not None and right is not None:
            return OPERATORS[self.sign](left, right)
        if self.sign in ("=", "!="):
            return (cell == self.value) == (self.sign == "=")
        return False


@dataclass(frozen=True)
class Wanted:
    """The names in a list or table, and those of them that --where chooses."""

    origin: str  # for messages: "the list", "the table"
    names: frozenset[str]
    chosen: frozenset[str]


def read_list(path: Path) -> Wanted:
    """Return the names in a text file with one name per line; all are chosen."""
    names = frozenset(line.strip() for line in _lines(path)) - {""}
    if not names:
        raise UserError(f"{printable(path)}: no names in it; expected one per line. Check the file")
    return Wanted("the list", names, names)


def read_table(path: Path, key: str | None, conditions: Sequence[Condition]) -> Wanted:
    """Return the names in a table, and those in rows that meet all conditions.

    `key` is the column of the names; by default it is file_name, or else the first column. Raises
    UserError.
    """
    header, rows = _table(path)
    key = key or (FILE_NAME if FILE_NAME in header else None)
    column = _column(path, header, key, "--key") if key else 0
    tests = [(_column(path, header, c.column, "--where"), c) for c in conditions]
    names, chosen = set(), set()
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise UserError(
                f"{printable(path)}: row {number} has {len(row)} values; expected "
                f"{len(header)}, as in the header. Correct the table"
            )
        name = row[column].removeprefix("./")
        names.add(name)
        if all(condition.holds(row[place]) for place, condition in tests):
            chosen.add(name)
    return Wanted("the table", frozenset(names), frozenset(chosen))


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a table, cells as text."""
    lines = _lines(path)
    first = next((line for line in lines if line.strip()), "")
    if first.strip().isdigit():  # CelebA: a count, the columns, the rows
        _, columns, *cells = [line.split() for line in lines if line.strip()] + [[]]
        header, rows = ["file", *columns], [row for row in cells if row]
    elif path.suffix.lower() == ".jsonl" or first.lstrip().startswith("{"):
        header, rows = _json_lines(path, lines)
    else:
        header, rows = _csv(path, lines, max(",;\t", key=first.count))
    if not rows:
        raise UserError(
            f"{printable(path)}: no rows in it; expected a header and rows. Check the file"
        )
    return header, rows


def _csv(path: Path, lines: list[str], delimiter: str) -> tuple[list[str], list[list[str]]]:
    try:  # a quoted cell may span several lines
        rows = list(csv.reader([f"{line}\n" for line in lines], delimiter=delimiter))
    except csv.Error as error:
        raise UserError(
            f"{printable(path)}: cannot be read as a table ({error}); expected a CSV with a "
            "header. Check the file"
        ) from None
    rows = [[cell.strip() for cell in row] for row in rows]
    rows = [row for row in rows if any(row)]
    return (rows[0], rows[1:]) if rows else ([], [])


def _json_lines(path: Path, lines: list[str]) -> tuple[list[str], list[list[str]]]:
    """Return JSON objects, one per line, as a header and rows; keys that one lacks are empty."""
    objects: list[dict[str, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entries = dict(json.loads(line).items())
            objects.append({_cell(name): _cell(value) for name, value in entries.items()})
        except (ValueError, AttributeError, RecursionError):  # not JSON, not an object, not Unicode
            raise UserError(
                f"{printable(path)}: line {number} is not a JSON object; expected one such as "
                f'{{"{FILE_NAME}": "0001.png", "age": 40}}. Correct the table'
            ) from None
    header = list(dict.fromkeys(name for entries in objects for name in entries))
    return header, [[entries.get(name, "") for name in header] for entries in objects]


def _cell(value: object) -> str:
    """Return a JSON value as a cell: strings as they are, null as "", others as JSON."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    os.fsencode(text)  # raises UnicodeEncodeError for half of a surrogate pair
    return text.strip()


def _lines(path: Path) -> list[str]:
    try:
        content = _read(path)
    except (OSError, PhotoError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{printable(path)}: cannot be read ({reason}); expected a text file. Check the name"
        ) from None
    # File names may be any bytes; spreadsheets put a byte order mark first.
    text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    return [line.removesuffix("\r") for line in text.split("\n")]


def _read(path: Path) -> bytes:
    """Return the content of a file, or of a member of a zip if `path` is ZIP/member."""
    try:
        return path.read_bytes()
    except NotADirectoryError:
        archive = next(parent for parent in path.parents if parent.exists())
        if not is_archive(archive):
            raise
        name = os.fsencode(path.relative_to(archive))
        return open_member(Member(os.fsencode(archive), name)).read()


def _column(path: Path, header: list[str], name: str, flag: str) -> int:
    if name not in header:
        known = ", ".join(header[:50])
        raise UserError(
            f"{flag} {name}: no such column in {printable(path)}; expected one of {known}. "
            "Check the name"
        )
    return header.index(name)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
