"""lmdb_writer.py: what is stored, what is replaced, and that nothing is left behind."""

import json
import os
import shutil
import zlib
from pathlib import Path

import lmdb
import numpy as np
import pytest

from common.cli import UserError
from data import lmdb_writer
from data.lmdb_format import HOLDOUT
from data.lmdb_writer import Writer
from tests.support.folders import entries, jpeg, tree


def store(path: Path, *records: bytes, overwrite: bool = False) -> Path:
    with Writer(path, [16], ["s"], overwrite) as writer:
        for index, record in enumerate(records):
            writer.add([record], b"%d.png" % index, 0)
    return path


def test_what_is_written_can_be_read_by_the_documented_keys(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.lmdb", (8, 16), ["young", "old"]) as writer:
        for index in range(3):
            writer.add([jpeg(index, 8), jpeg(index)], b"n%d.png" % index, index % 2)
        writer.add([jpeg(3, 8), jpeg(3)], b"n3.png", 1, HOLDOUT)
    stored = entries(tmp_path / "a.lmdb")
    assert stored["length"] == b"3"
    for index in range(3):
        assert stored[f"16-{str(index).zfill(5)}"] == jpeg(index)
        assert stored[f"8-{str(index).zfill(5)}"] == jpeg(index, 8)
    assert stored["names"] == b"n0.png\0n1.png\0n2.png"
    assert np.frombuffer(stored["source"], "<u4").tolist() == [0, 1, 0]
    crcs = np.frombuffer(stored["crc32-8"], "<u4").tolist()
    assert crcs == [zlib.crc32(jpeg(index, 8)) for index in range(3)]
    assert json.loads(stored["meta"]) == {
        "format": 1,
        "count": 3,
        "sizes": [8, 16],
        "sources": ["young", "old"],
        "settings": {},
    }
    assert stored["holdout-length"] == b"1"
    assert stored["holdout-16-00000"] == jpeg(3)
    assert stored["holdout-names"] == b"n3.png"


def test_the_map_grows_with_the_data(tmp_path: Path) -> None:
    noise = os.urandom(2**22)
    with Writer(tmp_path / "a.lmdb", [64], ["s"]) as writer:
        for index in range(20):
            writer.add([bytes([index]) + noise], b"n", 0)
        assert writer.read(64, 3) == b"\3" + noise
    assert entries(tmp_path / "a.lmdb")["64-00019"] == b"\x13" + noise


def test_an_exception_while_writing_leaves_the_old_database_and_nothing_else(
    tmp_path: Path,
) -> None:
    store(tmp_path / "a.lmdb", b"old")
    before = tree(tmp_path)
    for path in (tmp_path / "a.lmdb", tmp_path / "b.lmdb"):
        with pytest.raises(ValueError, match="zip"), Writer(path, [16], [""], True) as writer:
            writer.add([jpeg(0), jpeg(1)], b"one size, two records", 0)
    assert tree(tmp_path) == before


def test_only_a_sound_database_is_replaced(tmp_path: Path) -> None:
    """A file, a folder, a foreign, mixed or damaged database, and a broken link are spared."""
    ours = store(tmp_path / "ours.lmdb", jpeg(0), jpeg(1))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "photo.png").write_bytes(b"x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "broken").symlink_to("nowhere/far")
    with lmdb.open(str(tmp_path / "foreign")) as env, env.begin(write=True) as txn:
        txn.put(b"mine", b"1")
    shutil.copytree(ours, tmp_path / "damaged")
    os.truncate(tmp_path / "damaged" / "data.mdb", 9000)
    shutil.copytree(ours, tmp_path / "mixed")
    (tmp_path / "mixed" / "thesis.tex").write_text("x")
    before = tree(tmp_path)
    for name in ("folder", "file", "broken", "foreign", "damaged", "mixed", "file/a", "no/a"):
        for overwrite in (False, True):
            with pytest.raises(UserError, match="; expected"):
                store(tmp_path / name, jpeg(2), overwrite=overwrite)
    with pytest.raises(UserError, match="exists already"):
        store(ours, jpeg(2))
    assert tree(tmp_path) == before
    store(ours, jpeg(2), overwrite=True)
    assert entries(ours)["16-00000"] == jpeg(2)


def test_a_link_to_a_database_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.lmdb").symlink_to("disk/a.lmdb")
    for index in range(3):
        store(tmp_path / "a.lmdb", jpeg(index), overwrite=True)
        assert entries(tmp_path / "disk" / "a.lmdb")["16-00000"] == jpeg(index)
    assert (tmp_path / "a.lmdb").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.lmdb", "disk"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["a.lmdb"]


def test_what_a_killed_writer_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".a.lmdb.tmp").mkdir()
    (tmp_path / ".a.lmdb.tmp" / "data.mdb").write_bytes(b"half")
    with Writer(tmp_path / "a.lmdb", [16], ["s"]) as writer:
        writer.add([b"x"], b"n", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.lmdb"]


def test_two_writers_of_one_database_are_refused(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.lmdb", [16], ["s"]) as writer:
        writer.add([jpeg(0)], b"n", 0)
        with pytest.raises(UserError, match="in use"):
            store(tmp_path / "a.lmdb", jpeg(1))
        store(tmp_path / "b.lmdb", jpeg(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.lmdb", "b.lmdb"]


def test_a_writer_that_ends_spares_the_folder_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one begins between the first one's rename and its cleaning up."""
    second = Writer(tmp_path / "a.lmdb", [16], ["b"], overwrite=True)
    sync = lmdb_writer.sync

    def begin_second(path: Path) -> None:
        sync(path)
        if path == tmp_path:
            monkeypatch.setattr(lmdb_writer, "sync", sync)
            second.__enter__()

    monkeypatch.setattr(lmdb_writer, "sync", begin_second)
    store(tmp_path / "a.lmdb", b"one")
    second.add([b"two"], b"2", 0)
    second.__exit__(None, None, None)
    assert entries(tmp_path / "a.lmdb")["16-00000"] == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a.lmdb"]


def test_an_old_database_lost_between_two_renames_comes_back(tmp_path: Path) -> None:
    store(tmp_path / "a.lmdb", jpeg(0)).rename(tmp_path / ".a.lmdb.old")
    with pytest.raises(UserError, match="exists already"):
        store(tmp_path / "a.lmdb", jpeg(1))
    assert entries(tmp_path / "a.lmdb")["16-00000"] == jpeg(0)
