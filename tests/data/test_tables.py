"""tables.py: lists, CelebA's table, CSV and JSON lines, and the conditions of --where."""

import re
from pathlib import Path

import pytest

from common.cli import UserError
from data.conditions import Condition
from data.tables import read_list, read_table


def chosen(path: Path, *where: str, key: str | None = None) -> list[str]:
    """Return the sorted names that a table chooses."""
    rows = read_table(path, key, [Condition.parse(text) for text in where]).rows
    return sorted(row.name for row in rows if row.is_chosen)


@pytest.mark.parametrize(
    ("text", "cell", "holds"),
    [
        ("a=1", "1.0", True),
        ("a=-1", "1", False),
        ("a!=x", "x", False),
        ("a!=x", "y", True),
        ("a<3", "2", True),
        ("a<=3", "3", True),
        ("a>3", "3", False),
        ("a>=3", "", None),
        ("a>=3", "three", None),
        ("a=", "", True),
        ("a = b c ", "b c", True),
    ],
)
def test_conditions_compare_numbers_as_numbers(text: str, cell: str, holds: bool | None) -> None:
    assert Condition.parse(text).holds(cell) is holds


@pytest.mark.parametrize(
    "text", ["Young", "", "age<old", "age==40", "age=>40", "age=<40", "age<>40"]
)
def test_what_is_not_a_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Condition.parse(text)


