"""Chooses photos by lists and tables, and says of every row what became of it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from common.cli import UserError
from data.lmdb_format import printable
from data.mismatch import why_nothing_is_met
from data.names import Names, SourceNames
from data.selection import Photo, Report
from data.tables import Row, Wanted, no_header, shown
from data.texts import readable

CHOSEN = "chosen"
NO_FILE = "without a file"
NO_NAME = "without a name"
BEFORE = "named before"
UNDECIDED = "named twice with different answers to --where"


@dataclass
class Choice:
    """What a list or table says of each photo and of each of its rows."""

    wanted: Wanted
    met: list[list[int]]  # by row, the photos that its name meets
    naming: dict[int, list[Row]]  # by photo, the rows that name it

    def reason(self, number: int) -> str | None:
        """Return why photo `number` is left out; None if it is chosen."""
        rows = self.naming.get(number)
        if not rows:
            return f"not in {self.wanted.origin}"
        if len({row.is_chosen for row in rows}) > 1:
            return UNDECIDED
        return rows[0].reason

    def outcome(self, row: Row, numbers: list[int], kept: set[int]) -> str:
        """Return what became of a row, whose name meets photos `numbers`, of which some are kept.

        Apart from CHOSEN, it is why there is no photo for it.
        """
        if not numbers:
            return NO_FILE if row.name.strip() else NO_NAME
        reasons = {self.reason(number) for number in numbers}
        if reasons == {UNDECIDED}:
            return UNDECIDED
        if all(self.naming[number][0] is not row for number in numbers):
            return BEFORE
        if None in reasons:
            other = "table" if self.wanted.origin == "the list" else "list"
            return CHOSEN if kept.intersection(numbers) else f"left out by the {other}"
        return row.reason or UNDECIDED

    def outcomes(self, kept: set[int]) -> list[str]:
        """Return the outcome of each row; `kept` are the photos that all wanted choose."""
        pairs = zip(self.wanted.rows, self.met, strict=True)
        return [self.outcome(row, numbers, kept) for row, numbers in pairs]


def select(
    sources: list[list[Photo]], wanted: Sequence[Wanted], report: Report
) -> list[list[Photo]]:
    """Return the photos of each source that all the lists and tables choose.

    The others are reported, and so are names without a file. Raises UserError if nothing is chosen.
    """
    photos = [photo for found in sources for photo in found]
    if not wanted or not photos:
        return sources
    names = _index(sources)
    choices = [_choose(each, names, photos) for each in wanted]
    kept: list[list[Photo]] = [[] for _ in sources]
    numbers = set()
    for number, photo in enumerate(photos):
        reason = next(filter(None, (choice.reason(number) for choice in choices)), None)
        if reason is None:
            kept[photo.source].append(photo)
            numbers.add(number)
        else:
            report.leave_out(photo.path, reason)
    for choice in choices:
        _tell(choice, numbers, len(photos), report)
    if not numbers:
        files = ", ".join(printable(each.path) for each in wanted)
        raise UserError(
            f"{files}: no photo is chosen ({'; '.join(report.notes)}); expected at least one. "
            "Check the names, and --where"
        )
    return kept


def _index(sources: list[list[Photo]]) -> Names:
    names = Names()
    number = 0
    for photos in filter(None, sources):
        source = SourceNames(photos[0].root, photos[0].entry is not None)
        names.sources.append(source)
        for photo in photos:
            for path in photo.names():
                source.add(number, path)
            number += 1
    return names


def _choose(wanted: Wanted, names: Names, photos: list[Photo]) -> Choice:
    """Return what `wanted` says; raise UserError if it meets no photo, or its header meets one."""
    met = [names.find(row.name) for row in wanted.rows]
    if wanted.header and "." in wanted.header[0] and names.find(wanted.header[0]):
        raise UserError(no_header(wanted.path, wanted.header[0]))
    notes = list(wanted.notes)
    if not any(met) and (moved := names.find_moved([row.name for row in wanted.rows])):
        folder, met = moved
        notes.append(f"{wanted.origin} names files in {shown(folder)}, taken to be SRC")
    if not any(met):
        raise UserError(why_nothing_is_met(wanted, names, [photo.path for photo in photos]))
    naming = defaultdict(list)
    for row, numbers in zip(wanted.rows, met, strict=True):
        for number in numbers:
            naming[number].append(row)
    return Choice(replace(wanted, notes=notes), met, dict(naming))


def _tell(choice: Choice, kept: set[int], files: int, report: Report) -> None:
    """Report the rows without a photo of their own, and sum up what became of all rows."""
    origin, rows = choice.wanted.origin, choice.wanted.rows
    outcomes = choice.outcomes(kept)
    reported = {
        NO_FILE: f"no such file, yet in {origin}",
        NO_NAME: f"without a name in {origin}",
        BEFORE: f"named before in {origin}",
    }
    for row, outcome in zip(rows, outcomes, strict=True):
        if outcome in reported:
            name = printable(readable(row.name.strip()))
            report.rows.append((name, f"{reported[outcome]}: row {row.line}"))
    counts = Counter(outcome.partition(":")[0] for outcome in outcomes)
    chosen = counts.pop(CHOSEN, 0)
    parts = [f"{chosen:,} {CHOSEN}", *(f"{count:,} {what}" for what, count in counts.most_common())]
    report.notes.append(
        f"{origin} has {len(rows):,} rows: {', '.join(parts)}; "
        f"{files - len(choice.naming):,} files are not in it"
    )
    if 2 * chosen < len(rows):
        report.notes.append(f"under half of {origin} is chosen: {chosen:,} of {len(rows):,} rows")
    report.notes += [*choice.wanted.notes, *_odd_rows(choice)]


def _odd_rows(choice: Choice) -> list[str]:
    """Return lines about files with rows that differ, and about names of several files."""
    origin, lines = choice.wanted.origin, []
    several = [rows for rows in choice.naming.values() if len(rows) > 1]
    several = [rows for rows in several if len({row.values for row in rows}) > 1]
    if several:
        first, second = several[0][:2]
        lines.append(
            f"{origin} names {len(several):,} files more than once, with different values: "
            f"{shown(first.name)} in rows {first.line} and {second.line}"
        )
    rows = zip(choice.wanted.rows, choice.met, strict=True)
    shared = [row.name for row, numbers in rows if len(numbers) > 1 and row.is_chosen]
    if shared:
        lines.append(
            f"{len(shared):,} names in {origin} are those of several files each, such as "
            f"{shown(shared[0])}: all are taken"
        )
    return lines
