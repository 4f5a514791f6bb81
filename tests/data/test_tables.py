"""tables.py: lists, CelebA's table, CSV and JSON lines, and the conditions of --where."""

import re
from pathlib import Path

import pytest

from common.cli import UserError
from data.tables import Condition, read_list, read_table


def chosen(path: Path, *where: str, key: str | None = None) -> list[str]:
    """Return the sorted names that a table chooses."""
    return sorted(read_table(path, key, [Condition.parse(text) for text in where]).chosen)


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
        ("a>=3", "", False),
        ("a=", "", True),
        ("a = b c ", "b c", True),
    ],
)
def test_conditions_compare_numbers_as_numbers(text: str, cell: str, holds: bool) -> None:
    assert Condition.parse(text).holds(cell) is holds


@pytest.mark.parametrize("text", ["Young", "", "age<old"])
def test_what_is_not_a_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Condition.parse(text)


def test_a_list_has_one_name_per_line(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\ufeffsub/3.png\r\n7 and 8.png\n\n", encoding="utf-8")
    assert read_list(path).names == read_list(path).chosen == {"sub/3.png", "7 and 8.png"}
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
    assert len(read_table(path, "path", []).names) == 4
    assert chosen(path) == ["1", "2", "3", "4"]  # without file_name, the first column
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
    assert chosen(tmp_path / name, "age>=40") == ["1.png"]
    assert chosen(tmp_path / name) == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("old=true", ["1.png"]),
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
        ("file,size\n0.png," + "x" * 200_000 + "\n", "cannot be read as a table"),
        ("file,size\n0.png,1,2\n", "row 1 has 3 values; expected 2"),
        ("file,age\n0.png,1\n", "expected one of file, age"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(UserError) as caught:
        chosen(tmp_path / "t.txt", "size=3")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