def test_a_list_has_one_name_per_line(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\ufeffsub/3.png\r\n7 and 8.png\n\n", encoding="utf-8")
    assert [row.name for row in read_list(path).rows] == ["sub/3.png", "7 and 8.png"]
    path.write_text("\n")
    with pytest.raises(UserError, match="no names in it"):
        read_list(path)
    with pytest.raises(UserError, match=re.escape("cannot be read (No such file")):
        read_list(tmp_path / "none.txt")


def test_celebas_own_table_chooses_by_its_attributes(tmp_path: Path) -> None:
    rows = [f"{i}.png  {1 if i % 2 else -1} {-1 if i < 4 else 1}" for i in range(1, 6)]
    path = tmp_path / "list_attr.txt"
    path.write_text("\n".join(["5", "Young Male", *rows, ""]))
    assert chosen(path, "Young=-1") == ["2.png", "4.png"]
    assert chosen(path, "Young=-1", "Male=1") == ["4.png"]
    assert chosen(path) == [f"{i}.png" for i in range(1, 6)]


def test_a_csv_chooses_by_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = "id,age,hair,path\n1,20,grey,0.png\n2,40,grey,1.png\n"
    path.write_text(text + '3,50,"dark, long",2.png\n4,,grey,9.png\n')
    assert chosen(path, "age>=40", key="path") == ["1.png", "2.png"]
    assert chosen(path, "hair!=grey", key="path") == ["2.png"]
    assert len(read_table(path, "path", []).rows) == 4
    path.write_text(text.replace(",", ";"))
    assert chosen(path, "age>=40", key="path") == ["1.png"]


JSON_LINES = """\
{"file_name": "0.png", "age": 20, "label": {"a": [1]}}

{"age": 41.5, "file_name": "./1.png", "hair": "grey\\n, long", "old": true}
{"file_name": "2.png", "age": null}
"""
CSV = '''\
age,file_name,caption
20,0.png,young
41.5,./1.png,"grey

hair, ""long"""
,2.png,
'''


@pytest.mark.parametrize(("name", "text"), [("metadata.jsonl", JSON_LINES), ("metadata.csv", CSV)])
def test_the_tables_of_image_folders_choose(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert chosen(tmp_path / name, "age>=40") == ["./1.png"]
    assert chosen(tmp_path / name) == ["./1.png", "0.png", "2.png"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("old=true", ["./1.png"]),
        ("age=", ["2.png"]),
        ('label={"a": [1]}', ["0.png"]),
        ("hair=", ["0.png", "2.png"]),
    ],
)
def test_json_values_are_compared_as_they_are_written(
    tmp_path: Path, condition: str, expected: list[str]
) -> None:
    (tmp_path / "t.txt").write_text(JSON_LINES)
    assert chosen(tmp_path / "t.txt", condition) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file_name": "a.png"}\n{"file_name": ', "line 2 is not a JSON object"),
        ('{"a": 1}\n[1]', "line 2 is not a JSON object"),
        ('{"file_name": "\\ud800"}', "line 1 is not a JSON object"),
        ('{"a": ' + "[" * 100_000, "line 1 is not a JSON object"),
        ("\n\n", "no rows in it"),
        ('{"age": 3}', "--where size: no such column in"),
        ("file,size\n0.png," + "x" * 200_000 + "\n", "line 2 cannot be read as a row"),
        ("file,size\n0.png,1,2\n", "line 2 has 3 values; expected 2"),
        ("file,age\n0.png,1\n", "expected one of file, age"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(UserError) as caught:
        chosen(tmp_path / "t.txt", "size=3")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def refusal(path: Path, content: str | bytes, *where: str) -> str:
    """Return the one line by which a table is refused."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        chosen(path, *where)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('f,a\n0.png,"x\n1.png,2\n', "the quote that opens in line 2 is not closed"),
        ('f,a\n0.png,3\n\n1.png,"x"y\n', "line 4 cannot be read as a row (',' expected after"),
        ('f,a\n0.png,"x\n1.png,5"\n', "the quote that opens in line 2 goes on over the rows"),
        ("f,a,a\n0.png,1,2\n", "2 columns are called a; expected a name for one"),
        ('{"f": "0.png", "a": 1, "a": 2}\n', "line 1 has a twice"),
        ('{"f": "0.png", "a": 1, "a ": 2}\n', "line 1 has a twice"),
        ('[{"f": "0.png"},\n {"f": ]', "line 2 is damaged; expected a JSON array"),
        ('[{"f": "0.png"}, 3]', "entry 2 is not a JSON object"),
        ("[]", "no rows in it"),
        ('{"0.png": {"a": 3}}', "0.png is a key; expected an object for each file"),
        ("0.png,3\n1.png,4\n", "the first row names a file, 0.png; expected a header"),
        ("0.png\n1.png\n", "or give a file of bare names as --list"),
        ("f;a\n0.png;1;2\n", "line 2 has 3 values; expected 2"),
        (b"PK\3\4workbook", "a zip or a workbook"),
        (b"f,a\n0.png,\0\n", "not a text"),
        ("f,a\n".encode("utf-16") + b"x", "not a text"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "not a text"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path / "t.txt", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f;age\n0;40\n1;40,5\n2;39,9\n", ["0", "1"]),
        ("f\tage\n0\t40\n1\t40,5\n", ["0", "1"]),
        ('f,age\n0,40\n1,"40,5"\n', ["0", "1"]),
        ("f;age\n0;1,234\n1;40\n", ["1"]),  # a thousand or one and a bit: nothing says which
        ("f;age\n0;41,234\n1;40\n2;0,125\n", ["0", "1"]),
        ("f;age\n0;1.234,5\n1;40\n2;nan\n3;4_0\n", ["1"]),
        ("sep=;\nf;age\n0;40\n", ["0"]),
        ('"sep=\t"\r\nf\tage\r\n0\t40\r\n', ["0"]),
        ("f;age, years;age\n0;3, or 4;40\n", ["0"]),
        ("a,b;file_name;age\n1,2;0;40\n", ["0"]),
        ("f,age,,\n0,40\n1,50,,,\n", ["0", "1"]),
        ("1\nimage_id age\n0 40\n", ["0"]),
        ('[\n {"f": "0", "age": 40},\n {"f": "1"}\n]\n', ["0"]),
        ('f,age,note\n0,40,"two\nlines, it is"\n1,50,\n', ["0", "1"]),
    ],
)
def test_numbers_and_columns_are_read_as_they_are_meant(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    (tmp_path / "t.txt").write_bytes(text.encode())
    assert chosen(tmp_path / "t.txt", "age>=40") == expected


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"]
)
def test_any_usual_encoding_is_read(tmp_path: Path, encoding: str, end: str) -> None:
    text = "file,año,caña\n0.png,40,sí\n1.png,30,no\n".replace("\n", end)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert chosen(tmp_path / "t.csv", "año>=40", "caña=sí") == ["0.png"]
    assert chosen(tmp_path / "t.csv", "an\u0303o<40") == ["1.png"]


def test_a_condition_that_no_row_meets_shows_what_the_column_holds(tmp_path: Path) -> None:
    rows = "f,old,age\n0.png,True,40\n1.png,False,30\n"
    said = refusal(tmp_path / "t.csv", rows, "old=1")
    assert "none of its 2 rows meets old=1; old holds 'True', 'False'. Check --where" in said
    assert "age holds '40', '30'" in refusal(tmp_path / "t.csv", rows, "old=True", "age>50")
    said = refusal(tmp_path / "t.csv", rows, "old=True", "age<40")
    assert "none of its 2 rows meets old=True and age<40; each condition is met, but" in said


def test_values_that_are_no_numbers_are_told_with_an_example(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("f,age,hair\n0.png,40,3\n1.png,old,x\n2.png,,y\n")

    def notes(condition: str) -> list[str]:
        return list(read_table(path, None, [Condition.parse(condition)]).notes)

    example = "since no numbers: 1 values, such as 'old' in line 3"
    assert notes("age>=40") == [f"age>=40: left out, {example}"]
    assert notes("age!=41") == [f"age!=41: compared as text, {example}"]
    assert notes("age!=young") == notes("hair!=grey") == []
    rows = read_table(path, None, [Condition.parse("age>=40")]).rows
    assert [row.reason for row in rows] == [None, "no number in age: old", "no value in age"]


def test_a_table_of_celeba_that_lacks_rows_says_so(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("3\nYoung\n0.png 1\n1.png 1\n")
    notes = read_table(tmp_path / "t.txt", None, []).notes
    assert notes == ["the table says that it has 3 rows, and has 2"]
