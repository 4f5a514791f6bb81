"""Why the names in a list or table meet no file, and what would make them meet."""

import os
import posixpath
import re
from collections.abc import Callable

from data.lmdb_format import printable
from data.names import Names, spellings
from data.tables import Wanted, shown

PARTS = 3  # of a path that are shown
PROBED = 200  # rows that are searched for names elsewhere than where they should be


def _encoding(path: str) -> str:
    return re.sub(r"[^ -~]+|\?+", "?", path)


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]


def _bare(path: str) -> str:
    return _stem(posixpath.basename(path)).casefold()


# What two names may have in common, from the most to the least, and what it takes to meet.
ALIKE: list[tuple[Callable[[str], str], str]] = [
    (lambda path: path.strip("\"'`,; "), "the name alone. Remove the quotes around the names"),
    (str.casefold, "the same capital letters. Correct the names"),
    (_encoding, "the same letters, so an encoding is wrong. Save the names as UTF-8"),
    (_stem, "the same ending. Correct the names"),
    (
        posixpath.basename,
        "the path within SRC, its last parts, or SRC's own name before it. Give another folder as "
        "SRC, or correct the names",
    ),
    (_bare, "the same name from the last folder to the ending. Correct the names"),
    (lambda path: _bare(path).lstrip("0"), "all of the name, with zeros and ending. Correct it"),
]


def why_nothing_is_met(wanted: Wanted, names: Names, paths: list[bytes]) -> str:
    """Return the message about a list or table that meets none of the files at `paths`."""
    start = f"{printable(wanted.path)}: none of its {len(wanted.rows):,} names is that of a file"
    elsewhere = _other_column(wanted, names) or _more_than_a_name(wanted, names)
    if elsewhere:
        return f"{start}; {elsewhere}"
    said = [(row.name.strip(), spellings(os.fsencode(row.name.strip()))) for row in wanted.rows]
    for alike, expected in ALIKE:
        files = {alike(path): number for path, number in _paths(names)}
        for name, readings in said:
            for reading in readings:
                number = files.get(alike(reading)) if alike(reading) else None
                if number is not None:
                    return (
                        f"{start}: it has {shown(name)}, and there is "
                        f"{_shown_path(paths[number])}; expected {expected}"
                    )
    return (
        f"{start}: it has {shown(wanted.rows[0].name.strip())}, and there is "
        f"{_shown_path(paths[0])}; expected paths within SRC, or their last parts. Check "
        "that they belong together"
    )


def _shown_path(path: bytes) -> str:
    """Return the last parts of a file's path, as messages show them."""
    return shown("/".join(os.fsdecode(path).split("/")[-PARTS:]))


def _paths(names: Names) -> list[tuple[str, int]]:
    """Return the paths that names may state, the longest last, each with a file's number."""
    found = [*(source.ends for source in names.sources), *(s.whole for s in names.sources)]
    return [(path, numbers[0]) for paths in found for path, numbers in paths.items()]


def _other_column(wanted: Wanted, names: Names) -> str | None:
    """Return what to do if another column of a table names files."""
    for place, column in enumerate(wanted.header[1:]):
        for row in wanted.rows[:PROBED]:
            if names.find(row.values[place]):
                return (
                    f"expected them in column {shown(wanted.header[0])}, yet {shown(column)} has "
                    f"{shown(row.values[place])}. Add --key {printable(column)}"
                )
    return None


def _more_than_a_name(wanted: Wanted, names: Names) -> str | None:
    """Return what to do if the lines of a list hold more than a name."""
    if wanted.header:
        return None
    for row in wanted.rows[:PROBED]:
        parts = [part.strip("\"' {}[]") for part in re.split(r"[,;:|\s]", row.name)]
        if sum(map(bool, parts)) > 1 and any(map(names.find, parts)):
            return (
                f"expected a name alone in each line, and line {row.line} is {shown(row.name)}. "
                "Give a table as --table"
            )
    return None
