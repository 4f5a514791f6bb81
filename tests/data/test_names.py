"""names.py: which files the names in lists and tables meet."""

from pathlib import Path

import pytest

from data.names import Names, SourceNames, normalized, spellings

NFD, NFC = "n\u0303andu\u0301.jpg", "\u00f1and\u00fa.jpg"


def names(*sources: tuple[str, list[str]], is_zipped: bool = False) -> Names:
    """Return the names of sources, whose files are numbered through."""
    found = Names()
    number = 0
    for root, paths in sources:
        source = SourceNames(root.encode(), is_zipped)
        found.sources.append(source)
        for path in paths:
            for reading in spellings(path.encode("utf-8", "surrogateescape")):
                source.add(number, reading)
            number += 1
    return found


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("./a.jpg", "a.jpg"),
        ("a//b/./c.jpg", "a/b/c.jpg"),
        ("../photos/a.jpg", "photos/a.jpg"),
        ("a/../b.jpg", "b.jpg"),
        (r"C:\Users\Ana\a.jpg", "Users/Ana/a.jpg"),
        (r".\sub\a.jpg", "sub/a.jpg"),
        ("c:a.jpg", "c:a.jpg"),
        (NFD, NFC),
        (" a.jpg", " a.jpg"),
    ],
)
def test_paths_are_compared_in_one_form(written: str, path: str) -> None:
    assert normalized(written) == path


@pytest.mark.parametrize(
    ("name", "met"),
    [
        ("1.jpg", [0]),  # the whole path; not the end of sub/1.jpg
        ("sub/1.jpg", [1]),
        ("2.jpg", [2]),  # the end of a path
        ("photos/1.jpg", [0]),
        ("/elsewhere/photos/sub/1.jpg", [1]),
        (r"D:\photos\sub\2.jpg", [2]),
        ("  2.jpg ", [2]),
        ("other/1.jpg", []),
        ("/elsewhere/other/1.jpg", []),
        ("photos/2.jpg", []),  # what follows the source's name is the whole path
        ("hotos/1.jpg", []),
        ("1.JPG", []),
        ("", []),
        ("./", []),
    ],
)
def test_a_name_meets_the_end_of_a_path_or_what_follows_the_sources_name(
    tmp_path: Path, name: str, met: list[int]
) -> None:
    files = names((str(tmp_path / "photos"), ["1.jpg", "sub/1.jpg", "sub/2.jpg"]))
    assert files.find(name) == met


def test_the_folder_in_front_tells_sources_apart(tmp_path: Path) -> None:
    young, old = (str(tmp_path / name) for name in ("young", "old"))
    files = names((young, ["1.jpg"]), (old, ["1.jpg"]))
    assert files.find("young/1.jpg") == [0]
    assert files.find("C:\\faces\\old\\1.jpg") == [1]
    assert files.find("1.jpg") == [0, 1]
    files = names((f"{young}/p", ["1.jpg"]), (f"{old}/p", ["1.jpg"]))
    assert files.find(f"{old}/p/1.jpg") == [1]
    assert files.find("/else/young/p/1.jpg") == [0]
    assert files.find("p/1.jpg") == [0, 1]


def test_a_source_has_the_name_it_is_given_by_and_that_of_what_a_link_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real")
    for root in (str(tmp_path / "link"), "../link", "."):
        assert names((root, ["1.jpg"])).find("real/1.jpg") == [0]
    assert names(("../link", ["1.jpg"])).find("link/1.jpg") == [0]
    zipped = names(("faces.zip", ["1.jpg"]), is_zipped=True)
    assert zipped.find("faces/1.jpg") == zipped.find("faces.zip/1.jpg") == [0]


def test_names_meet_in_other_forms_and_encodings() -> None:
    on_disk = {
        "NFD": NFD,
        "NFC": NFC,
        "Latin-1": NFC.encode("latin-1").decode("utf-8", "surrogateescape"),
        "DOS": NFC.encode("cp850").decode("utf-8", "surrogateescape"),
        "Macintosh": NFC.encode("mac_roman").decode("utf-8", "surrogateescape"),
    }
    for path in on_disk.values():
        for name in on_disk.values():
            assert names(("s", ["\u00d2and.jpg", path])).find(name) == [1]


def test_bytes_that_are_no_utf8_mean_themselves_first() -> None:
    """Latin-1's n with a tilde is as good a name on disk as the UTF-8 of another file."""
    odd = b"\xf1.jpg".decode("utf-8", "surrogateescape")
    assert names(("s", ["\u00f1.jpg", odd])).find(odd) == [1]
    assert names(("s", [" a.jpg", "a.jpg"])).find(" a.jpg") == [0]


def test_absolute_paths_of_another_machine_may_stand_for_the_only_source(tmp_path: Path) -> None:
    files = names((str(tmp_path), ["1.jpg", "sub/1.jpg"]))
    assert files.find_moved([r"C:\pics\1.jpg", r"C:\pics\sub\1.jpg"]) == ("pics", [[0], [1]])
    assert files.find_moved(["/no/pics/sub/1.jpg"]) == ("no/pics", [[1]])
    assert files.find_moved(["/a/1.jpg", "/b/sub/1.jpg"]) is None
    assert files.find_moved(["pics/1.jpg"]) is None
    assert files.find_moved(["/1.png"]) is None
    (tmp_path / "here").mkdir()
    assert files.find_moved([f"{tmp_path}/here/1.jpg"]) is None
    assert names(("a", ["1.jpg"]), ("b", ["1.jpg"])).find_moved(["/no/1.jpg"]) is None
