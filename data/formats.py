"""The forms of tables: CelebA's own, CSV and JSON become a header and rows of text."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from common.cli import UserError
from data.lmdb_format import printable
from data.texts import read_lines, readable

FILE_NAME = "file_name"  # the column of Hugging Face's tables that names the files
IMAGE = re.compile(r"\.(jpe?g|jpe|png|webp|gif|bmp|tiff?|avif)\s*$", re.IGNORECASE)
EXAMPLE = f'{{"{FILE_NAME}": "0001.png", "age": 40}}'
DELIMITERS = ",;\t|"
PROBED = 50  # rows by which a delimiter is told from a part of the text

Rows = list[tuple[int, list[str]]]  # each with the number of its line, or of its entry in an array


@dataclass
class Table:
    """The header and rows of a table; each row has as many cells as the header."""

    path: Path
    header: list[str]
    rows: Rows
    unit: str = "line"  # that the numbers of the rows count
    notes: list[str] = field(default_factory=list)  # for the summary


def read_rows(path: Path, key: str | None) -> Table:
    """Return the table in a file; `key` is the column of names, if it was given.

    Raises UserError if it is damaged, or if one column has the name of another.
    """
    lines = read_lines(path)
    first = next((line for line in lines if line.strip()), "").strip()
    if re.fullmatch(r"\d+", first, re.ASCII):
        table = _celeba(path, lines)
    elif first.startswith("["):
        table = _json_array(path, lines)
    elif path.suffix.lower() == ".jsonl" or first.startswith("{"):
        table = _json_lines(path, lines)
    else:
        table = _csv(path, lines, key)
    if not table.rows:
        raise UserError(
            f"{printable(path)}: no rows in it; expected a header and rows. Check the file"
        )
    table.header = [readable(name).strip() for name in table.header]
    _make_even(table)
    for name, count in Counter(table.header).items():
        if name and count > 1:
            _damaged(path, f"{count} columns are called {printable(name)}; expected a name for one")
    return table


def _damaged(path: Path, what: str) -> NoReturn:
    raise UserError(f"{printable(path)}: {what}. Correct the table")


def _make_even(table: Table) -> None:
    """Drop empty cells beyond the header; raise UserError if a row is of another length."""
    width = len(table.header)
    for number, cells in table.rows:
        if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
            del cells[width:]
        if len(cells) != width:
            _damaged(
                table.path,
                f"{table.unit} {number} has {len(cells)} values; expected {width} as in the header",
            )


def _celeba(path: Path, lines: list[str]) -> Table:
    """Read a count, the columns, and rows, all parted by blanks; names may have no column."""
    filled = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    stated = int(filled[0][1][0])
    header = filled[1][1] if len(filled) > 1 else []
    rows = filled[2:]
    if not rows or len(rows[0][1]) != len(header):
        header = ["file", *header]
    notes = []
    if stated != len(rows):
        notes.append(f"the table says that it has {stated:,} rows, and has {len(rows):,}")
    return Table(path, header, rows, notes=notes)


def _csv(path: Path, lines: list[str], key: str | None) -> Table:
    start = next((number for number, line in enumerate(lines) if line.strip()), 0)
    told = re.match(r'"?sep=(.)"?\s*$', lines[start] if lines else "")  # for Excel
    start += told is not None
    delimiter = told[1] if told else _delimiter(lines[start:], key)
    rows = []
    for number, cells, raw in _records(path, lines, start, delimiter):
        if not any(cell.strip() for cell in cells):
            continue
        rows.append((number, cells))
        if raw > 1 and _swallows(cells, rows[0][1], delimiter, key):
            _damaged(
                path,
                f"the quote that opens in line {number} goes on over the rows after it; "
                f"expected its end in that row",
            )
    header = rows[0][1] if rows else []
    while header and not header[-1].strip():
        header.pop()
    return Table(path, header, rows[1:])


def _records(
    path: Path, lines: list[str], start: int, delimiter: str
) -> Iterator[tuple[int, list[str], int]]:
    """Yield the number of each row's first line, its cells, and over how many lines it goes."""
    # A quoted cell may span several lines.
    reader = csv.reader((f"{line}\n" for line in lines[start:]), delimiter=delimiter, strict=True)
    while True:
        before = reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number = start + before + 1
            if "end of data" in str(error):
                what = f"the quote that opens in line {number} is not closed; expected its end"
            else:
                what = f"line {number} cannot be read as a row ({error}); expected a CSV"
            _damaged(path, what)
        yield start + before + 1, cells, reader.line_num - before


