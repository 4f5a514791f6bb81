"""The conditions of --where on the cells of a table, and which cells are numbers."""

import math
import operator
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
COMMA = re.compile(r"([+-]?)(\d+),(\d+)", re.ASCII)


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
        text = unicodedata.normalize("NFC", text)
        match = re.fullmatch(r"\s*([^=<>]+?)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*", text)
        if match is not None and re.match(r"=|[<>]\s*[-+.\d]", match[3]):  # age==40, age=>40
            match = None
        if match is None:
            raise ValueError(f"{text!r} is not a condition; expected COLUMN=VALUE, or != < > <= >=")
        condition = cls(*match.groups())
        if condition.orders and condition.number is None:
            raise ValueError(f"{text!r} has no number after {match[2]}; expected one")
        return condition

    @property
    def orders(self) -> bool:
        """Return whether only numbers can meet it: < > <= >=."""
        return self.sign not in ("=", "!=")

    @property
    def number(self) -> float | None:
        """Return its value as a number, if it is one."""
        return number(self.value, has_decimal_commas([self.value]))

    def holds(self, cell: str, commas: bool = False) -> bool | None:
        """Return whether a cell of the column meets it; None if it would have to be a number.

        Two numbers are compared as numbers, all else as text. `commas`: 40,5 is a number, too.
        """
        left, right = number(cell, commas), self.number
        if left is not None and right is not None:
            return OPERATORS[self.sign](left, right)
        if self.orders:
            return None
        return (cell == self.value) == (self.sign == "=")


def number(text: str, commas: bool = False) -> float | None:
    """Return the number that a cell holds, if any; with `commas`, 40,5 is 40.5."""
    if commas and COMMA.fullmatch(text):
        text = text.replace(",", ".")
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


def has_decimal_commas(cells: Iterable[str]) -> bool:
    """Return whether the commas in a column's numbers are decimal commas.

    1,234 alone could be either; a single 40,5 or 0,125 shows what is meant in the whole column.
    """
    matches = (COMMA.fullmatch(cell) for cell in cells if "," in cell)
    return any(match and (len(match[3]) != 3 or match[2][0] == "0") for match in matches)
