"""prepare_data.py on zips: the same photos as from a folder, whatever is in the zip besides."""

import csv
import json
import os
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from data.zips import MAX_MEMBER
from tests.data.test_folders_property import EXAMPLES, FOLDERS, File, cut_photos, plain_photos
from tests.support.folders import (
    encoded,
    entries,
    names,
    peak_megabytes,
    photos,
    run,
    scene,
    tree,
)

GOOD = ["000000.png", "000001.png", "000002.png"]
ODD = ["ñandú 日本.png", "new\nline.png", "esc\x1b.png", "a,b\"c'.png", "back\\slash.png", " .png"]


def rows(database: Path) -> dict[str, str]:
    """Why each file was left out, by its whole name."""
    with (database / "report.csv").open(encoding="utf-8", newline="") as file:
        return {name: reason for name, reason in list(csv.reader(file))[1:]}


def zipped(folder: Path, path: Path, order: int = 1, method: int = zipfile.ZIP_STORED) -> Path:
    """The files of a folder as a zip, its directory in the order of names or against it."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*"))[::order]:
            archive.write(file, os.path.relpath(file, folder))
    return path


def records(database: Path) -> dict[str, bytes]:
    """All that is stored, but what the sources are called and what was asked for."""
    stored = entries(database)
    meta = json.loads(stored.pop("meta"))
    assert meta.pop("sources")
    return {**stored, "meta": json.dumps(meta).encode()}


NAMES = st.sampled_from(["a.jpg", "Z", ".hidden.png", "metadata.csv", "dataset.json", *ODD])
PLACES = FOLDERS.filter(lambda folder: folder.isascii()).map(bytes.decode)
CONTENTS = st.one_of(
    plain_photos(), cut_photos(), st.binary(max_size=99).map(lambda b: File(b"\1" + b))
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 10,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(
    files=st.dictionaries(st.tuples(PLACES, NAMES), CONTENTS, max_size=12),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    order=st.sampled_from([1, -1]),
    flags=st.sampled_from([[], ["--workers", "1", "--per_source", "3"]]),
)
def test_a_zip_gives_the_records_of_its_folder(
    files: Any, method: int, order: int, flags: list[str]
) -> None:
    files |= {("", "one.png"): File(encoded(scene(), "PNG"))}
    with tempfile.TemporaryDirectory() as scratch:
        src, zip_ = Path(scratch) / "src", Path(scratch) / "src.zip"
        for (folder, name), file in files.items():
            (src / folder).mkdir(parents=True, exist_ok=True)
            file.make(os.fsencode(src / folder / name))
        if (src / "Dlmdb").exists():
            (src / "Dlmdb" / "data.mdb").write_bytes(b"a database of earlier")
        zipped(src, zip_, order, method)
        before = tree(Path(scratch))
        a, b = Path(scratch) / "a.lmdb", Path(scratch) / "b.lmdb"
        run(src, a, *flags)
        run(zip_, b, *flags)
        assert before.items() <= tree(Path(scratch)).items()
        assert records(a) == records(b)
        ours = {name.removeprefix(str(src)): reason for name, reason in rows(a).items()}
        assert ours == {name.removeprefix(str(zip_)): reason for name, reason in rows(b).items()}


def write_zip(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


PHOTO = encoded(scene(), "PNG")


def test_the_zips_of_nvidias_tools_are_read_as_they_are(tmp_path: Path) -> None:
    labels = json.dumps({"labels": [[f"00000/img{i:08d}.png", i] for i in range(3)]}).encode()
    members = [(f"00000/img{i:08d}.png", PHOTO) for i in (2, 0, 1)]
    source = write_zip(tmp_path / "faces.zip", [*members, ("dataset.json", labels)])
    done = run(source, tmp_path / "a.lmdb")
    assert names(tmp_path / "a.lmdb") == [f"00000/img{i:08d}.png" for i in range(3)]
    assert rows(tmp_path / "a.lmdb") == {f"{source}/dataset.json": "a table, no photo"}
    assert "3 of 3 files kept" in done.stdout


def test_odd_names_lead_nowhere_and_are_told(tmp_path: Path) -> None:
    outside = [("../evil.png", PHOTO), ("a/../../evil.png", PHOTO), ("/tmp/evil.png", PHOTO)]
    hidden = [("__MACOSX/._a.png", b"x"), (".git/a.png", PHOTO), ("dir/", b"")]
    inside = [(name, PHOTO) for name in [*ODD, "./here.png", "deep/er/a.png"]]
    with pytest.warns(UserWarning, match="Duplicate"):
        source = write_zip(tmp_path / "z", [*outside, *hidden, *inside, ("deep/er/a.png", PHOTO)])
    before = tree(tmp_path)
    done = run(source, tmp_path / "a.lmdb")
    assert sorted(names(tmp_path / "a.lmdb")) == sorted(name for name, _ in inside)
    found = rows(tmp_path / "a.lmdb")
    assert found.pop(f"{source}/deep/er/a.png").startswith("another of the same name")
    assert found == {f"{source}/{name}": "its name leads out of the zip" for name, _ in outside}
    assert "\x1b" not in done.stdout
    assert before.items() <= tree(tmp_path).items()
    added = {path.name for path in tmp_path.iterdir()}
    assert added == {"z", "a.lmdb"}


def patched(path: Path, name: str, offset: int, value: bytes, local: int | None = None) -> None:
    """Overwrite a field of a member in the zip's directory and, at `local`, in its own header."""
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\1\2")
    while content[entry + 46 : entry + 46 + len(name)] != name.encode():
        entry = content.index(b"PK\1\2", entry + 4)
    content[entry + offset : entry + offset + len(value)] = value
    if local is not None:
        header = struct.unpack("<I", content[entry + 42 : entry + 46])[0]
        content[header + local : header + local + len(value)] = value
    path.write_bytes(content)