def _delimiter(lines: list[str], key: str | None) -> str:
    """Return what parts the columns: of several, what finds the names and gives even rows."""
    first = lines[0] if lines else ""

    def merits(delimiter: str) -> tuple[bool, bool, int]:
        probe = csv.reader((f"{line}\n" for line in lines[:PROBED]), delimiter=delimiter)
        try:
            header, *rows = [cells for cells in probe if cells][: PROBED - 1] or [[]]
        except csv.Error:
            return False, False, 0
        known = bool({key, FILE_NAME} & {readable(name).strip() for name in header})
        even = all(len(cells) == len(header) for cells in rows[:-1] or rows)
        return known, even, first.count(delimiter)

    found = [delimiter for delimiter in DELIMITERS if delimiter in first]
    return max(found, key=merits) if found else ","


def _swallows(cells: list[str], header: list[str], delimiter: str, key: str | None) -> bool:
    """Return whether a line within a quoted cell looks like a row of its own."""
    name = next((name for name in (key, FILE_NAME) if name in header), header[0])
    column = header.index(name)
    within = [line.split(delimiter) for cell in cells for line in cell.split("\n")[1:]]
    return any(len(row) > column and IMAGE.search(row[column]) is not None for row in within)


class _Entries(dict[str, Any]):
    """A JSON object that remembers names given twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.names = [_cell(name) for name, _ in pairs]

    def cells(self) -> dict[str, str]:
        """Return its values as text."""
        return {_cell(name): _cell(value) for name, value in self.items()}


def _json_lines(path: Path, lines: list[str]) -> Table:
    """Return JSON objects, one per line, as a table."""
    objects = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                entries = json.loads(line, object_pairs_hook=_Entries)
            except (ValueError, RecursionError):
                entries = None
            objects.append((number, entries))
    return _json_table(path, "line", objects)


def _json_array(path: Path, lines: list[str]) -> Table:
    """Return an array of JSON objects as a table."""
    try:
        entries = json.loads("\n".join(lines), object_pairs_hook=_Entries)
    except (ValueError, RecursionError) as error:
        place = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "it"
        _damaged(path, f"{place} is damaged; expected a JSON array of objects")
    return _json_table(path, "entry", list(enumerate(entries, start=1)))


def _json_table(path: Path, unit: str, objects: list[tuple[int, Any]]) -> Table:
    """Return a table of JSON objects; keys that one lacks are empty."""
    rows = []
    for number, entries in objects:
        try:
            if len(set(entries.names)) < len(entries.names):
                (name, _), *_ = Counter(entries.names).most_common(1)
                _damaged(path, f"{unit} {number} has {printable(name)} twice; expected it once")
            rows.append((number, entries.cells()))
        except (ValueError, AttributeError, RecursionError):  # no object, or not Unicode
            _damaged(path, f"{unit} {number} is not a JSON object; expected one such as {EXAMPLE}")
    header = list(dict.fromkeys(name for _, cells in rows for name in cells))
    for name in filter(IMAGE.search, header):
        _damaged(path, f"{printable(name)} is a key; expected an object for each file: {EXAMPLE}")
    return Table(
        path,
        header,
        [(number, [cells.get(name, "") for name in header]) for number, cells in rows],
        unit,
    )


def _cell(value: object) -> str:
    """Return a JSON value as a cell: strings as they are, null as "", others as JSON."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    os.fsencode(text)  # raises UnicodeEncodeError for half of a surrogate pair
    return text.strip()
