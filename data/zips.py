"""Zips of photos, as NVIDIA's dataset tools write them: the list of members, and their bytes.

Nothing is unpacked to the disk, so a member's name cannot overwrite a file. At most MAX_MEMBER
bytes of a member are read into memory, whatever size the zip states.
"""

import io
import os
import struct
import zipfile
import zlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from common.cli import UserError
from data.lmdb_format import printable
from data.photos import PhotoError

MAX_MEMBER = 2**28  # bytes, as many as the largest photo that photos.py opens takes uncompressed
BEGINNINGS = (b"PK\3\4", b"PK\5\6")  # the first bytes of a zip, and of an empty one
# No bz2 and LZMA: zipfile limits how much it unpacks at once only for deflate.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 1  # bit of a member's flags
UTF8 = 0x800  # bit of a member's flags: its name is UTF-8
WINDOWS = (0, 10, 14)  # systems that made a member (APPNOTE 4.4.2): FAT, NTFS, VFAT
UNICODE_PATH = 0x7075  # extra field with the name in UTF-8 (APPNOTE 4.6.9)


class Member(NamedTuple):
    """A file in a zip: the zip's path, and the name within."""

    archive: bytes
    name: bytes

    @property
    def path(self) -> bytes:
        """Return its path for reports: ZIP/member."""
        return self.archive + b"/" + self.name


class Entry(NamedTuple):
    """A member, and the path that it would have if the zip were unpacked."""

    member: Member  # by the name that zipfile gives it
    relative: bytes  # UTF-8, with / between its parts
    raw: bytes = b""  # the path in an unknown code page, where the zip does not say which


def is_archive(path: Path) -> bool:
    """Return whether the file at `path` can be read and begins as a zip does."""
    try:
        with path.open("rb") as file:
            return file.read(4) in BEGINNINGS
    except OSError:
        return False


def list_members(path: Path) -> list[Entry]:
    """Return the files in a zip, in the order of its directory.

    Raises UserError if it cannot be read.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except OSError as error:
        raise _unreadable(path, f"cannot be read ({error.strerror})") from None
    except Exception as error:  # at a damaged directory zipfile raises a dozen types
        raise _unreadable(path, f"a damaged zip ({error})") from None
    if sum(member.compress_size for member in members) > size:
        raise _unreadable(path, "a damaged zip (its members take more than the file has)")
    entries = (_entry(os.fsencode(path), member) for member in members)
    return [entry for entry in entries if not entry.relative.endswith(b"/")]


def _entry(archive: bytes, info: zipfile.ZipInfo) -> Entry:
    member = Member(archive, encoded(info.filename))
    relative, raw = member.name, b""
    if not info.flag_bits & UTF8 and not info.filename.isascii():
        with suppress(UnicodeEncodeError):  # else zipfile has found a name in UTF-8 itself
            raw = info.filename.encode("cp437")  # as the zip has it
            relative, raw = _unicode_path(info.extra, raw) or (relative, raw)
    if info.create_system in WINDOWS and b"/" not in relative:
        # .NET wrote backslashes. From other systems they are a part of the name.
        relative, raw = relative.replace(b"\\", b"/"), raw.replace(b"\\", b"/")
    return Entry(member, relative, raw)


def _unicode_path(extra: bytes, raw: bytes) -> tuple[bytes, bytes] | None:
    """Return the UTF-8 name for the bytes `raw`, and b""; None if there is none."""
    names = [raw]  # macOS writes UTF-8 without the flag that says so
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == UNICODE_PATH and field[1:5] == struct.pack("<I", zlib.crc32(raw)):
            names.insert(0, field[5:])
    for name in names:
        with suppress(UnicodeDecodeError):
            return name.decode("utf-8").encode(), b""
    return None


def _unreadable(path: Path, how: str) -> UserError:
    return UserError(f"{printable(path)}: {how}; expected a zip of photos. Copy it again")


def open_member(member: Member) -> BinaryIO:
    """Return the content of a member, in memory.

    Raises PhotoError if it cannot be read or differs from its CRC32.
    """
    try:
        archive = _opened(member.archive)
        info = archive.getinfo(member.name.decode("utf-8", "surrogateescape"))
        if info.flag_bits & ENCRYPTED:
            raise PhotoError("encrypted")
        if info.compress_type not in METHODS:
            raise PhotoError("compressed otherwise than by deflate")
        if info.file_size > MAX_MEMBER:
            raise PhotoError(f"too large: {info.file_size:,} bytes")
        with archive.open(info) as file:
            return io.BytesIO(file.read(info.file_size))  # also compares the CRC32
    except OSError as error:
        raise PhotoError(f"cannot be read: {error.strerror or error}") from None
    except (PhotoError, MemoryError):
        raise
    except Exception as error:  # as above
        raise PhotoError(f"damaged: {error}") from None


def encoded(name: str) -> bytes:
    """Return a name as UTF-8, and bytes that are no text as they were."""
    return name.encode("utf-8", "surrogateescape")


@lru_cache(maxsize=4)
def _opened(path: bytes) -> zipfile.ZipFile:
    """Return an open zip, whose directory is thus read once in a process, not for every member."""
    return zipfile.ZipFile(os.fsdecode(path))
