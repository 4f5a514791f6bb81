"""The LMDB of prepared faces: its layout, how it is written whole, and how it is opened safely.

The keys of the images are those of rosinality's style-based-gan-pytorch, so that either project
opens the other's databases: `64-00042` -> JPEG, `length` -> count in ASCII. Beside them lie our
own, which a reader may do without: `meta` (JSON), `names` (of the files, NUL between), `source`
(which of meta's sources each image is from) and `crc32-64`, both little-endian uint32.

Photos held out of training lie beside them under the same keys with a prefix: `holdout-64-00042`,
`holdout-length`, `holdout-crc32-64`. Neither `length` nor `meta` nor the digest knows of them, so
that no program trains on them by mistake, and a run stays that of its training photos.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lmdb

FORMAT = 1
SIZES = tuple(2**n for n in range(2, 11))  # 4 to 1024 px: the sizes a StyleGAN can have
FILES = frozenset({"data.mdb", "lock.mdb", "report.csv", "contact_sheet.jpg"})
TRANSACTION_BYTES = 2**24  # records are committed in lots of this size
TRAINING, HOLDOUT = "", "holdout-"  # prefixes of the keys of the two parts
MAKE_ONE = "Make one: python prepare_data.py PHOTOS {path}"


class DataError(Exception):
    """A fault of the data on disk; its text is the whole message, in one line."""


def record_key(size: int, index: int, part: str = TRAINING) -> bytes:
    """Return the key of image `index` stored at `size` px, as rosinality's programs write it."""
    return f"{part}{size}-{index:05d}".encode()


