"""prepare_data.py as its user meets it: photos in, an LMDB, a report and a summary out."""

import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.lmdb_format import HOLDOUT, TRAINING
from dataset import ImageBank
from prepare_data import read_arguments
from tests.support.folders import (
    encoded,
    entries,
    names,
    photos,
    pixels,
    records,
    report,
    run,
    scene,
    tree,
)


def test_good_photos_are_stored_and_the_others_reported(tmp_path: Path) -> None:
    source = photos(tmp_path / "src" / "deep", 3)
    (source / "page.jpg").write_bytes(b"<html>no photo</html>")
    (source / "notes.txt").write_bytes(b"hello")
    (source / "cut.jpg").write_bytes(encoded(scene())[:600])
    (source / "zero.jpg").symlink_to("/dev/zero")
    Image.new("RGB", (31, 500)).save(source / "thin.png")
    before = tree(tmp_path / "src")
    done = run(tmp_path / "src", tmp_path / "a.lmdb")
    assert tree(tmp_path / "src") == before
    assert names(tmp_path / "a.lmdb") == [f"deep/00000{index}.png" for index in range(3)]
    for index, record in enumerate(records(tmp_path / "a.lmdb")):
        expected = np.array((index * 37 % 256, index * 101 % 256, index))
        assert pixels(record).shape == (64, 64, 3)
        assert np.abs(pixels(record) - expected).max() < 4
    found = report(tmp_path / "a.lmdb")
    assert found.pop("cut.jpg").startswith("damaged: ")
    assert found == {
        "page.jpg": "not an image",
        "notes.txt": "not an image",
        "zero.jpg": "not a regular file",
        "thin.png": "too small: 31 x 500 px",
    }
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{tmp_path / 'a.lmdb'}: 3 of 8 files kept at 64 px, ")
    assert second.startswith("left out, see report.csv in it: 2 not an image, ")
    files = {path.name: path.read_bytes() for path in (tmp_path / "a.lmdb").iterdir()}
    assert set(files) == {"data.mdb", "lock.mdb", "report.csv", "contact_sheet.jpg"}
    assert os.fsencode(tmp_path) not in files["data.mdb"]


def test_what_was_asked_for_is_stored(tmp_path: Path) -> None:
    photos(tmp_path / "src", 2)
    (tmp_path / "t.csv").write_text("file_name,age\n000000.png,20\n000001.png,50\n")
    (tmp_path / "names.txt").write_text("000000.png\n000001.png\n")
    flags = [
        "--list",
        tmp_path / "names.txt",
        "--table",
        tmp_path / "t.csv",
        "--where",
        "age>=40",
        "--per_source",
        5,
    ]
    flags += ["--sizes", "32,8", "--quality", 40, "--min_size", 40, "--workers", 1]
    done = run(tmp_path / "src", tmp_path / "a.lmdb", *flags)
    assert names(tmp_path / "a.lmdb") == ["000001.png"]
    assert "src: only 1 good photos for --per_source 5" in done.stdout
    assert (
        "the list has 2 rows: 1 chosen, 1 left out by the table; 0 files are not in it"
        in done.stdout
    )
    assert (
        "the table has 2 rows: 1 chosen, 1 not chosen by --where; 0 files are not in it"
        in done.stdout
    )
    assert json.loads(entries(tmp_path / "a.lmdb")["meta"]) == {
        "count": 1,
        "format": 1,
        "settings": {
            "key": None,
            "list": "names.txt",
            "min_size": 40,
            "per_source": 5,
            "quality": 40,
            "seed": 0,
            "table": "t.csv",
            "where": ["age>=40"],
        },
        "sizes": [8, 32],
        "sources": ["src"],
    }
    recipe = ImageBank(tmp_path / "a.lmdb", 8).recipe
    assert (recipe.sizes, recipe.quality, recipe.min_size) == ((8, 32), 40, 40)


