"""Random trees, lists and tables: each row is used, or counted and named, whatever its form.

What must become of a row is stated here independently. RETRATO_EXAMPLES is the number tried.
"""

import csv
import io
import json
import os
import re
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from common.cli import UserError
from data.choice import select
from data.conditions import Condition
from data.selection import Report, find_photos
from data.tables import Wanted, read_list, read_table

EXAMPLES = int(os.environ.get("RETRATO_EXAMPLES", "40"))
CHECKED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 40,  # the same few in CI, others each time where there are many
    database=None,
    suppress_health_check=list(HealthCheck),
)
FILES = ["0.jpg", "ñ.jpg", "a b.png", "sub/1.jpg", "sub/deep/2.jpg", "sub/ü,;.gif"]
GONE = ["3.jpg", "sub/4.jpg", "é.png"]
PREFIXES = ["", "./", "src/", "/else/src/", "C:\\old\\src\\", ".//"]
# A value, and whether it is at least 40; None if it is no number.
VALUES = {"40": True, "40,5": True, "39,9": False, "-3": False, "1e2": True}
VALUES_ODD = {"": None, "old": None, "nan": None, "4_0": None}
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-16-le"]
ENDS = ["\n", "\r\n", "\r"]

ROWS = st.lists(
    st.tuples(
        st.sampled_from(FILES * 2 + GONE),
        st.sampled_from(PREFIXES),
        st.sampled_from([*VALUES, *VALUES_ODD]),
    ),
    min_size=1,
    max_size=12,
)


def as_text(rows: list[tuple[str, str]], form: str) -> str:
    """Return a table, with lines that end with LF."""
    objects = [{"age": value, "file_name": name} for name, value in rows]
    if form == "array":
        return json.dumps(objects, ensure_ascii=False, indent=1)
    if form == "lines":
        return "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in objects)
    text = io.StringIO()
    writer = csv.writer(text, delimiter=form, lineterminator="\n")
    writer.writerows([("age", "file_name"), *((value, name) for name, value in rows)])
    return text.getvalue() if form != "|" else f"sep=|\n{text.getvalue()}"


def tree(folder: Path, paths: list[str]) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    return folder


def written(name: str, prefix: str) -> str:
    return f"{prefix}{name}".replace("/", "\\") if "\\" in prefix else f"{prefix}{name}"


def chosen(src: Path, wanted: Wanted) -> tuple[set[str], Report]:
    report = Report()
    (kept,) = select([find_photos(0, src, report)], [wanted], report)
    return {photo.relative.decode() for photo in kept}, report


def counts(report: Report) -> tuple[int, Counter[str]]:
    """Return how many rows the summary says there are, and its counts by what became of them."""
    match = re.match(r"the \w+ has (\d+) rows: (.*); \d+ files are not in it", report.notes[0])
    assert match
    parts = (part.split(" ", 1) for part in match[2].split(", "))
    return int(match[1]), Counter({what: int(count) for count, what in parts})


def expected(rows: list[tuple[str, str, str]], has_where: bool) -> tuple[set[str], Counter[str]]:
    """Return the files that are kept, and how many rows have which outcome."""
    answers: dict[str, list[str]] = {}
    for name, _, value in rows:
        verdict = {True: "chosen", False: "not chosen by --where"}
        answer = verdict.get({**VALUES, **VALUES_ODD}[value]) if has_where else "chosen"
        answers.setdefault(name, []).append(
            answer or ("no number in age" if value else "no value in age")
        )
    found: Counter[str] = Counter()
    for name, each in answers.items():
        if name in GONE:
            found["without a file"] += len(each)
        elif "chosen" in each and set(each) != {"chosen"}:
            found["named twice with different answers to --where"] += len(each)
        else:
            found[each[0]] += 1
            found["named before"] += len(each) - 1
    kept = {name for name, each in answers.items() if name in FILES and set(each) == {"chosen"}}
    return kept, +found


@CHECKED
@given(
    rows=ROWS,
    form=st.sampled_from([",", ";", "\t", "|", "array", "lines"]),
    encoding=st.sampled_from(ENCODINGS),
    end=st.sampled_from(ENDS),
    has_where=st.booleans(),
)
def test_every_row_of_a_table_is_used_or_counted(
    rows: list[tuple[str, str, str]], form: str, encoding: str, end: str, has_where: bool
) -> None:
    # Without it, nothing says that the commas are decimal commas; without a file, it is an error.
    rows = [*rows, ("0.jpg", "", "40,5"), ("ñ.jpg", "./", "40")]
    kept, outcomes = expected(rows, has_where)
    assume(kept)
    with tempfile.TemporaryDirectory() as scratch:
        src = tree(Path(scratch) / "src", FILES)
        text = as_text([(written(name, prefix), value) for name, prefix, value in rows], form)
        path = Path(scratch) / "t.txt"
        path.write_bytes(text.replace("\n", end).encode(encoding))
        wanted = read_table(path, None, [Condition.parse("age>=40")] if has_where else [])
        found, report = chosen(src, wanted)
    assert found == kept
    assert counts(report) == (len(rows), outcomes)
    for what in outcomes.keys() - {"chosen"}:
        assert any(what in reason or "no such file" in reason for _, reason in report.rows)
    half = f"under half of the table is chosen: {outcomes['chosen']} of {len(rows)} rows"
    assert (half in report.notes) == (2 * outcomes["chosen"] < len(rows))


PARTS = st.sampled_from(["a", "A", "src", "n\u0303", "ñ", " x", "x ", "..", ".", "", "b\\c", "é?"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
ON_DISK = PARTS.filter(lambda part: part.strip(".") != "")
TREES = st.lists(
    st.tuples(st.sampled_from(["", "D1", "D1/D2", "src"]), ON_DISK).map("/".join), max_size=6
).map(lambda paths: [path.lstrip("/") for path in paths if path != "src"])


@CHECKED
@given(files=TREES, names=st.lists(PATHS, min_size=1, max_size=8))
def test_every_line_of_a_list_is_used_or_named(files: list[str], names: list[str]) -> None:
    """Whatever the names are, also where several of them meet a file, or one meets several."""
    files = [f"{path}.jpg" for path in files]
    names = [f"{name}.jpg" for name in names]
    with tempfile.TemporaryDirectory() as scratch:
        src = tree(Path(scratch) / "src", files)
        path = Path(scratch) / "list.txt"
        path.write_text("\n".join(names), encoding="utf-8")
        wanted = read_list(path)
        try:
            kept, report = chosen(src, wanted)
        except UserError:
            return
    if not files:
        assert report.rows == report.notes == []
        return
    said, outcomes = counts(report)
    assert said == len(names) == outcomes.total()
    assert set(outcomes) <= {"chosen", "named before", "without a file"}
    named = [reason for _, reason in report.rows if reason.endswith(tuple("0123456789"))]
    assert len(named) == len(names) - outcomes["chosen"]
    left_out = [reason for _, reason in report.rows if reason == "not in the list"]
    assert len(kept) + len(left_out) == len(set(files))
