"""Finds the files of the sources, chooses among them, and reports those left out.

A source is a folder, a zip or a photo. Names in lists and tables are paths relative to the source,
or the last parts of such paths: bare file names, or paths relative to a folder within.
"""

import csv
import os
import random
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from data.lmdb_format import printable
from data.tables import Wanted
from data.zips import Member, is_archive, list_members

# Tables beside the photos in NVIDIA's and Hugging Face's data sets.
LABELS = (b"dataset.json", b"metadata.csv", b"metadata.jsonl")


@dataclass(frozen=True)
class Photo:
    """A file that was found in a folder or in a zip."""

    source: int  # index of its source
    root: bytes  # the source's folder or zip
    relative: bytes  # its path within
    is_zipped: bool = False

    @property
    def place(self) -> bytes | Member:
        """Return where to open it."""
        return Member(self.root, self.relative) if self.is_zipped else self.path

    @property
    def path(self) -> bytes:
        """Return its path for reports: in a zip, the path of the zip and the name within."""
        member = Member(self.root, self.relative)
        return member.path if self.is_zipped else os.path.join(self.root, self.relative)

    def names(self) -> set[str]:
        """Return the names that a list or table may use for it."""
        parts = os.fsdecode(self.relative).split("/")
        return {"/".join(parts[start:]) for start in range(len(parts))}


class Report:
    """Lists the files that were left out, and why."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []

    def leave_out(self, path: bytes, reason: str) -> None:
        """Add a file; what follows a colon in `reason` is a detail and not used for counting."""
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

    Databases, links to folders and names that begin with a dot are passed over, and so are tables
    of labels. Raises UserError for a zip that cannot be read.
    """
    root = os.fsencode(source)
    is_zipped = not source.is_dir() and is_archive(source)
    if is_zipped:
        found = _search_zip(source, report)
    elif source.is_dir():
        found = _search_folder(root, report)
    else:
        return [Photo(index, os.path.dirname(root), os.path.basename(root))]
    photos = []
    for photo in (Photo(index, root, relative, is_zipped) for relative in sorted(found)):
        if os.path.basename(photo.relative) in LABELS:
            report.leave_out(photo.path, "a table, no photo")
        else:
            photos.append(photo)
    return photos


def _search_folder(root: bytes, report: Report) -> list[bytes]:
    """Return the paths of the files in a folder and its subfolders, relative to it."""
    found = []

    def unreadable(error: OSError) -> None:
        report.leave_out(os.fsencode(error.filename), f"cannot be read: {error.strerror}")

    for folder, subfolders, files in os.walk(root, onerror=unreadable):
        if b"data.mdb" in files:  # its contact sheet must not be taken for a photo
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
    return found


def _search_zip(source: Path, report: Report) -> list[bytes]:
    """Return the names of the files that a search of the unpacked zip would find."""
    names = Counter(list_members(source))
    databases = {os.path.dirname(name) for name in names if os.path.basename(name) == b"data.mdb"}
    met, found = set(), []
    for name, count in names.items():
        parts = name.split(b"/")
        within = [b"/".join(parts[:n]) for n in range(len(parts))]  # outermost folder first
        path = Member(os.fsencode(source), name).path
        if name.startswith(b"/") or b".." in parts:
            report.leave_out(path, "its name leads out of the zip")
        elif any(part.startswith(b".") and part != b"." for part in parts):
            continue
        elif databases.intersection(within):
            met.add(next(folder for folder in within if folder in databases))
        else:
            found.append(name)
            if count > 1:
                report.leave_out(path, "another of the same name comes after it in the zip")
    for folder in sorted(met):
        report.leave_out(Member(os.fsencode(source), folder).path, "a database")
    return found


def select(sources: list[list[Photo]], wanted: Wanted, report: Report) -> list[list[Photo]]:
    """Return the photos of each source that a list or table wants.

    The others, and names without a file, are reported.
    """
    kept: list[list[Photo]] = [[] for _ in sources]
    present: set[str] = set()
    unlisted = 0
    for photo in (photo for photos in sources for photo in photos):
        names = photo.names()
        present |= names
        if names & wanted.chosen:
            kept[photo.source].append(photo)
        elif names & wanted.names:
            report.leave_out(photo.path, "not chosen by --where")
        else:
            report.leave_out(photo.path, f"not in {wanted.origin}")
            unlisted += 1
    missing = sorted(wanted.chosen - present)
    report.rows += [(printable(name), f"no such file, yet in {wanted.origin}") for name in missing]
    report.notes.append(
        f"{wanted.origin} has {len(wanted.names):,} names, {len(wanted.names - present):,} of them "
        f"without a file; {unlisted:,} files are not in it"
    )
    return kept


def evenly_spaced(count: int, wanted: int, seed: int) -> list[int]:
    """Return `wanted` of the numbers 0 to count - 1, one drawn from each of as many equal parts.

    If `wanted` is `count` or more, these are all the numbers.
    """
    if wanted >= count:
        return list(range(count))
    random_ = random.Random(seed)
    bounds = [part * count // wanted for part in range(wanted + 1)]
    return [start + int(random_.random() * (end - start)) for start, end in pairwise(bounds)]
