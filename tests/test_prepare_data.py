"""prepare_data.py as its user meets it: drawn photos in, an LMDB and one line of truth out."""

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from PIL import Image, ImageDraw
from PIL.JpegImagePlugin import JpegImageFile

from database import HOLDOUT, TRAINING
from dataset import ImageBank
from photos import PhotoError, open_photo, square
from selection import Condition, spread

ROOT = Path(__file__).parent.parent
COLOUR = (200, 60, 90)


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "prepare_data.py"), *map(str, arguments)]


def run(*arguments: object, code: int = 0, **options: Any) -> subprocess.CompletedProcess:
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=300,
        errors="replace",
        **options,
    )
    assert done.returncode == code, done.stderr
    if code:
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("prepare_data.py: error: ")
    else:
        assert done.stderr == ""
    return done


def scene(width: int = 60, height: int = 80) -> Image.Image:
    """Return a picture whose four corners tell which way is up."""
    image = Image.new("RGB", (width, height), COLOUR)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 2, height // 2), fill=(20, 30, 220))
    draw.rectangle((width // 2, height // 2, width, height), fill=(240, 230, 30))
    return image


def photos(folder: Path, count: int, first: int = 0) -> Path:
    """Fill a folder with photos of which no two are alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(first, first + count):
        colour = (index * 37 % 256, index * 101 % 256, index % 256)
        Image.new("RGB", (40, 50), colour).save(folder / f"{index:06d}.png")
    return folder


def entries(path: Path) -> dict[str, bytes]:
    """Read a database as rosinality's dataset.py does, with its options and keys."""
    options = {"readonly": True, "lock": False, "readahead": False, "meminit": False}
    with lmdb.open(str(path), max_readers=32, **options) as env, env.begin(write=False) as txn:
        return {key.decode(): bytes(value) for key, value in txn.cursor()}


def records(path: Path, size: int = 64) -> list[bytes]:
    content = entries(path)
    count = int(content["length"].decode("utf-8"))
    return [content[f"{size}-{str(index).zfill(5)}"] for index in range(count)]


def names(path: Path) -> list[str]:
    return entries(path)["names"].decode("utf-8", "surrogateescape").split("\0")


def report(path: Path) -> dict[str, str]:
    with (path / "report.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "reason"]
    return {os.path.basename(name): reason for name, reason in rows}


def opened(record: bytes) -> JpegImageFile:
    image = Image.open(io.BytesIO(record))
    assert isinstance(image, JpegImageFile)
    return image


def pixels(record: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(record)).convert("RGB")).astype(float)


def tree(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path).encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def grey16(value: int) -> Image.Image:
    return Image.fromarray(np.full((50, 50), value, np.uint16))


def see_through(mode: str) -> Image.Image:
    """Return a picture whose hidden colour is black and whose alpha is 0 on one half."""
    image = Image.new("RGBA", (50, 50), (*COLOUR, 255))
    image.paste((0, 0, 0, 0), (25, 0, 50, 50))
    return image.convert(mode)


def palette_see_through() -> Image.Image:
    image = Image.new("P", (50, 50), 0)
    image.putpalette([*COLOUR, 0, 0, 0])
    image.paste(1, (25, 0, 50, 50))
    image.info["transparency"] = 1
    return image


GREY = Image.new("RGB", (1, 1), COLOUR).convert("L").tobytes()[0]
HALF_WHITE = tuple((value + 255) / 2 for value in COLOUR)
MODES = [
    (Image.new("RGB", (50, 50), COLOUR), "JPEG", COLOUR),
    (Image.new("RGB", (50, 50), COLOUR), "PNG", COLOUR),
    (Image.new("RGB", (50, 50), COLOUR), "WEBP", COLOUR),
    (Image.new("RGB", (50, 50), COLOUR), "GIF", COLOUR),
    (Image.new("RGB", (50, 50), COLOUR), "BMP", COLOUR),
    (Image.new("RGB", (50, 50), COLOUR), "TIFF", COLOUR),
    (Image.new("RGB", (50, 50), COLOUR), "AVIF", COLOUR),
    (Image.new("RGB", (50, 50), COLOUR).convert("CMYK"), "JPEG", COLOUR),
    (Image.new("RGB", (50, 50), COLOUR).convert("CMYK"), "TIFF", COLOUR),
    (Image.new("RGB", (50, 50), COLOUR).convert("YCbCr"), "TIFF", COLOUR),
    (
        Image.new("RGB", (50, 50), COLOUR).convert("P", palette=Image.Palette.ADAPTIVE),
        "PNG",
        COLOUR,
    ),
    (Image.new("L", (50, 50), GREY), "JPEG", (GREY,) * 3),
    (Image.new("L", (50, 50), GREY), "PNG", (GREY,) * 3),
    (Image.new("1", (50, 50), 1), "PNG", (255,) * 3),
    (grey16(0x4000), "PNG", (64,) * 3),
    (grey16(0xFFFF), "TIFF", (255,) * 3),
    (grey16(300), "TIFF", (1,) * 3),
    (see_through("RGBA"), "PNG", HALF_WHITE),
    (see_through("RGBA"), "WEBP", HALF_WHITE),
    (see_through("RGBA"), "TIFF", HALF_WHITE),
    (see_through("RGBA"), "AVIF", HALF_WHITE),
    (see_through("LA"), "PNG", ((GREY + 255) / 2,) * 3),
    (palette_see_through(), "PNG", HALF_WHITE),
    (palette_see_through(), "GIF", HALF_WHITE),
]


def test_every_mode_and_format_keeps_its_mean_colour(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for index, (image, format_, _) in enumerate(MODES):
        options = {"lossless": True} if format_ == "WEBP" else {}
        # The name lies: the content alone decides.
        image.save(tmp_path / "src" / f"{index:02d}.jpg", format_, **options)
    run(tmp_path / "src", tmp_path / "a.lmdb")
    assert report(tmp_path / "a.lmdb") == {}
    means = [pixels(record).mean(axis=(0, 1)) for record in records(tmp_path / "a.lmdb")]
    for mean, (image, format_, expected) in zip(means, MODES, strict=True):
        assert mean == pytest.approx(expected, abs=4), (image.mode, format_)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied(tmp_path: Path, format_: str, orientation: int) -> None:
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    turns |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}  # how the camera was held
    held = scene()
    if orientation in turns:
        held = held.transpose(Image.Transpose[turns[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    held.save(tmp_path / "a", format_, exif=exif)
    difference = np.asarray(open_photo(tmp_path / "a"), float) - np.asarray(scene(), float)
    assert np.abs(difference).mean() < 5


def test_broken_exif_does_not_cost_the_photo(tmp_path: Path) -> None:
    scene().save(tmp_path / "a", "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(9))
    assert open_photo(tmp_path / "a").size == (60, 80)


def test_the_first_frame_stands_for_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    for format_ in ("GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"):
        frames[0].save(tmp_path / "a", format_, save_all=True, append_images=frames[1:])
        colour = open_photo(tmp_path / "a").getpixel((20, 20))
        assert colour == pytest.approx((255, 0, 0), abs=5), format_


def test_the_centre_square_is_taken_and_resampled_by_lanczos() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste((0, 0, 255), (100, 0, 200, 100))
    inner = np.asarray(square(image, 50))[:, 4:-4]  # at the border the filter sees beyond it
    assert np.array_equal(inner, np.tile((0, 0, 255), (50, 42, 1)))
    assert np.abs(np.asarray(square(image, 50)) - np.array((0, 0, 255))).mean() < 1
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))
    expected = noise.resize((64, 64), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(square(noise, 64)), np.asarray(expected))


def test_records_are_444_jpegs_without_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "SECRET"
    exif.get_ifd(0x8825)[1] = "N"
    (tmp_path / "src").mkdir()
    photo = tmp_path / "src" / "a.jpg"
    scene().save(photo, exif=exif, icc_profile=b"SECRET" * 30, comment=b"SECRET")
    run(tmp_path / "src", tmp_path / "a.lmdb")
    (record,) = records(tmp_path / "a.lmdb")
    image = opened(record)
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
    assert all(layer[1:3] == (1, 1) for layer in image.layer)
    assert not {"exif", "icc_profile", "comment"} & set(image.info)
    assert b"SECRET" not in record
    assert image.quantization == opened(encoded(scene(), 95)).quantization


def encoded(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def messy_folder(folder: Path) -> dict[str, str]:
    """Fill a folder with all that is no photo; return the reason expected for each file."""
    whole = encoded(scene(), 95)
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


def test_odd_names_survive_and_are_printed_escaped(tmp_path: Path) -> None:
    source = photos(tmp_path / "src", 1)
    odd = [b"\xff\xfe.png", b"new\nline.png", b"esc\x1b[31m.png", b"-x.png", b"n" * 251 + b".png"]
    for name in odd:
        scene().save(os.path.join(os.fsencode(source), name), "PNG")
        with open(os.path.join(os.fsencode(source), b"bad" + name[:200]), "wb") as file:
            file.write(b"x")
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    run(source, tmp_path / "a.lmdb", env=environment)
    assert sorted(map(os.fsencode, names(tmp_path / "a.lmdb"))) == sorted([b"000000.png", *odd])
    text = (tmp_path / "a.lmdb" / "report.csv").read_text(encoding="utf-8")
    assert len(report(tmp_path / "a.lmdb")) == 5
    assert "badnew\\nline.png" in text
    assert "badesc\\x1b[31m.png" in text
    assert "bad\\xff\\xfe.png" in text


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="drops root's rights by setpriv")
def test_unreadable_photos_and_folders_are_reported(tmp_path: Path) -> None:
    photos(tmp_path / "src", 3)
    photos(tmp_path / "src" / "closed", 2)
    (tmp_path / "src" / "000001.png").chmod(0)
    (tmp_path / "src" / "closed").chmod(0)
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    arguments = [*drop, *command(tmp_path / "src", tmp_path / "a.lmdb")]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    finally:
        (tmp_path / "src" / "closed").chmod(0o755)
    assert (done.returncode, done.stderr) == (0, "")
    reason = "cannot be read: Permission denied"
    assert report(tmp_path / "a.lmdb") == {"closed": reason, "000001.png": reason}


def test_an_unreadable_photo_is_a_photo_error_and_not_a_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in {
        "pipe": "not a regular file",
        "none": "cannot be read",
        ".": "not a",
    }.items():
        with pytest.raises(PhotoError, match=reason):
            open_photo(tmp_path / name)


def test_the_records_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    photos(tmp_path / "b", 40)
    photos(tmp_path / "a" / "nested", 40, first=40)
    messy_folder(tmp_path / "a")
    for workers in (1, 3):
        run(tmp_path / "b", tmp_path / "a", tmp_path / f"{workers}.lmdb", "--workers", workers)
    assert entries(tmp_path / "1.lmdb") == entries(tmp_path / "3.lmdb")
    expected = [f"{i:06d}.png" for i in range(40)] + [f"nested/{i:06d}.png" for i in range(40, 80)]
    assert names(tmp_path / "1.lmdb") == expected


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


def test_spread_takes_one_from_each_of_as_many_equal_parts() -> None:
    for count, wanted in [(10, 3), (1000, 10), (7, 7), (7, 6), (5, 9), (1, 1), (0, 4)]:
        places = spread(count, wanted, seed=3)
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
        assert opened(record).quantization == opened(encoded(scene(), 40)).quantization


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


def test_single_photos_and_a_destination_within_the_source_are_taken(tmp_path: Path) -> None:
    photos(tmp_path / "src", 3)
    run(tmp_path / "src" / "000001.png", tmp_path / "src", tmp_path / "src" / "a.lmdb")
    assert names(tmp_path / "src" / "a.lmdb") == ["000001.png", *(f"{i:06d}.png" for i in range(3))]
    run("src", "src/a.lmdb", "--overwrite", cwd=tmp_path)
    assert len(names(tmp_path / "src" / "a.lmdb")) == 3
    assert report(tmp_path / "src" / "a.lmdb") == {}


def test_an_existing_destination_is_left_as_it_was(tmp_path: Path) -> None:
    photos(tmp_path / "src", 3)
    run(tmp_path / "src", tmp_path / "a.lmdb")
    before = tree(tmp_path)
    assert "exists already" in run(tmp_path / "src", tmp_path / "a.lmdb", code=1).stderr
    assert tree(tmp_path) == before
    photos(tmp_path / "src", 1, first=3)
    run(tmp_path / "src", tmp_path / "a.lmdb", "--overwrite")
    assert len(names(tmp_path / "a.lmdb")) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.lmdb", "src"]


def test_overwrite_spares_what_is_no_database_of_faces(tmp_path: Path) -> None:
    photos(tmp_path / "src", 3)
    photos(tmp_path / "folder", 1)
    (tmp_path / "file").write_text("x")
    with lmdb.open(str(tmp_path / "foreign")) as env, env.begin(write=True) as txn:
        txn.put(b"mine", b"1")
    before = tree(tmp_path)
    for name in ("folder", "file", "foreign", "src"):
        run(tmp_path / "src", tmp_path / name, "--overwrite", code=1)
    assert tree(tmp_path) == before


def test_a_run_that_fails_keeps_the_old_database(tmp_path: Path) -> None:
    photos(tmp_path / "src", 3)
    (tmp_path / "bad").mkdir()
    messy_folder(tmp_path / "bad")
    run(tmp_path / "src", tmp_path / "a.lmdb")
    before = tree(tmp_path)
    done = run(tmp_path / "bad", tmp_path / "a.lmdb", "--overwrite", code=1)
    assert "no photo that can be used (left out: 5 not an image" in done.stderr
    assert tree(tmp_path) == before


def test_sources_without_photos_make_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for source, text in {"empty": "no files", "none": "No such file", "pipe": "neither"}.items():
        assert text in run(tmp_path / source, tmp_path / "a.lmdb", code=1).stderr
    photos(tmp_path / "src", 1)
    assert "cannot be made" in run(tmp_path / "src", tmp_path / "no" / "a.lmdb", code=1).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "pipe", "src"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--sizes", "0"],
        ["--sizes", "-1"],
        ["--sizes", "64,48"],
        ["--sizes", "1000000000"],
        ["--quality", "0"],
        ["--quality", "101"],
        ["--workers", "0"],
        ["--workers", "-1"],
        ["--workers", "10000"],
        ["--per_source", "0"],
        ["--holdout", "-1"],
        ["--min_size", "x"],
        ["--seed", "-1"],
        ["--where", "Young=-1"],
        ["--key", "name"],
        ["--where", "Young"],
        ["--where", "age<old"],
        ["--nonsense"],
    ],
)
def test_a_wrong_flag_ends_with_2_and_makes_nothing(tmp_path: Path, flags: list[str]) -> None:
    photos(tmp_path / "src", 1)
    before = tree(tmp_path)
    done = run(tmp_path / "src", tmp_path / "a.lmdb", *flags, code=2)
    assert flags[0] in done.stderr
    assert tree(tmp_path) == before


def test_one_path_alone_is_refused(tmp_path: Path) -> None:
    assert "SRC DST" in run(tmp_path, code=2).stderr


def start_long_run(folder: Path) -> subprocess.Popen:
    """Start a run of some seconds, and return once it is at work."""
    source = folder / "src"
    if not source.exists():
        source.mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
        Image.fromarray(noise).save(source / "00.jpg")
        for index in range(1, 80):
            os.link(source / "00.jpg", source / f"{index:02d}.jpg")
    arguments = command(source, folder / "a.lmdb", "--workers", 2)
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        arguments, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(children(process.pid)) < 3:  # two workers and the tracker of their semaphores
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


linux_only = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


@linux_only
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_in_one_line(tmp_path: Path, number: int, code: int) -> None:
    process = start_long_run(tmp_path)
    workers = children(process.pid)
    time.sleep(0.3)
    os.killpg(process.pid, number)  # to the workers too, as Ctrl-C does
    started = time.monotonic()
    _, errors = process.communicate(timeout=300)
    assert time.monotonic() - started < 15
    assert process.returncode == code
    assert errors == "prepare_data.py: interrupted; nothing was made\n"
    assert gone(workers)
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


@linux_only
def test_a_killed_run_leaves_no_database_and_the_next_one_works(tmp_path: Path) -> None:
    process = start_long_run(tmp_path)
    workers = children(process.pid)
    process.kill()
    process.communicate(timeout=300)
    assert gone(workers)
    assert not (tmp_path / "a.lmdb").exists()
    run(photos(tmp_path / "few", 3), tmp_path / "a.lmdb")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.lmdb", "few", "src"]


@linux_only
def test_a_killed_worker_ends_the_run_in_one_line(tmp_path: Path) -> None:
    process = start_long_run(tmp_path)
    second = run(tmp_path / "src", tmp_path / "a.lmdb", code=1)
    assert "in use" in second.stderr
    tracker, *workers = sorted(children(process.pid))
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert errors.startswith("prepare_data.py: error: --workers: one of the processes died")
    assert errors.count("\n") == 1
    assert gone([tracker, *workers])
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    photos(tmp_path / "src", 60)
    limited = "ulimit -f 16; exec " + " ".join(command(tmp_path / "src", tmp_path / "a.lmdb"))
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_a_closed_stdout_does_not_cost_the_database(tmp_path: Path) -> None:
    photos(tmp_path / "src", 3)
    with open("/dev/full", "w") as full:
        arguments = command(tmp_path / "src", tmp_path / "a.lmdb")
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(records(tmp_path / "a.lmdb")) == 3
