"""Writes a database of faces: in a hidden folder, which is renamed into place when complete."""

import fcntl
import json
import os
import shutil
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import lmdb

from common.cli import UserError
from common.files import sync
from data.lmdb_format import (
    FORMAT,
    HOLDOUT,
    TRAINING,
    get,
    pack,
    printable,
    read_catalogue,
    reading,
    record_key,
)

FILES = frozenset({"data.mdb", "lock.mdb", "report.csv", "contact_sheet.jpg"})
TRANSACTION_BYTES = 2**24  # records are committed in batches of about this size


@dataclass
class _Part:
    """Names, sources and checksums of the images of one part, in order."""

    names: list[bytes] = field(default_factory=list)
    source: list[int] = field(default_factory=list)
    crcs: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))


class Writer:
    """Makes the LMDB `path` in a hidden folder beside it, and renames it into place when complete.

    Use it as a context manager: an exception within leaves nothing behind. The hidden folder is
    locked while in use; the next run deletes what a killed one left there.
    """

    def __init__(
        self, path: Path, sizes: Sequence[int], sources: Sequence[str], overwrite: bool = False
    ) -> None:
        path = path.resolve() if path.is_symlink() else path  # replace its target
        self.path = path
        self.sizes = list(sizes)
        self.sources = list(sources)
        self.settings: dict[str, Any] = {}
        self.overwrite = overwrite
        self.folder = path.parent / f".{path.name}.tmp"  # callers may add files
        self._retired = path.parent / f".{path.name}.old"
        self._parts = {TRAINING: _Part(), HOLDOUT: _Part()}
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0

    def __enter__(self) -> Self:
        try:
            self._lock = _lock_folder(self.folder, self.path)
        except OSError as error:
            raise UserError(
                f"{printable(self.path)}: cannot be made here ({error.strerror}); expected an "
                "existing folder that can be written to. Choose another place"
            ) from None
        try:
            self._restore()
            _check_replaceable(self.path, self.overwrite)
            self._env = lmdb.open(str(self.folder), map_size=2**26, sync=False, metasync=False)
        except lmdb.Error as error:
            self._discard()
            raise self.write_error(error) from None
        except BaseException:
            self._discard()
            raise
        return self

    @property
    def count(self) -> int:
        """Return the number of images to train on."""
        return len(self._parts[TRAINING].names)

    @property
    def held_out(self) -> int:
        """Return the number of images held out."""
        return len(self._parts[HOLDOUT].names)

    def add(self, records: Sequence[bytes], name: bytes, source: int, part: str = TRAINING) -> None:
        """Append an image: a JPEG for each size, its file's name and the index of its source."""
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
        """Return a record of the training part that has been added."""
        self._commit()
        with self._env.begin() as txn:
            return get(txn, record_key(size, index)) or b""

    def flush(self) -> None:
        """Wait until all that was added is on the disk, so that leaving is quick."""
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
                sync(file)
            self._rename()
            sync(self.path.parent)
        except OSError as error:
            raise self.write_error(error) from None

    def _rename(self) -> None:
        _check_replaceable(self.path, self.overwrite)
        try:
            if self.path.exists():
                shutil.rmtree(self._retired, ignore_errors=True)
                self.path.rename(self._retired)
            self.folder.rename(self.path)
        finally:
            self._restore()
        shutil.rmtree(self._retired, ignore_errors=True)

    def _restore(self) -> None:
        """Put the old database back if a run ended between the two renames."""
        if self._retired.is_dir() and not self.path.exists():
            self._retired.rename(self.path)

    def _commit(self) -> None:
        try:
            while not self._put_pending():
                self._env.set_mapsize(2 * self._env.info()["map_size"])
        except lmdb.Error as error:
            raise self.write_error(error) from None
        self._pending.clear()
        self._pending_bytes = 0

    def _put_pending(self) -> bool:
        """Write the pending records; return whether the map had room for them."""
        try:
            with self._env.begin(write=True) as txn:
                for key, value in self._pending:
                    txn.put(key, value)
        except lmdb.MapFullError:
            return False
        return True

    def write_error(self, error: Exception) -> UserError:
        """Return the exception to raise where writing fails."""
        # LMDB reports a full disk as an input/output error, so the message adds the free space.
        free_mb = shutil.disk_usage(self.path.parent).free / 1e6
        return UserError(
            f"{printable(self.path)}: could not be written ({error}); {free_mb:,.0f} MB are "
            "free on this disk. Make room or choose another place"
        )

    def _discard(self) -> None:
        if _is_same_file(self._lock, self.folder):  # else this one was renamed
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _lock_folder(folder: Path, path: Path) -> int:
    """Make `folder` if need be, lock and empty it; return its descriptor, which holds the lock."""
    while True:
        folder.mkdir(exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise UserError(
                f"{printable(path)}: in use, another run is making it; expected one run at a time. "
                "Wait for it, or choose another name"
            ) from None
        # The run that held the lock may have renamed its folder into place meanwhile.
        if _is_same_file(lock, folder):
            break
        os.close(lock)
    for stale in folder.iterdir():
        stale.unlink()
    return lock


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Return whether `path` is still what the descriptor was opened on."""
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())


def _check_replaceable(path: Path, overwrite: bool) -> None:
    """Raise UserError unless `path` is free, or a database of faces that may be replaced."""
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise UserError(
            f"{printable(path)}: exists already; expected a new name. "
            "Choose another, or replace it with --overwrite"
        )
    foreign = not path.is_dir() or {file.name for file in path.iterdir()} - FILES
    if not foreign:
        with reading(path) as txn:
            read_catalogue(txn, path)
        return
    raise UserError(
        f"{printable(path)}: holds other things than a database of faces; expected one for "
        "--overwrite to replace. Remove it yourself, or choose another name"
    )
