"""Walking through an LMDB: whole ones of every shape pass, pointers that lead astray are found."""

import random
import struct
from pathlib import Path

import lmdb
import pytest

from data.lmdb_check import check_pages

PAGE = 4096


def made(path: Path, sizes: list[int], rewrites: int = 0) -> Path:
    """Make a database with values of these sizes; return its file."""
    rng = random.Random(0)
    with lmdb.open(str(path), map_size=2**28, sync=False) as env:
        for _ in range(rewrites + 1):
            with env.begin(write=True) as txn:
                for index in rng.sample(range(len(sizes)), len(sizes)):
                    txn.put(b"%d-%05d" % (index % 7, index), rng.randbytes(sizes[index]))
    return path / "data.mdb"


@pytest.mark.parametrize(
    "sizes",
    [[], [0], [1, 2, 3], [40] * 5000, [2030, 2040, 2050, 4080, 4081, 9000] * 40, [100_000] * 3],
    ids=["empty", "one", "three", "small", "around a page", "large"],
)
@pytest.mark.parametrize("rewrites", [0, 2])
def test_whole_databases_pass(tmp_path: Path, sizes: list[int], rewrites: int) -> None:
    check_pages(made(tmp_path / "a.lmdb", sizes, rewrites))


def test_ours_passes(tiny_lmdb: Path) -> None:
    check_pages(tiny_lmdb / "data.mdb")


def root_of(data: bytearray) -> int:
    """Return the root of the newer meta page: after a header of 16 bytes, 24 of meta, a tree."""
    metas = [struct.unpack_from("<QQQ", data, page * PAGE + 16 + 24 + 48 + 40) for page in (0, 1)]
    return max((transaction, root) for root, _, transaction in metas)[1]


def first_child(data: bytearray, page: int) -> int:
    (offset,) = struct.unpack_from("<H", data, page * PAGE + 16)
    return page * PAGE + offset


@pytest.mark.parametrize(
    ("what", "place", "value"),
    [
        ("root", lambda data: 16 + 24 + 48 + 40, b"\xff\xff\0\0"),
        ("flags", lambda data: root_of(data) * PAGE + 10, b"\x04\0"),
        ("own number", lambda data: root_of(data) * PAGE, b"\1\0\0\0"),
        ("bound below", lambda data: root_of(data) * PAGE + 12, b"\xf0\x0f"),
        ("bound above", lambda data: root_of(data) * PAGE + 14, b"\0\x20"),
        ("offset", lambda data: root_of(data) * PAGE + 16, b"\xfe\x0f"),
        ("key", lambda data: first_child(data, root_of(data)) + 6, b"\xff\xff"),
        ("child", lambda data: first_child(data, root_of(data)), b"\xff\xff"),
        ("magic", lambda data: 16, b"\0"),
        ("page size", lambda data: 16 + 24, b"\1"),
    ],
)
def test_what_leads_astray_is_found(tmp_path: Path, what: str, place, value: bytes) -> None:
    file = made(tmp_path / "a.lmdb", [600] * 200)
    data = bytearray(file.read_bytes())
    for copy in (0, PAGE) if what == "root" else (0,):
        at = place(data) + copy
        data[at : at + len(value)] = value
    file.write_bytes(data)
    with pytest.raises(ValueError, match="page"):
        check_pages(file)


def test_a_loop_of_pages_and_a_value_past_the_end_are_found(tmp_path: Path) -> None:
    file = made(tmp_path / "a.lmdb", [600] * 200)
    whole = bytearray(file.read_bytes())
    node, root = first_child(whole, root_of(whole)), root_of(whole)
    file.write_bytes(whole[:node] + struct.pack("<HHH", root, 0, 0) + whole[node + 6 :])
    with pytest.raises(ValueError, match="in two places"):
        check_pages(file)
    file = made(tmp_path / "b.lmdb", [9000])
    whole = bytearray(file.read_bytes())
    node = first_child(whole, root_of(whole))
    whole[node : node + 4] = struct.pack("<HH", 0, 100)  # 6.5 MB
    file.write_bytes(whole)
    with pytest.raises(ValueError, match="past the end"):
        check_pages(file)
