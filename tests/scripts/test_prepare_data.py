"""prepare_data.py as its user meets it: drawn photos in, an LMDB and one line of truth out."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from data.lmdb_format import HOLDOUT, TRAINING
from data.photos import PhotoError, open_photo, square
from data.selection import evenly_spaced
from data.tables import Condition
from dataset import ImageBank
from tests.support.folders import (
    COLOUR,
    encoded,
    entries,
    names,
    photos,
    pixels,
    records,
    report,
    run,
    scene,
)


def opened(record: bytes) -> JpegImageFile:
    image = Image.open(io.BytesIO(record))
    assert isinstance(image, JpegImageFile)
    return image


def test_the_centre_square_is_taken_and_resampled_by_lanczos() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste((0, 0, 255), (100, 0, 200, 100))
    inner = np.asarray(square(image, 50))[:, 4:-4]  # at the border the filter sees beyond it
    assert np.array_equal(inner, np.tile((0, 0, 255), (50, 42, 1)))
    assert np.abs(np.asarray(square(image, 50)) - np.array((0, 0, 255))).mean() < 1
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))
    expected = noise.resize((64, 64), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(square(noise, 64)), np.asarray(expected))


def messy_folder(folder: Path) -> dict[str, str]:
    """Fill a folder with all that is no photo; return the reason expected for each file."""
    whole = encoded(scene(), quality=95)
    page = b"<html>no photo</html>"
    for name, content in {
        "cut.jpg": whole[: len(whole) * 6 // 10],
        "empty.jpg": b"",
        "page.jpg": page,
        "notes.txt": b"hello",
        "Thumbs.db": bytes(600),
        "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n",
    }.items():
        (folder / name).write_bytes(content)
    Image.new("RGB", (31, 500), COLOUR).save(folder / "thin.png")
    Image.new("1", (12000, 12000)).save(folder / "bomb.png")
    Image.new("1", (20000, 20000)).save(folder / "bomb2.png")
    Image.new("F", (50, 50), 0.5).save(folder / "float.tif")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "broken_link.jpg").symlink_to("nowhere")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "loop").symlink_to(folder)
    (folder / "folder.jpg").mkdir()
    (folder / ".hidden.jpg").write_bytes(page)
    reasons = dict.fromkeys(["empty.jpg", "page.jpg", "notes.txt", "Thumbs.db"], "not an image")
    reasons |= {"script.jpg": "not an image", "bomb.png": "too many pixels"}
    reasons |= {"cut.jpg": "damaged", "thin.png": "too small", "bomb2.png": "too many pixels"}
    reasons |= dict.fromkeys(["pipe.jpg", "zero.jpg"], "not a regular file")
    reasons |= {"broken_link.jpg": "cannot be read", "loop": "a link to a folder"}
    return reasons | {"float.tif": "pixels of unknown range"}


def test_bad_files_are_reported_and_the_run_goes_on(tmp_path: Path) -> None:
    source = photos(tmp_path / "src" / "deep" / "deeper", 3)
    reasons = messy_folder(source)
    (source / "link.png").symlink_to(source / "000001.png")
    done = run(tmp_path / "src", tmp_path / "a.lmdb")
    found = report(tmp_path / "a.lmdb")
    assert {name: reason.partition(":")[0] for name, reason in found.items()} == reasons
    kept = [f"deep/deeper/{name}.png" for name in ("000000", "000001", "000002", "link")]
    assert names(tmp_path / "a.lmdb") == kept
    total = 4 + len(reasons) - 1  # the link to a folder is no file
    assert f"4 of {total} files kept" in done.stdout
    assert "5 not an image" in done.stdout


def test_an_unreadable_photo_is_a_photo_error_and_not_a_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in {
        "pipe": "not a regular file",
        "none": "cannot be read",
        ".": "not a",
    }.items():
        with pytest.raises(PhotoError, match=reason):
            open_photo(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are not given out here")
def test_there_are_as_many_workers_as_cores_that_may_be_used() -> None:
    one = {min(os.sched_getaffinity(0))}
    done = run("--help", preexec_fn=lambda: os.sched_setaffinity(0, one))
    assert "processes that prepare photos (default: 1)" in " ".join(done.stdout.split())


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
    done = run(*sources, tmp_path / "b.lmdb", "--per_source", 11)
    assert "old: only 10 good photos for --per_source 11" in done.stdout
    run(*sources, tmp_path / "c.lmdb", "--per_source", 10, "--seed", 1)
    assert names(tmp_path / "c.lmdb") != names(tmp_path / "a.lmdb")
    run(*sources, tmp_path / "d.lmdb", "--per_source", 10)
    assert entries(tmp_path / "d.lmdb") == entries(tmp_path / "a.lmdb")


def test_photos_held_out_are_in_neither_count_nor_digest_nor_training(tmp_path: Path) -> None:
    photos(tmp_path / "young", 30)
    photos(tmp_path / "old", 12, first=100)
    (tmp_path / "old" / "000100.png").write_bytes(b"bad")
    sources = [tmp_path / "young", tmp_path / "old"]
    done = run(*sources, tmp_path / "a.lmdb", "--holdout", 5, "--per_source", 8)
    assert "24 of 42 files kept" in done.stdout
    assert "10 of them are held out" in done.stdout
    assert "old: only 6 good photos for --per_source 8" in done.stdout
    content = entries(tmp_path / "a.lmdb")
    held_out = content["holdout-names"].decode().split("\0")
    assert [name[3] for name in held_out] == ["0"] * 5 + ["1"] * 5
    assert (
        len(set(held_out) | set(names(tmp_path / "a.lmdb"))) == len(names(tmp_path / "a.lmdb")) + 10
    )
    assert content["length"] == b"14"
    assert json.loads(content["meta"])["count"] == 14
    run(*sources, tmp_path / "b.lmdb", "--holdout", 5, "--per_source", 8, "--workers", 1)
    assert entries(tmp_path / "b.lmdb") == content
    trained, unseen = (
        ImageBank(tmp_path / "a.lmdb", 64, part=part) for part in (TRAINING, HOLDOUT)
    )
    assert (trained.count, trained.held_out, unseen.count) == (14, 10, 10)
    shown = {trained.take(np.array([i])).numpy().tobytes() for i in range(14)}
    assert not shown & {unseen.take(np.array([i])).numpy().tobytes() for i in range(10)}


def test_a_holdout_of_all_photos_is_refused(tmp_path: Path) -> None:
    photos(tmp_path / "src", 5)
    done = run(tmp_path / "src", tmp_path / "a.lmdb", "--holdout", 5, code=1)
    assert "takes all 5 good photos" in done.stderr
    assert not (tmp_path / "a.lmdb").exists()


def test_evenly_spaced_takes_one_from_each_of_as_many_equal_parts() -> None:
    for count, wanted in [(10, 3), (1000, 10), (7, 7), (7, 6), (5, 9), (1, 1), (0, 4)]:
        places = evenly_spaced(count, wanted, seed=3)
        assert places == sorted(set(places))
        assert len(places) == min(count, wanted)
        if wanted < count:
            bounds = [part * count // wanted for part in range(wanted + 1)]
            assert all(
                bounds[part] <= place < bounds[part + 1] for part, place in enumerate(places)
            )


def test_a_list_chooses_by_path_or_name_and_tells_what_is_missing(tmp_path: Path) -> None:
    photos(tmp_path / "src" / "sub", 10)
    lines = ["\ufeffsub/000003.png\r", "000007.png", "gone.png", ""]
    (tmp_path / "names.txt").write_text("\n".join(lines), encoding="utf-8")
    done = run(tmp_path / "src", tmp_path / "a.lmdb", "--list", tmp_path / "names.txt")
    assert names(tmp_path / "a.lmdb") == ["sub/000003.png", "sub/000007.png"]
    assert "the list has 3 names, 1 of them without a file; 8 files are not in it" in done.stdout
    assert report(tmp_path / "a.lmdb")["gone.png"] == "no such file, yet in the list"
    assert report(tmp_path / "a.lmdb")["000000.png"] == "not in the list"


def test_celebas_own_table_chooses_by_its_attributes(tmp_path: Path) -> None:
    photos(tmp_path / "src", 6, first=1)
    rows = [f"{i:06d}.png  {1 if i % 2 else -1} {-1 if i < 4 else 1}" for i in range(1, 6)]
    text = "\n".join(["5", "Young Male", *rows, ""])
    (tmp_path / "list_attr.txt").write_text(text)
    table = ["--table", tmp_path / "list_attr.txt"]
    run(tmp_path / "src", tmp_path / "a.lmdb", *table, "--where", "Young=-1")
    assert names(tmp_path / "a.lmdb") == ["000002.png", "000004.png"]
    assert report(tmp_path / "a.lmdb")["000006.png"] == "not in the table"
    assert report(tmp_path / "a.lmdb")["000001.png"] == "not chosen by --where"
    both = [*table, "--where", "Young=-1", "--where", "Male=1"]
    run(tmp_path / "src", tmp_path / "b.lmdb", *both)
    assert names(tmp_path / "b.lmdb") == ["000004.png"]
    run(tmp_path / "src", tmp_path / "c.lmdb", *table)
    assert len(names(tmp_path / "c.lmdb")) == 5


def test_a_csv_chooses_by_its_columns(tmp_path: Path) -> None:
    photos(tmp_path / "src", 4)
    text = "id,age,hair,path\n1,20,grey,000000.png\n2,40,grey,000001.png\n"
    text += '3,50,"dark, long",000002.png\n4,,grey,000009.png\n'
    (tmp_path / "t.csv").write_text(text)
    flags = ["--table", tmp_path / "t.csv", "--key", "path"]
    done = run(tmp_path / "src", tmp_path / "a.lmdb", *flags, "--where", "age>=40")
    assert names(tmp_path / "a.lmdb") == ["000001.png", "000002.png"]
    assert "the table has 4 names, 1 of them without a file; 1 files are not in it" in done.stdout
    run(tmp_path / "src", tmp_path / "b.lmdb", *flags, "--where", "hair!=grey")
    assert names(tmp_path / "b.lmdb") == ["000002.png"]
    done = run(tmp_path / "src", tmp_path / "c.lmdb", *flags, "--where", "Age=40", code=1)
    assert "no such column" in done.stderr
    assert "id, age, hair, path" in done.stderr


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


def test_each_image_flag_reaches_what_it_names(tmp_path: Path) -> None:
    photos(tmp_path / "src", 2)
    scene(200, 210).save(tmp_path / "src" / "large.png")
    flags = ["--sizes", "128,32", "--quality", 40, "--min_size", 45]
    run(tmp_path / "src", tmp_path / "a.lmdb", *flags)
    assert names(tmp_path / "a.lmdb") == ["large.png"]
    assert report(tmp_path / "a.lmdb")["000000.png"] == "too small: 40 x 50 px"
    for size in (32, 128):
        (record,) = records(tmp_path / "a.lmdb", size)
        assert opened(record).size == (size, size)
        assert opened(record).quantization == opened(encoded(scene(), quality=40)).quantization


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


def test_a_table_that_is_no_csv_is_refused_in_one_line(tmp_path: Path) -> None:
    photos(tmp_path / "src", 1)
    (tmp_path / "t.csv").write_text("file,note\n000000.png," + "x" * 200_000 + "\n")
    done = run(tmp_path / "src", tmp_path / "a.lmdb", "--table", tmp_path / "t.csv", code=1)
    assert "cannot be read as a table" in done.stderr