def test_per_source_takes_as_many_of_each_and_replaces_bad_ones(tmp_path: Path) -> None:
    photos(tmp_path / "young", 30)
    photos(tmp_path / "old", 30, first=100)
    for index in range(100, 120):
        (tmp_path / "old" / f"{index:06d}.png").write_bytes(b"bad")
    sources = [tmp_path / "young", tmp_path / "old"]
    done = run(*sources, tmp_path / "a.lmdb", "--per_source", 10)
    assert [name[3] for name in names(tmp_path / "a.lmdb")] == ["0"] * 10 + ["1"] * 10
    source = np.frombuffer(entries(tmp_path / "a.lmdb")["source"], "<u4")
    assert source.tolist() == [0] * 10 + [1] * 10
    assert "only" not in done.stdout
    assert [int(name[:6]) // 3 for name in names(tmp_path / "a.lmdb")[:10]] == list(range(10))
    run(*sources, tmp_path / "b.lmdb", "--per_source", 10, "--seed", 1)
    assert names(tmp_path / "b.lmdb") != names(tmp_path / "a.lmdb")


def test_photos_held_out_are_in_neither_count_nor_digest_nor_training(tmp_path: Path) -> None:
    photos(tmp_path / "young", 30)
    photos(tmp_path / "old", 12, first=100)
    (tmp_path / "old" / "000100.png").write_bytes(b"bad")
    path = tmp_path / "a.lmdb"
    done = run(tmp_path / "young", tmp_path / "old", path, "--holdout", 5, "--per_source", 8)
    assert "24 of 42 files kept" in done.stdout
    assert "10 of them are held out" in done.stdout
    assert "old: only 6 good photos for --per_source 8" in done.stdout
    content = entries(path)
    held_out = content["holdout-names"].decode().split("\0")
    assert [name[3] for name in held_out] == ["0"] * 5 + ["1"] * 5
    assert not set(held_out) & set(names(path))
    assert content["length"] == b"14"
    assert json.loads(content["meta"])["count"] == 14
    trained, unseen = (ImageBank(path, 64, part=part) for part in (TRAINING, HOLDOUT))
    assert (trained.count, trained.held_out, unseen.count) == (14, 10, 10)
    shown = {trained.take(np.array([i])).numpy().tobytes() for i in range(14)}
    assert not shown & {unseen.take(np.array([i])).numpy().tobytes() for i in range(10)}
    done = run(tmp_path / "young", tmp_path / "b.lmdb", "--holdout", 30, code=1)
    assert "takes all 30 good photos" in done.stderr
    assert not (tmp_path / "b.lmdb").exists()


def test_equal_names_and_equal_photos_are_all_kept(tmp_path: Path) -> None:
    for name in ("a", "b"):
        photos(tmp_path / "src" / name, 2)
    photos(tmp_path / "b" / "src", 2)
    run(tmp_path / "src", tmp_path / "b" / "src", tmp_path / "src", tmp_path / "a.lmdb")
    nested = ["a/000000.png", "a/000001.png", "b/000000.png", "b/000001.png"]
    assert names(tmp_path / "a.lmdb") == [*nested, "000000.png", "000001.png", *nested]
    assert len(records(tmp_path / "a.lmdb")) == 10


def test_the_contact_sheet_shows_evenly_spaced_images(tmp_path: Path) -> None:
    photos(tmp_path / "src", 150)
    run(tmp_path / "src", tmp_path / "a.lmdb")
    sheet = np.asarray(Image.open(tmp_path / "a.lmdb" / "contact_sheet.jpg")).astype(float)
    assert sheet.shape == (662, 662, 3)
    stored = records(tmp_path / "a.lmdb")
    for place in (0, 37, 99):
        row, column = divmod(place, 10)
        shown = sheet[2 + row * 66 : 66 + row * 66, 2 + column * 66 : 66 + column * 66]
        assert np.abs(shown - pixels(stored[place * 150 // 100])).mean() < 12


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("empty", "there are no files"),
        ("none", "No such file"),
        ("pipe", "neither a folder nor a regular file"),
        ("bad", "left out: 1 not an image"),
    ],
)
def test_a_source_without_photos_makes_nothing(tmp_path: Path, source: str, text: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    before = tree(tmp_path)
    assert text in run(tmp_path / source, tmp_path / "new.lmdb", code=1).stderr
    assert tree(tmp_path) == before


def test_unreadable_files_and_folders_are_reported(tmp_path: Path) -> None:
    source = photos(tmp_path / "src", 3)
    photos(source / "closed", 2)
    (source / "000001.png").chmod(0)
    (source / "closed").chmod(0)
    without_rights = []
    if not os.getuid():
        if shutil.which("setpriv") is None:
            pytest.skip("root reads everything, and there is no setpriv")
        without_rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    try:
        run(source, tmp_path / "a.lmdb", before=without_rights)
        reason = "cannot be read: Permission denied"
        assert report(tmp_path / "a.lmdb") == {"closed": reason, "000001.png": reason}
        assert names(tmp_path / "a.lmdb") == ["000000.png", "000002.png"]
    finally:
        (source / "closed").chmod(stat.S_IRWXU)


def test_a_database_within_the_source_is_not_searched(tmp_path: Path) -> None:
    source = photos(tmp_path / "src", 3)
    before = tree(source)
    run(source, source / "a.lmdb")
    run("src", "src/a.lmdb", "--overwrite", cwd=tmp_path)
    assert len(names(source / "a.lmdb")) == 3
    assert report(source / "a.lmdb") == {"a.lmdb": "a database"}
    assert "exists already" in run(source, source / "a.lmdb", code=1).stderr
    assert "other things than a database" in run(source, source, "--overwrite", code=1).stderr
    assert before.items() <= tree(source).items()


ODD = [b"\xff\xfe.png", b"new\nline.png", b"esc\x1b[31m.png", b"-x.png", b"n" * 251 + b".png"]
ODD += ["ñandú 日本.png".encode(), b"a,b\"c'.png", b" .png", b"%s{}.png"]


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_odd_names_are_kept_and_printed_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """Names that are not text, that would control a terminal, or look like flags."""
    source = os.path.join(os.fsencode(tmp_path), "fotos-ñ-日".encode() + b"\xff")
    os.mkdir(source)
    for name in ODD:
        with open(os.path.join(source, name), "wb") as file:
            file.write(encoded(scene(), "PNG"))
        with open(os.path.join(source, b"bad" + name[:200]), "wb") as file:
            file.write(b"x")
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    path = tmp_path / "señal.lmdb"
    done = run(source, path)
    assert f"{len(ODD)} of {2 * len(ODD)} files kept" in done.stdout
    assert sorted(map(os.fsencode, names(path))) == sorted(ODD)
    text = (path / "report.csv").read_text(encoding="utf-8")
    assert len(report(path)) == len(ODD)
    for escaped in ("badnew\\nline.png", "badesc\\x1b[31m.png", "bad\\xff\\xfe.png"):
        assert escaped in text
    assert "\x1b" not in text + done.stdout
    assert "\\xff\\n: cannot" in run(source + b"\n", tmp_path / "b.lmdb", code=1).stderr


@pytest.mark.slow
def test_records_do_not_depend_on_workers_or_the_order_on_disk(tmp_path: Path) -> None:
    made = photos(tmp_path / "a" / "src", 60)
    for index in range(0, 60, 7):
        (made / f"{index:06d}.png").write_bytes(b"bad")
    photos(made / "deep" / "er", 30, first=100)
    files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    for path in files[::-1]:
        (tmp_path / "b" / "src" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made / path, tmp_path / "b" / "src" / path)
    for name, workers in {"a": 1, "b": 8}.items():
        flags = ["--workers", workers, "--per_source", 40, "--holdout", 10]
        run(tmp_path / name / "src", tmp_path / f"{name}.lmdb", *flags)
    assert entries(tmp_path / "a.lmdb") == entries(tmp_path / "b.lmdb")
    assert len(names(tmp_path / "a.lmdb")) == 40


WRONG = ["0", "-1", "nan", "1e9", "1000000000000000000000", "x", "", "3.5"]
NUMBERS = ["--sizes", "--quality", "--min_size", "--per_source", "--workers"]
CASES = [(flag, value) for flag in NUMBERS for value in WRONG]
CASES += [("--seed", value) for value in WRONG[1:]]
CASES += [("--sizes", value) for value in ("48", "64,48", "2048", "64,", "64;32")]
CASES += [("--quality", "101"), ("--workers", "10000"), ("--key", "name"), ("--nonsense", "1")]
CASES += [("--where", value) for value in ("Young=-1", "Young", "age<old", "")]


@pytest.mark.parametrize(("flag", "value"), CASES)
def test_wrong_flags_are_usage_errors(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_arguments(["src", "a.lmdb", f"{flag}={value}"])
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert flag in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("paths", [["src"], ["src", "."], ["src", "/"]])
def test_a_destination_must_be_given(paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_arguments(paths)
    assert "DST" in capsys.readouterr().err


def test_a_usage_error_ends_with_2_and_makes_nothing(tmp_path: Path) -> None:
    photos(tmp_path / "src", 1)
    before = tree(tmp_path)
    assert "--sizes" in run(tmp_path / "src", tmp_path / "a.lmdb", "--sizes=48", code=2).stderr
    run(tmp_path / "src", tmp_path / "a.lmdb", "--list=", code=1)
    assert tree(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be assigned here")
def test_there_are_as_many_workers_as_usable_cores() -> None:
    one = {min(os.sched_getaffinity(0))}
    done = run("--help", preexec_fn=lambda: os.sched_setaffinity(0, one))
    assert "processes that prepare photos (default: 1)" in " ".join(done.stdout.split())
