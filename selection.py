"""Which files are taken: the search for them, lists and tables of names, and a report of the rest.

Names in lists and tables are paths relative to the source folder, or bare file names.
"""

import csv
import operator
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
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


@dataclass(frozen=True)
class Photo:
    """A file that was found."""

    source: int  # which of the sources it is from
    root: bytes  # the folder of that source
    relative: bytes  # its path within

    @property
    def path(self) -> bytes:
        """The path to open it by."""
        return os.path.join(self.root, self.relative)

    def names(self) -> set[str]:
        """Return the names by which a list may call it."""
        return {os.fsdecode(self.relative), os.fsdecode(os.path.basename(self.relative))}


class Report:
    """Which files were left out, and why."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []

    def leave_out(self, path: bytes, reason: str) -> None:
        """Note a file; what follows a colon in the reason is a detail, not counted apart."""
        self.rows.append((printable(path), printable(reason)))
        self.counts[reason.partition(":")[0]] += 1

    def reasons(self) -> str:
        """Return how many files were left out for each reason, the most frequent first."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.counts.most_common())

    def save(self, path: Path) -> None:
        """Write the rows as CSV."""
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "reason"), *self.rows])


def find_photos(index: int, source: Path, report: Report) -> list[Photo]:
    """Return the files of source number `index`, sorted by the bytes of their paths.

    Databases are not searched, nor links to folders, nor what begins with a dot.
    """
    root = os.fsencode(source)
    if not source.is_dir():
        return [Photo(index, os.path.dirname(root), os.path.basename(root))]
    found = []

    def unreadable(error: OSError) -> None:
        report.leave_out(os.fsencode(error.filename), f"cannot be read: {error.strerror}")

    for folder, subfolders, files in os.walk(root, onerror=unreadable):
        if b"data.mdb" in files:  # its contact sheet is no photo
            report.leave_out(folder, "a database")
            subfolders.clear()
            continue
        entered = []
        for name in subfolders:
            path = os.path.join(folder, name)
            if name.startswith(b"."):
                continue
            if os.path.islink(path):
                report.leave_out(path, "a link to a folder")
            else:
                entered.append(name)
        subfolders[:] = entered
        paths = (os.path.join(folder, name) for name in files if not name.startswith(b"."))
        found += [os.path.relpath(path, root) for path in paths]
    return [Photo(index, root, relative) for relative in sorted(found)]


def select(sources: list[list[Photo]], wanted: Wanted, report: Report) -> list[list[Photo]]:
    """Return the photos that a list or table wants; the others and what is missing are reported."""
    kept: list[list[Photo]] = [[] for _ in sources]
    present: set[str] = set()
    strangers = 0
    for photo in (photo for photos in sources for photo in photos):
        names = photo.names()
        present |= names
        if names & wanted.chosen:
            kept[photo.source].append(photo)
        elif names & wanted.names:
            report.leave_out(photo.path, "not chosen by --where")
        else:
            report.leave_out(photo.path, f"not in {wanted.origin}")
            strangers += 1
    missing = sorted(wanted.chosen - present)
    report.rows += [(printable(name), f"no such file, yet in {wanted.origin}") for name in missing]
    report.notes.append(
        f"{wanted.origin} has {len(wanted.names):,} names, {len(wanted.names - present):,} of them "
        f"without a file; {strangers:,} files are not in it"
    )
    return kept


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


def spread(count: int, wanted: int, seed: int) -> list[int]:
    """Return `wanted` of the places 0 to count - 1: one from each of as many equal parts."""
    if wanted >= count:
        return list(range(count))
    random_ = random.Random(seed)
    bounds = [part * count // wanted for part in range(wanted + 1)]
    return [start + int(random_.random() * (end - start)) for start, end in pairwise(bounds)]


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
