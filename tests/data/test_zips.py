"""zips.py: what is in a zip is read as from a folder, and bad zips and members are refused."""

import json
import os
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from common.cli import UserError
from data.choice import select
from data.photos import PhotoError
from data.selection import Report, find_photos
from data.tables import read_list, read_table
from data.zips import MAX_MEMBER, Member, list_members, open_member
from tests.support.folders import encoded, outcomes, scene

PHOTO = encoded(scene(), "PNG")
NAMES = ["000000.png", "000001.png", "000002.png"]


def write_zip(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def test_the_zips_of_nvidias_tools_are_read_as_they_are(tmp_path: Path) -> None:
    labels = json.dumps({"labels": [[f"00000/img{i:08d}.png", i] for i in range(3)]}).encode()
    members = [(f"00000/img{i:08d}.png", PHOTO) for i in (2, 0, 1)]
    source = write_zip(tmp_path / "faces.zip", [*members, ("dataset.json", labels)])
    good, reasons = outcomes(source)
    assert list(good) == [f"00000/img{i:08d}.png".encode() for i in range(3)]
    assert reasons == {f"{source}/dataset.json": "a table, no photo"}


def test_names_that_lead_out_of_the_zip_are_left_out(tmp_path: Path) -> None:
    outside = [("../evil.png", PHOTO), ("a/../../evil.png", PHOTO), ("/tmp/evil.png", PHOTO)]
    hidden = [("__MACOSX/._a.png", b"x"), (".git/a.png", PHOTO), ("dir/", b"")]
    inside = [("./here.png", PHOTO), ("deep/er/a.png", PHOTO)]
    with pytest.warns(UserWarning, match="Duplicate"):
        source = write_zip(tmp_path / "z", [*outside, *hidden, *inside, ("deep/er/a.png", PHOTO)])
    good, reasons = outcomes(source)
    assert list(good) == [b"./here.png", b"deep/er/a.png"]
    assert reasons.pop(f"{source}/deep/er/a.png").startswith("another of the same name")
    assert reasons == {f"{source}/{name}": "its name leads out of the zip" for name, _ in outside}
    assert [path.name for path in tmp_path.iterdir()] == ["z"]


def zip_of_bytes(path: Path, names: list[bytes], system: int = 3, **fields: Any) -> Path:
    """Write a zip whose names are these bytes, without the flag that says they are UTF-8."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo(f"{number:03d}".ljust(len(name), "_"))
            info.create_system = system
            for field, value in fields.items():
                setattr(info, field, value)
            archive.writestr(info, PHOTO)
    content = path.read_bytes()
    for number, name in enumerate(names):
        content = content.replace(f"{number:03d}".ljust(len(name), "_").encode(), name)
    path.write_bytes(content)
    return path


def listed(source: Path, names: str) -> list[bytes]:
    """Return the paths of the photos that a list of these names chooses, and check they open."""
    path = source.with_suffix(".txt")
    path.write_text(names, encoding="utf-8")
    report = Report()
    (kept,) = select([find_photos(0, source, report)], [read_list(path)], report)
    assert all(open_member(photo.place).read() == PHOTO for photo in kept)  # type: ignore[arg-type]
    return [photo.relative for photo in kept]


def test_zips_of_windows_have_folders_too(tmp_path: Path) -> None:
    names = [b"photos\\a.png", b"photos\\.b.png", b"__MACOSX\\c.png", b"photos\\", b"..\\d.png"]
    source = zip_of_bytes(tmp_path / "z.zip", names, system=0)
    good, reasons = outcomes(source)
    assert list(good) == [b"photos/a.png"]
    assert reasons == {f"{source}/../d.png": "its name leads out of the zip"}
    assert listed(source, "photos/a.png\n") == [b"photos/a.png"]
    assert listed(source, "C:\\photos\\a.png\n") == [b"photos/a.png"]
    source = zip_of_bytes(tmp_path / "unix.zip", [b"back\\slash.png"], system=3)
    assert list(outcomes(source)[0]) == [b"back\\slash.png"]


def test_a_table_in_a_zip_of_windows_is_found(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "z.zip", [("train\\metadata.csv", b"file_name\na.png\n")])
    source.write_bytes(source.read_bytes().replace(b"\x14\x03", b"\x14\x00"))  # made by FAT
    assert len(read_table(source / "train" / "metadata.csv", None, []).rows) == 1


@pytest.mark.parametrize("page", ["cp437", "cp850", "cp1252", "mac_roman"])
def test_names_in_any_code_page_are_met(tmp_path: Path, page: str) -> None:
    names = ["ñandú.png", "sub/Übung.png", "plain.png"]
    source = zip_of_bytes(tmp_path / "z.zip", [name.encode(page) for name in names[::-1]])
    assert len(listed(source, "ñandú.png\nÜbung.png\n")) == 2
    assert len(outcomes(source)[0]) == 3


def test_zips_of_macos_have_utf8_names_without_saying_so(tmp_path: Path) -> None:
    nfd = "n\u0303andu\u0301.png"
    names = [nfd.encode(), f"__MACOSX/._{nfd}".encode(), b"__MACOSX/a.png", b".DS_Store"]
    source = zip_of_bytes(tmp_path / "z.zip", names)
    assert outcomes(source) == ({nfd.encode(): outcomes(source)[0][nfd.encode()]}, {})
    assert listed(source, "\u00f1and\u00fa.png") == [nfd.encode()]


def test_a_name_in_the_unicode_field_counts(tmp_path: Path) -> None:
    raw, name = "ñ日.png".encode("cp437", "replace"), "ñ日.png".encode()
    for crc, expected in ((zlib.crc32(raw), name), (0, "ñ?.png".encode())):
        field = struct.pack("<HHBI", 0x7075, 5 + len(name), 1, crc) + name
        source = zip_of_bytes(tmp_path / "z.zip", [raw], extra=b"\1\0\1\0x" + field)
        assert list(outcomes(source)[0]) == [expected]


def test_the_order_of_a_zip_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """Names read anew must not change a database: here UTF-8 would sort the other way round."""
    names = ["Á.png", "Â.png"]
    as_before = sorted(names, key=lambda name: name.encode().decode("cp437").encode())
    assert as_before == names[::-1]
    source = zip_of_bytes(tmp_path / "z.zip", [name.encode() for name in names])
    assert [name.decode() for name in outcomes(source)[0]] == as_before


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
        archive.writestr("bomb.png", b"small")
        archive.writestr("liar.png", bytes(1_000_000))
    patched(source, "locked.png", 8, b"\1\0", local=6)
    patched(source, "crc.png", 16, b"\1\2\3\4", local=14)
    patched(source, "lies.png", 24, struct.pack("<I", len(PHOTO) // 2), local=22)
    patched(source, "bomb.png", 24, struct.pack("<I", MAX_MEMBER + 1), local=22)
    patched(source, "liar.png", 24, struct.pack("<I", 1000), local=22)
    good, reasons = outcomes(source)
    assert list(good) == [b"good.png"]
    found = {os.path.basename(name): reason for name, reason in reasons.items()}
    assert found.pop("locked.png") == "encrypted"
    assert found.pop("bomb.png") == f"too large: {MAX_MEMBER + 1:,} bytes"
    for name in ("bz2.png", "lzma.png"):
        assert found.pop(name) == "compressed otherwise than by deflate"
    for name in ("junk.png", "inner.zip"):
        assert found.pop(name) == "not an image"
    for name in ("crc.png", "lies.png", "liar.png"):
        assert found.pop(name).startswith("damaged: Bad CRC-32")
    assert not found


def test_a_bomb_takes_no_more_memory_than_the_size_it_states(tmp_path: Path) -> None:
    source = tmp_path / "z.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(2**26))
    patched(source, "bomb.png", 24, struct.pack("<I", 100_000), local=22)
    tracemalloc.start()
    with pytest.raises(PhotoError, match="Bad CRC-32"):
        open_member(Member(bytes(source), b"bomb.png"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_damaged_zips_are_refused_in_one_line(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "z.zip", [(name, PHOTO) for name in NAMES])
    whole = source.read_bytes()
    for content in (
        whole[:-30],
        whole[: len(whole) // 2],
        whole[:4],
        whole.replace(b"PK\1\2", b"PK\1\3"),
    ):
        source.write_bytes(content)
        with pytest.raises(UserError) as caught:
            outcomes(source)
        assert str(caught.value).startswith(f"{source}: a damaged zip (")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        list_members(tmp_path / "none.zip")
    assert outcomes(write_zip(tmp_path / "empty", [])) == ({}, {})
    source.write_bytes(b"PK")
    assert outcomes(source) == ({}, {str(source): "not an image"})


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A bomb of members that overlap needs no large one (Fifield 2019)."""
    source = write_zip(tmp_path / "z.zip", [(name, PHOTO) for name in NAMES])
    for name in NAMES[1:]:
        patched(source, name, 20, struct.pack("<I", 3 * len(PHOTO)))
    with pytest.raises(UserError, match="its members take more than"):
        outcomes(source)


def test_a_table_can_be_in_a_zip(tmp_path: Path) -> None:
    table = b"file_name,age\na.png,3\n"
    source = write_zip(tmp_path / "z.zip", [("train/metadata.csv", table), ("a.png", PHOTO)])
    (row,) = read_table(source / "train" / "metadata.csv", None, []).rows
    assert row.name == "a.png"
    with pytest.raises(UserError, match=r"there is no metadata\.csv in the zip"):
        read_table(source / "metadata.csv", None, [])
    (tmp_path / "z.txt").write_text("x")
    with pytest.raises(UserError, match="Not a directory"):
        read_table(tmp_path / "z.txt" / "metadata.csv", None, [])
