"""How names in lists and tables meet files: one rule for all of them.

A name meets a file if it is the file's path within its source, or the last parts of it. It may also
begin with more: folders of any machine, as long as the last of them is the source's own name and
what follows is the whole path within. Paths are compared after `normalized`. If a list of absolute
paths meets nothing, their common folder stands for the source: `find_moved`.
"""

import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

from data.texts import CODE_PAGES

NOTHING: list[int] = []  # one for all names that meet no file: there may be 200,000
ABSOLUTE = re.compile(r"\s*([A-Za-z]:)?[\\/]")


def normalized(path: str) -> str:
    """Return `path` with / between its parts, in NFC, without a drive, ./, .. and double /."""
    if path.isascii() and not re.search(r"[\\/]|^\.", path):
        return path  # the usual case: a bare name
    parts: list[str] = []
    for part in re.sub(r"^[A-Za-z]:(?=/)", "", path.replace("\\", "/")).split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return unicodedata.normalize("NFC", "/".join(parts))


def spellings(name: bytes) -> list[str]:
    """Return what a path may say, the likeliest first, normalized.

    There is one reading of UTF-8. Other bytes may be meant as they are, or in a code page.
    """
    try:
        return [normalized(name.decode("utf-8"))]
    except UnicodeDecodeError:
        return [normalized(os.fsdecode(name)), *map(normalized, in_code_pages(name))]


def in_code_pages(name: bytes) -> list[str]:
    """Return the readings of bytes in the code pages in which they mean something."""
    readings = []
    for page in CODE_PAGES:
        try:
            readings.append(name.decode(page))
        except UnicodeDecodeError:
            continue
    return list(dict.fromkeys(readings))


class SourceNames:
    """The paths of one source's files, each with the files' numbers."""

    def __init__(self, root: bytes, is_zipped: bool) -> None:
        path = Path(os.fsdecode(root))
        folders = [path.absolute(), path.resolve()]
        # A zip of faces was made from, or will be unpacked to, a folder of faces.
        folders += [folder.with_suffix("") for folder in folders if is_zipped and folder.stem]
        self.folders = list({tuple(normalized(str(folder)).split("/")) for folder in folders})
        self.whole: dict[str, list[int]] = defaultdict(list)
        self.ends: dict[str, list[int]] = defaultdict(list)

    def add(self, number: int, path: str) -> None:
        """Add a file by its normalized path."""
        self.whole[path].append(number)
        parts = path.split("/")
        for start in range(1, len(parts)):
            self.ends["/".join(parts[start:])].append(number)

    def within(self, path: str) -> list[int]:
        """Return the files whose path is `path`, or else those whose path ends with it."""
        return self.whole.get(path) or self.ends.get(path, NOTHING)

    def below(self, path: str) -> tuple[int, list[int]]:
        """Return the files that `path` names by the source's own name and the path within.

        With them, how many parts before the path within agree with those of the source.
        """
        parts = path.split("/")
        for start in range(1, len(parts)):
            agreement = max(_common_end(parts[:start], folder) for folder in self.folders)
            found = self.whole.get("/".join(parts[start:])) if agreement else None
            if found:
                return agreement, found
        return 0, []


class Names:
    """Finds files by the names in lists and tables."""

    def __init__(self) -> None:
        self.sources: list[SourceNames] = []

    def find(self, name: str) -> list[int]:
        """Return the numbers of the files that a name in a list or table meets.

        Of several readings of the name, the first that meets any file counts.
        """
        readings = spellings(os.fsencode(name))
        if name != name.strip():
            readings += spellings(os.fsencode(name.strip()))
        return next(filter(None, map(self._find, readings)), NOTHING)

    def _find(self, path: str) -> list[int]:
        if not path:
            return NOTHING
        found, below = [], []
        for source in self.sources:
            within = source.within(path)
            found += within
            if not within and "/" in path:
                below.append(source.below(path))
        # Of sources of the same name, a path means the one that it agrees with most.
        best = max((agreement for agreement, _ in below), default=0)
        for agreement, numbers in below:
            found += numbers if agreement == best else []
        return list(dict.fromkeys(found)) or NOTHING

    def find_moved(self, names: list[str]) -> tuple[str, list[list[int]]] | None:
        """Return the files meant by absolute paths of another machine, and the folder there.

        That is a folder above all of them, in place of the only source: the one in which the most
        are found, by their whole paths within. None if there is no such folder, or if it is here.
        """
        if len(self.sources) != 1 or not all(map(ABSOLUTE.match, names)):
            return None
        paths = [spellings(os.fsencode(name.strip())) for name in names]
        whole = self.sources[0].whole
        common = posixpath.commonpath([posixpath.dirname(readings[0]) for readings in paths])
        best: tuple[str, list[list[int]]] | None = None
        parts = common.split("/") if common else []
        for length in range(1, len(parts) + 1):
            start = len("/".join(parts[:length])) + 1
            found = [
                next((whole[path[start:]] for path in readings if path[start:] in whole), [])
                for readings in paths
            ]
            if sum(map(bool, found)) > (sum(map(bool, best[1])) if best else 0):
                best = "/".join(parts[:length]), found
        return None if best is None or os.path.isdir(f"/{best[0]}") else best


def _common_end(left: list[str], right: tuple[str, ...]) -> int:
    count = 0
    while count < min(len(left), len(right)) and left[-1 - count] == right[-1 - count]:
        count += 1
    return count
