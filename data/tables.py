"""Lists and tables of file names, row by row, and which rows --where chooses.

A table is CelebA's list_attr_celeba.txt, a CSV with a header, or JSON: an object per line, or one
array of objects. It may be Hugging Face's metadata.csv or .jsonl, whose column file_name names the
files. data/formats.py reads all of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.cli import UserError
from data.conditions import Condition, has_decimal_commas, number
from data.formats import FILE_NAME, IMAGE, Table, read_rows
from data.lmdb_format import printable
from data.texts import read_lines, readable

NOT_CHOSEN = "not chosen by --where"
SHOWN = 5  # values of a column that a message shows


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a list or table."""

    line: int
    name: str  # as it is written
    reason: str | None = None  # why --where does not choose it
    cells: Sequence[str] = ()  # in a table, the name among them
    place: int = 0  # of the name

    @property
    def is_chosen(self) -> bool:
        """Return whether --where chooses it."""
        return self.reason is None

    @property
    def values(self) -> tuple[str, ...]:
        """Return its cells apart from the name."""
        return (*self.cells[: self.place], *self.cells[self.place + 1 :])


@dataclass(frozen=True)
class Wanted:
    """The rows of a list or table."""

    origin: str  # for messages: "the list", "the table"
    path: Path
    rows: Sequence[Row]
    header: Sequence[str] = ()  # of a table: the column of the names, and those of the other cells
    notes: Sequence[str] = field(default=())  # for the summary


def read_list(path: Path) -> Wanted:
    """Return the names in a text file with one name per line; all are chosen."""
    lines = enumerate(read_lines(path), start=1)
    rows = [Row(number_, line) for number_, line in lines if line.strip()]
    if not rows:
        raise UserError(f"{printable(path)}: no names in it; expected one per line. Check the file")
    return Wanted("the list", path, rows)


def read_table(path: Path, key: str | None, conditions: Sequence[Condition]) -> Wanted:
    """Return the rows of a table, each with the reason if it does not meet all conditions.

    `key` is the column of the names; by default it is file_name, or else the first column. Raises
    UserError, also if no row meets the conditions.
    """
    table = read_rows(path, key)
    place = _place(table, key)
    columns = [_column(table, c.column, "--where") for c in conditions]
    judged = [_judge(table, c, column) for c, column in zip(conditions, columns, strict=True)]
    rows = []
    for index, (line, cells) in enumerate(table.rows):
        reasons = [reason for reason in (reasons[index] for reasons in judged) if reason]
        reason = NOT_CHOSEN if NOT_CHOSEN in reasons else next(iter(reasons), None)
        rows.append(Row(line, cells[place], reason, cells, place))
    if not any(row.is_chosen for row in rows):
        raise UserError(_nothing_chosen(table, conditions, columns, judged))
    notes = list(table.notes)
    for condition, column in zip(conditions, columns, strict=True):
        notes += _no_numbers(table, condition, column)
    header = (table.header[place], *table.header[:place], *table.header[place + 1 :])
    return Wanted("the table", path, rows, header, notes)


def _place(table: Table, key: str | None) -> int:
    """Return the column of the names; raise UserError if a table seems to have no header."""
    default = table.header.index(FILE_NAME) if FILE_NAME in table.header else 0
    named = next((cell for cell in table.header if IMAGE.search(cell)), None)
    if named is not None and key not in table.header:
        raise UserError(no_header(table.path, named))
    return default if key is None else _column(table, key, "--key")


def no_header(path: Path, name: str) -> str:
    """Return the message about a table whose first row names a file."""
    return (
        f"{printable(path)}: the first row names a file, {printable(name)}; expected a header "
        "above it, such as file_name,age. Add one, or give a file of bare names as --list"
    )


def _column(table: Table, name: str, flag: str) -> int:
    name = readable(name)
    if name not in table.header:
        known = ", ".join(map(printable, table.header[:50]))
        raise UserError(
            f"{flag} {name}: no such column in {printable(table.path)}; expected one of {known}. "
            "Check the name"
        )
    return table.header.index(name)


def _cells(table: Table, column: int) -> list[str]:
    return [readable(cells[column]).strip() for _, cells in table.rows]


def _judge(table: Table, condition: Condition, column: int) -> list[str | None]:
    """Return for each row why it does not meet a condition, or None."""
    cells = _cells(table, column)
    commas = has_decimal_commas(cells)
    reasons: list[str | None] = []
    for cell in cells:
        holds = condition.holds(cell, commas)
        if holds is None:
            what = f"no number in {condition.column}: {cell}" if cell else None
            reasons.append(what or f"no value in {condition.column}")
        else:
            reasons.append(None if holds else NOT_CHOSEN)
    return reasons


def _no_numbers(table: Table, condition: Condition, column: int) -> list[str]:
    """Return a line about values that are no numbers, if the condition compares numbers."""
    cells = _cells(table, column)
    commas = has_decimal_commas(cells)
    odd = [i for i, cell in enumerate(cells) if cell and number(cell, commas) is None]
    # hair=3 in a column of words compares text.
    if condition.number is None or not odd or (len(odd) == len(cells) and not condition.orders):
        return []
    how = "left out" if condition.orders else "compared as text"
    return [
        f"{condition}: {how}, since no numbers: {len(odd):,} values, such as "
        f"{shown(cells[odd[0]])} in {table.unit} {table.rows[odd[0]][0]}"
    ]


def _nothing_chosen(
    table: Table,
    conditions: Sequence[Condition],
    columns: Sequence[int],
    judged: Sequence[list[str | None]],
) -> str:
    """Return the message about a table in which no row meets the conditions."""
    text = " and ".join(map(str, conditions))
    held = "each condition is met, but none of the rows meets all"
    for column, reasons in zip(columns, judged, strict=True):
        if None not in reasons:
            values = list(dict.fromkeys(_cells(table, column)))
            more = ", ..." if len(values) > SHOWN else ""
            held = f"{table.header[column]} holds {', '.join(map(shown, values[:SHOWN]))}{more}"
            break
    return (
        f"{printable(table.path)}: none of its {len(table.rows):,} rows meets {text}; {held}. "
        "Check --where"
    )


def shown(text: str) -> str:
    """Return a value as messages show it: quoted, on one line, and without its middle if long."""
    text = re.sub(r"\s+", " ", readable(text))
    return f"'{printable(text if len(text) <= 80 else f'{text[:30]}...{text[-40:]}')}'"
