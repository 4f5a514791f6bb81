"""The LMDB of prepared faces: its layout, and how to open it safely.

The keys of the images are those of rosinality's style-based-gan-pytorch, so that each project can
open the other's databases: `64-00042` -> JPEG, `length` -> count in ASCII. We add keys that a
reader can do without: `meta` (JSON), `names` (of the files, separated by NUL), `source` (for each
image an index into meta's sources) and `crc32-64`, the latter two as little-endian uint32.

Photos held out of training have the same keys with a prefix: `holdout-64-00042`, `holdout-length`,
`holdout-crc32-64`. `length`, `meta` and the digest leave them out, so that no program trains on
them by mistake, and the digest names the training photos alone.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as brief

import lmdb

from common.cli import UserError
from data.lmdb_check import check_pages
from data.photos import Recipe

FORMAT = 1
SIZES = tuple(2**n for n in range(2, 11))  # 4 to 1024 px: the sizes a StyleGAN can have
TRAINING, HOLDOUT = "", "holdout-"  # the two parts of a database: prefixes of their keys
MAKE_ONE = "Make one: python prepare_data.py PHOTOS {path}"


def record_key(size: int, index: int, part: str = TRAINING) -> bytes:
    """Return the key of image `index` at `size` px, the same as in rosinality's databases."""
    return f"{part}{size}-{index:05d}".encode()


def printable(path: str | bytes | os.PathLike[str]) -> str:
    """Return `path` as one line that any terminal can show; what is not printable is escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def pack(numbers: Sequence[int]) -> bytes:
    """Return whole numbers as little-endian uint32."""
    return struct.pack(f"<{len(numbers)}I", *numbers)


def unpack(data: bytes) -> tuple[int, ...]:
    """Return the whole numbers that `pack` stored."""
    return struct.unpack(f"<{len(data) // 4}I", data)


@dataclass(frozen=True)
class Catalogue:
    """What a database states about its images."""

    count: int
    sizes: list[int]
    sources: list[str]
    crcs: dict[int, tuple[int, ...]]  # of the records, by size; empty in rosinality's databases
    digest: str | None  # of meta and all checksums; None in rosinality's databases
    recipe: Recipe  # how the photos were prepared
    held_out: int = 0  # photos that are not among the `count` to train on


def get(txn: lmdb.Transaction, key: bytes) -> bytes | None:
    """Return a copy of the value of `key`, or None if there is no such key."""
    value = txn.get(key)
    return None if value is None else bytes(value)


@contextmanager
def reading(path: Path) -> Iterator[lmdb.Transaction]:
    """Yield a read transaction on the database at `path`; close it afterwards."""
    env = open_database(path)
    try:
        with env.begin() as txn:
            yield txn
    finally:
        env.close()


def open_database(path: Path) -> lmdb.Environment:
    """Return the open database at `path`; raise UserError if it is none or damaged."""
    file = path / "data.mdb"
    make_one = MAKE_ONE.format(path=printable(path))
    if not path.is_dir() or not file.is_file():
        found = "a folder without data.mdb" if path.is_dir() else "a file"
        raise UserError(
            f"{printable(path)}: {found if path.exists() else 'no such folder'}; expected a "
            f"database of faces (a folder with data.mdb). {make_one}"
        )
    try:
        # A map no larger than the file: LMDB checks offsets against the map only.
        size = max(1, file.stat().st_size)
        env = lmdb.open(str(path), size, readonly=True, create=False, lock=False, readahead=False)
    except lmdb.Error as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise UserError(
            f"{printable(file)}: cannot be opened ({reason}); expected a readable LMDB. {make_one}"
        ) from None
    # LMDB trusts its file: reading past the end of a truncated one would kill the process (SIGBUS).
    needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if file.stat().st_size < needed:
        env.close()
        raise UserError(
            f"{printable(file)}: truncated, {file.stat().st_size:,} of {needed:,} bytes are there; "
            "expected a whole file. Copy it again, or prepare it anew"
        )
    try:
        check_pages(file)
    except ValueError as error:
        env.close()
        raise _damaged(path, str(error)) from None
    return env


def read_catalogue(txn: lmdb.Transaction, path: Path) -> Catalogue:
    """Return the catalogue of the training photos; raise UserError if the LMDB holds no faces."""
    try:
        entries = txn.stat()["entries"]
        length, meta_json = get(txn, b"length"), get(txn, b"meta")
        sizes = [size for size in SIZES if get(txn, record_key(size, 0)) is not None]
    except lmdb.Error as error:
        raise _damaged(path, str(error)) from None
    if length is None or not sizes:
        raise UserError(
            f"{printable(path)}: an LMDB, but not of faces: it has no 'length' or no images; "
            f"expected one made by prepare_data.py. {MAKE_ONE.format(path='DST')}"
        )
    if not length.isdigit() or not 0 < int(length) < entries:
        raise _damaged(path, f"'length' is {length[:20]!r} and there are {entries} entries")
    if meta_json is None:
        return Catalogue(int(length), sizes, [], {}, None, Recipe(tuple(sizes)))
    catalogue = _read_meta(txn, path, int(length), meta_json)
    return replace(catalogue, held_out=len(_holdout_crcs(txn, path, sizes[0])))


def read_holdout(txn: lmdb.Transaction, path: Path) -> Catalogue:
    """Return the catalogue of the photos held out; raise UserError if there are none."""
    catalogue = read_catalogue(txn, path)
    if not catalogue.held_out:
        raise UserError(
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
        if not set(sizes) <= set(SIZES) or not isinstance(sizes, list) or not sizes:
            raise ValueError(f"its sizes are {brief(sizes)}")
        crcs = {size: unpack(get(txn, f"crc32-{size}".encode()) or b"") for size in sizes}
    except (ValueError, KeyError, TypeError, RecursionError, struct.error, lmdb.Error) as error:
        raise _damaged(path, f"'meta' or 'crc32' cannot be read: {error}") from None
    if written_by != FORMAT:
        raise UserError(
            f"{printable(path)}: format {brief(written_by)}; expected {FORMAT}, as this program "
            "reads. Prepare it anew, or use the newer program"
        )
    if meta.get("count") != count or any(len(crc) != count for crc in crcs.values()):
        raise _damaged(path, f"'length' is {count}, 'meta' says {meta.get('count')!r}")
    digest = hashlib.sha256(meta_json)
    for crc in crcs.values():
        digest.update(pack(crc))
    recipe = _recipe(sizes, meta.get("settings"))
    return Catalogue(count, sizes, sources, crcs, digest.hexdigest()[:16], recipe)


def _recipe(sizes: Sequence[int], settings: object) -> Recipe:
    """Return the recipe in the `settings` of meta; what they lack has its default."""
    stored = settings if isinstance(settings, dict) else {}
    default = Recipe(tuple(sizes))
    known = {name: stored[name] for name in default.settings() if type(stored.get(name)) is int}
    return replace(default, **known)


def _damaged(path: Path, how: str) -> UserError:
    return UserError(
        f"{printable(path)}: damaged, {how}; expected a whole database of faces. "
        "Copy it again, or prepare it anew"
    )
