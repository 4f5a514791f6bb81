"""How a database of faces is written: in a hidden folder, and renamed into place when whole."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
TRANSACTION_BYTES = 2**24  # records are committed in lots of this size


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
            raise UserError(
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
                sync(file)
            self._rename()
            sync(self.path.parent)
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

    def unwritable(self, error: Exception) -> UserError:
        """Return what to raise where writing fails."""
        # LMDB calls a full disk an input/output error, so the room that is left is told beside it.
        free_mb = shutil.disk_usage(self.path.parent).free / 1e6
        return UserError(
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
            raise UserError(
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
    """Raise UserError unless `path` is free, or a database of this kind that may be replaced."""
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
