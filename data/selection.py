"""Finds the files of the sources, spreads a choice evenly, and reports what is left out.

A source is a folder, a zip or a photo. data/choice.py chooses by lists and tables.
"""

import csv
import os
import random
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from data.lmdb_format import printable
from data.names import spellings
from data.zips import Entry, Member, is_archive, list_members

# Tables beside the photos in NVIDIA's and Hugging Face's data sets.
LABELS = (b"dataset.json", b"metadata.csv", b"metadata.jsonl")
RESOURCES = b"__MACOSX"  # where macOS puts what its zips hold besides the files


@dataclass(frozen=True)
class Photo:
    """A file that was found in a folder or in a zip."""

    source: int  # index of its source
    root: bytes  # the source's folder or zip
    relative: bytes  # its path within
    entry: Entry | None = None  # in a zip

    @property
    def place(self) -> bytes | Member:
        """Return where to open it."""
        return self.entry.member if self.entry else self.path

    @property
    def path(self) -> bytes:
        """Return its path for reports: in a zip, the path of the zip and the name within."""
        member = Member(self.root, self.relative)
        return member.path if self.entry else os.path.join(self.root, self.relative)

    def names(self) -> list[str]:
        """Return what its path may say, for comparing it with names in a list or table."""
        readings = spellings(self.relative)
        if self.entry and self.entry.raw:
            readings += spellings(self.entry.raw)
        return list(dict.fromkeys(readings))


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

    Databases, links to folders, names that begin with a dot and __MACOSX are passed over, and so
    are tables of labels. Raises UserError for a zip that cannot be read.
    """
    root = os.fsencode(source)
    if source.is_dir():
        found = [Photo(index, root, path) for path in sorted(_search_folder(root, report))]
    elif is_archive(source):
        # By the names that zipfile gives them, as ever: the order decides how a run goes.
        entries = sorted(_search_zip(source, report), key=lambda entry: entry.member)
        found = [Photo(index, root, entry.relative, entry) for entry in entries]
    else:
        return [Photo(index, os.path.dirname(root), os.path.basename(root))]
    photos = []
    for photo in found:
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
            if name.startswith(b".") or name == RESOURCES:
                continue
            if os.path.islink(path):
                report.leave_out(path, "a link to a folder")
            else:
                entered.append(name)
        subfolders[:] = entered
        paths = (os.path.join(folder, name) for name in files if not name.startswith(b"."))
        found += [os.path.relpath(path, root) for path in paths]
    return found


def _search_zip(source: Path, report: Report) -> list[Entry]:
    """Return the members that a search of the unpacked zip would find."""
    members = list_members(source)
    entries = {entry.member: entry for entry in members}
    counts = Counter(entry.member for entry in members)
    paths = [entry.relative for entry in members]
    databases = {os.path.dirname(path) for path in paths if os.path.basename(path) == b"data.mdb"}
    met, found = set(), []
    for member, entry in entries.items():
        parts = entry.relative.split(b"/")
        within = [b"/".join(parts[:n]) for n in range(len(parts))]  # outermost folder first
        path = Member(member.archive, entry.relative).path
        if entry.relative.startswith(b"/") or b".." in parts:
            report.leave_out(path, "its name leads out of the zip")
        elif any(part == RESOURCES or (part[:1] == b"." and part != b".") for part in parts):
            continue
        elif databases.intersection(within):
            met.add(next(folder for folder in within if folder in databases))
        else:
            found.append(entry)
            if counts[member] > 1:
                report.leave_out(path, "another of the same name comes after it in the zip")
    for folder in sorted(met):
        report.leave_out(Member(os.fsencode(source), folder).path, "a database")
    return found


def evenly_spaced(count: int, wanted: int, seed: int) -> list[int]:
    """Return `wanted` of the numbers 0 to count - 1, one drawn from each of as many equal parts.

    If `wanted` is `count` or more, these are all the numbers.
    """
    if wanted >= count:
        return list(range(count))
    random_ = random.Random(seed)
    bounds = [part * count // wanted for part in range(wanted + 1)]
    return [start + int(random_.random() * (end - start)) for start, end in pairwise(bounds)]