def test_bad_members_are_left_out_and_the_others_kept(tmp_path: Path) -> None:
    source = tmp_path / "z.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("good", "locked", "crc", "lies", "junk"):
            archive.writestr(f"{name}.png", PHOTO if name != "junk" else b"hello")
        archive.writestr("bz2.png", PHOTO, zipfile.ZIP_BZIP2)
        archive.writestr("lzma.png", PHOTO, zipfile.ZIP_LZMA)
        archive.writestr("inner.zip", b"PK\3\4")
        archive.writestr("bomb.png", bytes(MAX_MEMBER + 1))
        archive.writestr("liar.png", bytes(100_000_000))
    patched(source, "locked.png", 8, b"\1\0", local=6)
    patched(source, "crc.png", 16, b"\1\2\3\4", local=14)
    patched(source, "lies.png", 24, struct.pack("<I", len(PHOTO) // 2), local=22)
    patched(source, "liar.png", 24, struct.pack("<I", 1000), local=22)
    run(source, tmp_path / "a.lmdb")
    assert names(tmp_path / "a.lmdb") == ["good.png"]
    found = {os.path.basename(name): reason for name, reason in rows(tmp_path / "a.lmdb").items()}
    assert found.pop("locked.png") == "encrypted"
    assert found.pop("bomb.png") == f"too large: {MAX_MEMBER + 1:,} bytes"
    for name in ("bz2.png", "lzma.png"):
        assert found.pop(name) == "compressed otherwise than by deflate"
    for name in ("junk.png", "inner.zip"):
        assert found.pop(name) == "not an image"
    for name in ("crc.png", "lies.png", "liar.png"):
        assert found.pop(name).startswith("damaged: Bad CRC-32")
    assert not found


def test_a_bomb_takes_no_more_memory_than_a_photo_may(tmp_path: Path) -> None:
    """What is told to be small and is a gigabyte is read as far as it was told."""
    small = write_zip(tmp_path / "small.zip", [("a.png", PHOTO)])
    source = tmp_path / "z.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", PHOTO)
        with archive.open("bomb.png", "w") as member:
            for _ in range(64):
                member.write(bytes(2**24))
    patched(source, "bomb.png", 24, struct.pack("<I", 100_000), local=22)
    flags = ["--workers", 1]
    usual = peak_megabytes(tmp_path / "peak", small, tmp_path / "a.lmdb", *flags)
    assert peak_megabytes(tmp_path / "peak", source, tmp_path / "b.lmdb", *flags) < usual + 50
    assert names(tmp_path / "b.lmdb") == ["a.png"]


def test_zips_that_are_none_end_with_one_line(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "z.zip", [(name, PHOTO) for name in GOOD])
    whole = source.read_bytes()
    for content, said in {
        whole[:-30]: "a damaged zip (File is not a zip file)",
        whole[: len(whole) // 2]: "a damaged zip",
        whole[:4]: "a damaged zip",
        whole.replace(b"PK\1\2", b"PK\1\3"): "a damaged zip",
        write_zip(tmp_path / "empty", []).read_bytes(): "there are no files",
        b"PK": "1 not an image",
    }.items():
        source.write_bytes(content)
        done = run(source, tmp_path / "a.lmdb", code=1)
        assert said in done.stderr, done.stderr
        assert not (tmp_path / "a.lmdb").exists()


def test_members_that_share_their_bytes_are_no_zip_of_photos(tmp_path: Path) -> None:
    """A bomb of members that overlap needs no large one (Fifield 2019)."""
    source = write_zip(tmp_path / "z.zip", [(name, PHOTO) for name in GOOD])
    for name in GOOD[1:]:
        patched(source, name, 20, struct.pack("<I", 3 * len(PHOTO)))
    assert "its members take more than" in run(source, tmp_path / "a.lmdb", code=1).stderr


def test_zips_and_folders_can_be_mixed_and_held_out(tmp_path: Path) -> None:
    photos(tmp_path / "young", 8)
    photos(tmp_path / "old", 8, first=20)
    zipped(tmp_path / "old", tmp_path / "old.zip")
    flags = ["--per_source", 3, "--holdout", 2, "--sizes", "32,64"]
    run(tmp_path / "young", tmp_path / "old", tmp_path / "a.lmdb", *flags)
    run(tmp_path / "young", tmp_path / "old.zip", tmp_path / "b.lmdb", *flags, "--workers", 3)
    assert records(tmp_path / "a.lmdb") == records(tmp_path / "b.lmdb")
    assert json.loads(entries(tmp_path / "b.lmdb")["meta"])["sources"] == ["young", "old.zip"]


JSON_LINES = """\
{"file_name": "000000.png", "age": 20, "label": {"a": [1]}}

{"age": 41.5, "file_name": "./000001.png", "hair": "grey\\n, long", "old": true}
{"file_name": "000002.png", "age": null}
{"file_name": "gone.png", "age": 99, "old": true}
"""
CSV = '''\
age,file_name,caption
20,000000.png,young
41.5,000001.png,"grey

hair, ""long"""
,000002.png,
99,gone.png,x
'''


@pytest.mark.parametrize(("name", "text"), [("metadata.jsonl", JSON_LINES), ("metadata.csv", CSV)])
@pytest.mark.parametrize("folder", ["", "train"])
def test_the_tables_of_image_folders_choose(
    tmp_path: Path, name: str, text: str, folder: str
) -> None:
    """Names are relative to the table, as Hugging Face's documentation says."""
    photos(tmp_path / "src" / folder / "img", 3)
    text = text.replace("0000", "img/0000")
    table = tmp_path / "src" / folder / name
    table.write_text(text)
    flags = ["--table", table, "--where", "age>=40"]
    done = run(tmp_path / "src", tmp_path / "a.lmdb", *flags)
    chosen = str(Path(folder) / "img" / "000001.png")
    assert names(tmp_path / "a.lmdb") == [chosen]
    assert "the table has 4 names, 1 of them without a file; 0 files are not in it" in done.stdout
    found = rows(tmp_path / "a.lmdb")
    assert found[str(table)] == "a table, no photo"
    assert found["gone.png"] == "no such file, yet in the table"
    source = zipped(tmp_path / "src", tmp_path / "src.zip", method=zipfile.ZIP_DEFLATED)
    flags[1] = source / folder / name
    run(source, tmp_path / "b.lmdb", *flags)
    assert records(tmp_path / "b.lmdb") == records(tmp_path / "a.lmdb")
    run(tmp_path / "src", tmp_path / "c.lmdb")  # a table that is not named chooses nothing
    assert len(names(tmp_path / "c.lmdb")) == 3


def test_values_of_json_are_compared_as_they_are_written(tmp_path: Path) -> None:
    photos(tmp_path / "src", 3)
    (tmp_path / "t.txt").write_text(JSON_LINES)
    for condition, expected in {
        "old=true": ["000001.png"],
        "age=": ["000002.png"],
        'label={"a": [1]}': ["000000.png"],
        "hair=": ["000000.png", "000002.png"],
    }.items():
        flags = ["--table", tmp_path / "t.txt", "--where", condition, "--overwrite"]
        run(tmp_path / "src", tmp_path / "a.lmdb", *flags)
        assert names(tmp_path / "a.lmdb") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"file_name": "a.png"}\n{"file_name": ', "line 2 is not a JSON object"),
        ("[1]", "line 1 is not a JSON object"),
        ('{"file_name": "\\ud800"}', "line 1 is not a JSON object"),
        ("[" * 100_000, "line 1 is not a JSON object"),
        ('{"a": ' + "[" * 100_000, "line 1 is not a JSON object"),
        ("\n\n", "no rows in it"),
        ('{"age": 3}', "--where size: no such column"),
    ],
)
def test_json_that_is_none_ends_with_one_line(tmp_path: Path, text: str, said: str) -> None:
    photos(tmp_path / "src", 1)
    (tmp_path / "t.jsonl").write_text(text)
    flags = ["--table", tmp_path / "t.jsonl", "--where", "size=3"]
    assert said in run(tmp_path / "src", tmp_path / "a.lmdb", *flags, code=1).stderr


def test_a_table_missing_from_a_zip_ends_with_one_line(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "z.zip", [(name, PHOTO) for name in GOOD])
    flags = ["--table", source / "metadata.csv"]
    assert "There is no item named" in run(source, tmp_path / "a.lmdb", *flags, code=1).stderr
    flags = ["--table", tmp_path / "z.txt" / "metadata.csv"]
    (tmp_path / "z.txt").write_text("x")
    assert "Not a directory" in run(source, tmp_path / "a.lmdb", *flags, code=1).stderr