def printable(path: str | bytes | os.PathLike[str]) -> str:
    """Return `path` as one line that any terminal can show: bytes that are no text are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def pack(numbers: Sequence[int]) -> bytes:
    """Return whole numbers as little-endian uint32."""
    return struct.pack(f"<{len(numbers)}I", *numbers)


def unpack(data: bytes) -> tuple[int, ...]:
    """Return the whole numbers that `pack` was given."""
    return struct.unpack(f"<{len(data) // 4}I", data)


@dataclass
class _Part:
    """What the images of one part are called and were made from, in their order."""

    names: list[bytes] = field(default_factory=list)
    source: list[int] = field(default_factory=list)
    crcs: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))


class Writer:
    """Makes the LMDB `path` in a hidden folder beside it, and renames it into place when whole.

    Use it as a context manager; left by an exception, it leaves nothing behind. The hidden folder
    is locked while in use, and what a killed run left there is thrown away by the next.
    """

    def __init__(
        self, path: Path, sizes: Sequence[int], sources: Sequence[str], overwrite: bool = False
    ) -> None:
        path = path.resolve() if path.is_symlink() else path  # what it points to is replaced
        self.path = path
        self.sizes = list(sizes)
        self.sources = list(sources)
        self.settings: dict[str, Any] = {}
        self.overwrite = overwrite
        self.folder = path.parent / f".{path.name}.tmp"  # further files may be put here
        self._retired = path.parent / f".{path.name}.old"
        self._parts = {TRAINING: _Part(), HOLDOUT: _Part()}
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0

    def __enter__(self) -> Writer:
        try:
            self._lock = _lock_folder(self.folder, self.path)
        except OSError as error:
            raise DataError(
                f"{printable(self.path)}: cannot be made here ({error.strerror}); expected an "
                "existing folder that can be written to. Choose another place"
            ) from None
        try:
            self._restore()
            _refuse_to_replace(self.path, self.overwrite)
            self._env = lmdb.open(str(self.folder), map_size=2**26, sync=False, metasync=False)
        except lmdb.Error as error:
            self._discard()
            raise self.unwritable(error) from None
        except BaseException:
            self._discard()
            raise
        return self

    @property
    def count(self) -> int:
        """Return how many images there are to train on."""
        return len(self._parts[TRAINING].names)

    @property
    def held_out(self) -> int:
        """Return how many images there are that training never sees."""
        return len(self._parts[HOLDOUT].names)

    def add(self, records: Sequence[bytes], name: bytes, source: int, part: str = TRAINING) -> None:
        """Append one image: a JPEG for each size, its file's name and the index of its source."""
        added = self._parts[part]
        for size, record in zip(self.sizes, records, strict=True):
            self._pending.append((record_key(size, len(added.names), part), record))
            self._pending_bytes += len(record)
            added.crcs[size].append(zlib.crc32(record))
        added.names.append(name)
        added.source.append(source)
        if self._pending_bytes >= TRANSACTION_BYTES:
            self._commit()

    def read(self, size: int, index: int) -> bytes:
        """Return a record that has been added."""
        self._commit()
        with self._env.begin() as txn:
            return get(txn, record_key(size, index)) or b""

    def flush(self) -> None:
        """Wait until what was added is on the disk; leaving is quick then."""
        self._commit()
        self._env.sync(True)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._env.close()
            self._discard()

    def _finish(self) -> None:
        meta = {
            "format": FORMAT,
            "sizes": self.sizes,
            "count": self.count,
            "sources": self.sources,
            "settings": self.settings,
        }
        self._pending.append((b"meta", json.dumps(meta, sort_keys=True).encode()))
        for prefix, part in self._parts.items():
            if part.names or prefix == TRAINING:
                entries = [
                    ("names", b"\0".join(part.names)),
                    ("source", pack(part.source)),
                    *((f"crc32-{size}", pack(part.crcs[size])) for size in self.sizes),
                    ("length", str(len(part.names)).encode()),
                ]
                self._pending += [(f"{prefix}{key}".encode(), value) for key, value in entries]
        self._commit()
        self._env.close()
        try:
            for file in [*self.folder.iterdir(), self.folder]:
                _fsync(file)
            self._rename()
            _fsync(self.path.parent)
        except OSError as error:
            raise self.unwritable(error) from None

    def _rename(self) -> None:
        _refuse_to_replace(self.path, self.overwrite)
        try:
            if self.path.exists():
                shutil.rmtree(self._retired, ignore_errors=True)
                self.path.rename(self._retired)
            self.folder.rename(self.path)
        finally:
            self._restore()
        shutil.rmtree(self._retired, ignore_errors=True)

    def _restore(self) -> None:
        """Put back the old database, if a run ended between the two renames."""
        if self._retired.is_dir() and not self.path.exists():
            self._retired.rename(self.path)

    def _commit(self) -> None:
        try:
            while not self._put_pending():
                self._env.set_mapsize(2 * self._env.info()["map_size"])
        except lmdb.Error as error:
            raise self.unwritable(error) from None
        self._pending.clear()
        self._pending_bytes = 0

    def _put_pending(self) -> bool:
        """Return whether the map had room for them."""
        try:
            with self._env.begin(write=True) as txn:
                for key, value in self._pending:
                    txn.put(key, value)
        except lmdb.MapFullError:
            return False
        return True

    def unwritable(self, error: Exception) -> DataError:
        """Return what to raise where writing fails."""
        # LMDB calls a full disk an input/output error, so the room that is left is told beside it.
        free_mb = shutil.disk_usage(self.path.parent).free / 1e6
        return DataError(
            f"{printable(self.path)}: could not be written ({error}); {free_mb:,.0f} MB are "
            "free on this disk. Make room or choose another place"
        )

    def _discard(self) -> None:
        if _is_open(self._lock, self.folder):  # else it was renamed, and that one is another run's
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _lock_folder(folder: Path, path: Path) -> int:
    """Return a descriptor of `folder`, made if need be, emptied, and locked until it is closed."""
    while True:
        folder.mkdir(exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise DataError(
                f"{printable(path)}: in use, another run is making it; expected one run at a time. "
                "Wait for it, or choose another name"
            ) from None
        # The run that held the lock before us may have renamed its folder into place meanwhile.
        if _is_open(lock, folder):
            break
        os.close(lock)
    for stale in folder.iterdir():
        stale.unlink()
    return lock


def _is_open(descriptor: int, path: Path) -> bool:
    """Return whether `path` still leads to what the descriptor was opened on."""
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())


def _refuse_to_replace(path: Path, overwrite: bool) -> None:
    """Raise DataError unless `path` is free, or a database of this kind that may be replaced."""
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise DataError(
            f"{printable(path)}: exists already; expected a new name. "
            "Choose another, or replace it with --overwrite"
        )
    foreign = not path.is_dir() or {file.name for file in path.iterdir()} - FILES
    if not foreign:
        with reading(path) as txn:
            read_catalogue(txn, path)
        return
    raise DataError(
        f"{printable(path)}: holds other things than a database of faces; expected one for "
        "--overwrite to replace. Remove it yourself, or choose another name"
    )


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Catalogue:
    """What a database says of itself."""

    count: int
    sizes: list[int]
    sources: list[str]
    crcs: dict[int, tuple[int, ...]]  # of every record, by size; empty in rosinality's databases
    digest: str | None  # of all the checksums, where there are any
    held_out: int = 0  # photos kept apart from the `count` ones


def get(txn: lmdb.Transaction, key: bytes) -> bytes | None:
    """Return a copy of the value of `key`, or None if there is no such key."""
    value = txn.get(key)
    return None if value is None else bytes(value)


@contextmanager
def reading(path: Path) -> Iterator[lmdb.Transaction]:
    """Yield a read transaction on the database at `path`, which is closed afterwards."""
    env = open_database(path)
    try:
        with env.begin() as txn:
            yield txn
    finally:
        env.close()


