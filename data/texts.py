"""Text files as lines, in whatever encoding they were saved.

Bytes that are not UTF-8 are kept as lone surrogates, as Python does in file names: in a list that
find wrote they may be a file's true name. `readable` shows them as text.
"""

import os
import unicodedata
from contextlib import suppress
from pathlib import Path

from common.cli import UserError
from data.lmdb_format import printable
from data.photos import PhotoError
from data.zips import BEGINNINGS, is_archive, list_members, open_member

# Longest first: UTF-32's mark begins with UTF-16's.
MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32"}
MARKS |= {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# What Windows, its command line in Europe and in America, and old Macs wrote before UTF-8.
CODE_PAGES = ("cp1252", "cp850", "cp437", "mac_roman")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file, or of a member of a zip if `path` is ZIP/member.

    Lines end with LF, CR LF, or CR if there is no LF. Raises UserError.
    """
    try:
        content = _read(path)
    except (OSError, PhotoError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{printable(path)}: cannot be read ({reason}); expected a text file. Check the name"
        ) from None
    text = _decode(path, content)
    if "\n" not in text:
        return text.split("\r")
    return [line.removesuffix("\r") for line in text.split("\n")]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except NotADirectoryError:
        archive = next(parent for parent in path.parents if parent.exists())
        if not is_archive(archive):
            raise
        name = os.fsencode(path.relative_to(archive))
        for entry in list_members(archive):
            if entry.relative == name:
                return open_member(entry.member).read()
        raise PhotoError(f"there is no {printable(name)} in the zip") from None


def _decode(path: Path, content: bytes) -> str:
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), None)
    if content.startswith(BEGINNINGS):
        raise UserError(
            f"{printable(path)}: a zip or a workbook; expected a text file. Save it as CSV, or "
            "name a file in it: ZIP/metadata.csv"
        )
    if encoding is None and b"\0" in content:
        encoding = _unmarked(content)
    errors = "strict"
    try:
        if encoding is None:  # spreadsheets put a byte order mark before UTF-8, too
            encoding, errors = "utf-8", "surrogateescape"
        text = content.decode(encoding, errors).removeprefix("\ufeff")
    except UnicodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(
            f"{printable(path)}: not a text; expected one name or row per line. Save it as UTF-8"
        )
    return text


def _unmarked(content: bytes) -> str | None:
    """Return the form of UTF-16 of a text without a mark, by where most of its zeros are."""
    first, second = (content[place:400:2] for place in (0, 1))
    if first.count(0) == 0 and second.count(0) > len(second) / 2:
        return "utf-16-le"
    if second.count(0) == 0 and first.count(0) > len(first) / 2:
        return "utf-16-be"
    return None


def readable(text: str) -> str:
    """Return `text` in NFC, with bytes that were not UTF-8 read as Windows-1252.

    Latin-1 is a part of that; in five bytes that have no meaning, it stands in.
    """
    if text.isascii():
        return text
    content = os.fsencode(text)
    for encoding in ("utf-8", "cp1252", "latin-1"):
        with suppress(UnicodeDecodeError):
            return unicodedata.normalize("NFC", content.decode(encoding))
    return text
