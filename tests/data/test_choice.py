"""choice.py and mismatch.py: what lists and tables choose, and what is said of every row."""

from pathlib import Path

import pytest

from common.cli import UserError
from data.choice import select
from data.conditions import Condition
from data.selection import Report, find_photos
from data.tables import Wanted, read_list, read_table

PHOTOS = ["000.jpg", "001.jpg", "sub/002.jpg", "sub/003.jpg"]


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A folder with four files; what is in them does not matter here."""
    return made(tmp_path / "photos", PHOTOS)


def made(folder: Path, paths: list[str]) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    return folder


def chosen(source: Path, *wanted: Wanted) -> tuple[list[str], Report]:
    """Return the paths of the photos that all wanted choose, and the report."""
    report = Report()
    kept = select([find_photos(0, source, report)], wanted, report)
    return [photo.relative.decode() for photo in kept[0]], report


def written(folder: Path, text: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def table(folder: Path, text: str, *where: str) -> Wanted:
    conditions = [Condition.parse(condition) for condition in where]
    return read_table(written(folder, text), None, conditions)


def refusal(source: Path, wanted: Wanted) -> str:
    with pytest.raises(UserError) as caught:
        chosen(source, wanted)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "prefix", ["", "./", "photos/", "/else/photos/", "C:\\photos\\", "D:\\moved\\", "../photos/"]
)
@pytest.mark.parametrize("header", ["", "file,age\n"])
def test_lists_and_tables_match_by_the_same_rules(src: Path, prefix: str, header: str) -> None:
    separator = "\\" if "\\" in prefix else "/"
    rows = [f"{prefix}{path}".replace("/", separator) for path in (PHOTOS[1], PHOTOS[2])]
    if header:
        wanted = table(src.parent, header + "".join(f"{row},3\n" for row in rows))
    else:
        wanted = read_list(written(src.parent, "".join(f"{row}\r\n" for row in rows)))
    assert chosen(src, wanted)[0] == [PHOTOS[1], PHOTOS[2]]


def test_every_row_is_counted_and_named(src: Path) -> None:
    rows = "0/000.jpg,1\n000.jpg,40\n./000.jpg,40\n001.jpg,none\n002.jpg,\n,50\n003.jpg,3\n"
    kept, report = chosen(src, table(src.parent, f"file,age\n{rows}", "age>=40"))
    assert kept == ["000.jpg"]
    assert report.notes == [
        "the table has 7 rows: 1 chosen, 1 without a file, 1 named before, 1 no number in age, "
        "1 no value in age, 1 without a name, 1 not chosen by --where; 0 files are not in it",
        "under half of the table is chosen: 1 of 7 rows",
        "age>=40: left out, since no numbers: 1 values, such as 'none' in line 5",
    ]
    rows = [(name.removeprefix(f"{src}/"), reason) for name, reason in report.rows]
    assert rows == [
        ("001.jpg", "no number in age: none"),
        ("sub/002.jpg", "no value in age"),
        ("sub/003.jpg", "not chosen by --where"),
        ("0/000.jpg", "no such file, yet in the table: row 2"),
        ("./000.jpg", "named before in the table: row 4"),
        ("", "without a name in the table: row 7"),
    ]


def test_a_list_and_a_table_choose_together(src: Path) -> None:
    """What the list leaves out is no file that the table lacks."""
    names = read_list(written(src.parent, "000.jpg\n001.jpg\n", "names.txt"))
    rows = table(src.parent, "file,age\n001.jpg,40\n002.jpg,50\n000.jpg,3\n", "age>=40")
    kept, report = chosen(src, names, rows)
    assert kept == ["001.jpg"]
    assert report.notes == [
        "the list has 2 rows: 1 chosen, 1 left out by the table; 2 files are not in it",
        "the table has 3 rows: 1 chosen, 1 left out by the list, 1 not chosen by --where; "
        "1 files are not in it",
        "under half of the table is chosen: 1 of 3 rows",
    ]
    assert report.counts == {"not in the list": 2, "not chosen by --where": 1}


def test_a_file_named_twice_is_told_and_left_out_if_where_decides_both_ways(src: Path) -> None:
    text = "file,age\n000.jpg,40\n./000.jpg,30\n001.jpg,50\n001.jpg,51\n003.jpg,60\n"
    kept, report = chosen(src, table(src.parent, text, "age>=40"))
    assert kept == ["001.jpg", "sub/003.jpg"]
    what = "named twice with different answers to --where"
    assert f"5 rows: 2 chosen, 2 {what}, 1 named before; " in report.notes[0]
    assert report.counts[what] == 1
    values = "the table names 2 files more than once, with different values: '000.jpg' in rows 2"
    assert report.notes[-1] == f"{values} and 3"
    kept, report = chosen(src, table(src.parent, text))
    assert kept == ["000.jpg", "001.jpg", "sub/003.jpg"]
    assert report.notes[-1] == f"{values} and 3"


def test_names_of_several_files_are_told(src: Path) -> None:
    made(src / "b", ["002.jpg"])
    kept, report = chosen(src, read_list(written(src.parent, "002.jpg\n000.jpg\n")))
    assert kept == ["000.jpg", "b/002.jpg", "sub/002.jpg"]
    text = "1 names in the list are those of several files each, such as '002.jpg': all are taken"
    assert report.notes[1:] == [text]


def test_a_whole_path_is_not_taken_for_the_end_of_another(src: Path) -> None:
    """As find writes them, ./000.jpg is in the source itself."""
    made(src / "sub", ["000.jpg"])
    assert chosen(src, read_list(written(src.parent, "./000.jpg\n")))[0] == ["000.jpg"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("000.png", "photos/000.jpg'; expected the same ending"),
        ("000", "expected the same ending"),
        ("000.JPG", "expected the same capital letters"),
        ('"000.jpg"', "Remove the quotes"),
        ("other/003.jpg", "photos/sub/003.jpg'; expected the path within SRC"),
        ("other/003.png", "from the last folder to the ending"),
        ("3", "all of the name, with zeros and ending"),
        ("se\u00c3\u00b1al.jpg", "photos/se\u00f1al.jpg'; expected the same letters"),
        ("se?al.jpg", "an encoding is wrong. Save the names as UTF-8"),
        ("x/y.gif", "photos/000.jpg'; expected paths within SRC"),
        ("000.jpg,40", "line 1 is '000.jpg,40'. Give a table as --table"),
        ("x 000.jpg", "Give a table as --table"),
    ],
)
def test_a_list_that_meets_nothing_shows_a_name_of_each_side(
    src: Path, row: str, said: str
) -> None:
    made(src, ["se\u00f1al.jpg"])
    message = refusal(src, read_list(written(src.parent, f"{row}\n")))
    assert message.startswith(f"{src.parent / 't.csv'}: none of its 1 names is that of a file")
    assert said in message


def test_a_table_that_meets_nothing_says_where_the_names_are(src: Path) -> None:
    message = refusal(src, table(src.parent, ",age,image\n0,3,001.jpg\n"))
    assert "'image' has '001.jpg'. Add --key image" in message
    for text in ("001.jpg,3\n002.jpg,4\n", "001.tga,3\n002.tga,4\n"):
        made(src, ["001.tga", "002.tga"])
        with pytest.raises(
            UserError, match=r"the first row names a file, 001\.\w+; expected a hea"
        ):
            chosen(src, table(src.parent, text))


def test_a_choice_of_nothing_does_not_blame_the_folder(src: Path) -> None:
    text = "file,age\n000.jpg,3\n9.jpg,50\n"
    message = refusal(src, table(src.parent, text, "age>=40"))
    assert "no photo is chosen (the table has 2 rows: 0 chosen, " in message
    assert message.endswith("expected at least one. Check the names, and --where")


def test_without_lists_nothing_is_chosen_or_told(src: Path) -> None:
    kept, report = chosen(src)
    assert kept == PHOTOS
    assert report.notes == report.rows == []