def open_database(path: Path) -> lmdb.Environment:
    """Return the open database at `path`; raise DataError if it is none, or truncated."""
    file = path / "data.mdb"
    make_one = MAKE_ONE.format(path=printable(path))
    if not path.is_dir() or not file.is_file():
        found = "a folder without data.mdb" if path.is_dir() else "a file"
        raise DataError(
            f"{printable(path)}: {found if path.exists() else 'no such folder'}; expected a "
            f"database of faces (a folder with data.mdb). {make_one}"
        )
    try:
        # A map as large as the file: it is against the map that LMDB checks damaged offsets.
        size = max(1, file.stat().st_size)
        env = lmdb.open(str(path), size, readonly=True, create=False, lock=False, readahead=False)
    except lmdb.Error as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DataError(
            f"{printable(file)}: cannot be opened ({reason}); expected a readable LMDB. {make_one}"
        ) from None
    # LMDB trusts its file: reading past the end of a truncated one kills the process (SIGBUS).
    needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if file.stat().st_size < needed:
        env.close()
        raise DataError(
            f"{printable(file)}: truncated, {file.stat().st_size:,} of {needed:,} bytes are there; "
            "expected a whole file. Copy it again, or prepare it anew"
        )
    return env


def read_catalogue(txn: lmdb.Transaction, path: Path) -> Catalogue:
    """Return what the database holds; raise DataError if it is not one of faces."""
    try:
        entries = txn.stat()["entries"]
        length, meta_json = get(txn, b"length"), get(txn, b"meta")
        sizes = [size for size in SIZES if get(txn, record_key(size, 0)) is not None]
    except lmdb.Error as error:
        raise _damaged(path, str(error)) from None
    if length is None or not sizes:
        raise DataError(
            f"{printable(path)}: an LMDB, but not of faces: it has no 'length' or no images; "
            f"expected one made by prepare_data.py. {MAKE_ONE.format(path='DST')}"
        )
    if not length.isdigit() or len(length) > 12 or not 0 < int(length) < entries:
        raise _damaged(path, f"'length' is {length[:20]!r} and there are {entries} entries")
    if meta_json is None:
        return Catalogue(int(length), sizes, [], {}, None)
    catalogue = _read_meta(txn, path, int(length), meta_json)
    return replace(catalogue, held_out=len(_holdout_crcs(txn, path, sizes[0])))


def read_holdout(txn: lmdb.Transaction, path: Path) -> Catalogue:
    """Return what the database holds out of training; raise DataError if that is nothing."""
    catalogue = read_catalogue(txn, path)
    if not catalogue.held_out:
        raise DataError(
            f"{printable(path)}: no photos are held out in it; expected some that training never "
            "sees. Prepare it anew with --holdout"
        )
    crcs = {size: _holdout_crcs(txn, path, size) for size in catalogue.sizes}
    digest = hashlib.sha256(b"".join(pack(crc) for crc in crcs.values())).hexdigest()[:16]
    return replace(catalogue, count=catalogue.held_out, crcs=crcs, digest=digest)


def _holdout_crcs(txn: lmdb.Transaction, path: Path, size: int) -> tuple[int, ...]:
    try:
        length = int(get(txn, f"{HOLDOUT}length".encode()) or b"0")
        crcs = unpack(get(txn, f"{HOLDOUT}crc32-{size}".encode()) or b"")
    except (ValueError, struct.error, lmdb.Error) as error:
        raise _damaged(path, f"the photos held out cannot be read: {error}") from None
    if len(crcs) != length:
        raise _damaged(path, f"'{HOLDOUT}length' is {length}, there are {len(crcs)} checksums")
    return crcs


def _read_meta(txn: lmdb.Transaction, path: Path, count: int, meta_json: bytes) -> Catalogue:
    try:
        meta = json.loads(meta_json)
        written_by, sizes, sources = meta["format"], meta["sizes"], meta["sources"]
        crcs = {size: unpack(get(txn, f"crc32-{size}".encode()) or b"") for size in sizes}
    except (ValueError, KeyError, TypeError, struct.error, lmdb.Error) as error:
        raise _damaged(path, f"'meta' or 'crc32' cannot be read: {error}") from None
    if written_by != FORMAT:
        raise DataError(
            f"{printable(path)}: format {written_by!r}; expected {FORMAT}, as this program reads. "
            "Prepare it anew, or use the newer program"
        )
    if meta.get("count") != count or any(len(crc) != count for crc in crcs.values()):
        raise _damaged(path, f"'length' is {count}, 'meta' says {meta.get('count')!r}")
    digest = hashlib.sha256(meta_json)
    for crc in crcs.values():
        digest.update(pack(crc))
    return Catalogue(count, sizes, sources, crcs, digest.hexdigest()[:16])


def _damaged(path: Path, how: str) -> DataError:
    return DataError(
        f"{printable(path)}: damaged, {how}; expected a whole database of faces. "
        "Copy it again, or prepare it anew"
    )
