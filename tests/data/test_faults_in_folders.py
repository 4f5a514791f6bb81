"""Names, links, rights and destinations: what folders hold besides photos.

The rows P10 to P17, P23, P25 and P27 of the list of faults.
"""

import os
import resource
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest

from tests.support.folders import (
    LongRun,
    encoded,
    entries,
    large_photos,
    names,
    photos,
    reasons,
    report,
    run,
    scene,
    tree,
)

GOOD = ["000000.png", "000001.png", "000002.png"]


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A folder with three good photos."""
    return photos(tmp_path / "src", 3)


def without_rights() -> list[str]:
    """Return a command that runs what follows it without root's right to read everything."""
    if os.getuid():
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root reads everything, and there is no setpriv")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def test_p10_unreadable_files_and_folders_are_reported(src: Path, tmp_path: Path) -> None:
    """P10: chmod 000 on a photo, on a folder within, and on the source."""
    photos(src / "closed", 2)
    (src / "000001.png").chmod(0)
    (src / "closed").chmod(0)
    reason = "cannot be read: Permission denied"
    try:
        run(src, tmp_path / "a.lmdb", before=without_rights())
        assert report(tmp_path / "a.lmdb") == {"closed": reason, "000001.png": reason}
        assert names(tmp_path / "a.lmdb") == ["000000.png", "000002.png"]
        flags = [src / "closed", tmp_path / "b.lmdb"]
        done = run(*flags, code=1, before=without_rights())
        assert "1 cannot be read" in done.stderr
        assert not (tmp_path / "b.lmdb").exists()
    finally:
        (src / "closed").chmod(0o755)


def test_p11_links_are_followed_to_files_only(src: Path, tmp_path: Path) -> None:
    """P11: broken links, loops of links, links to folders, a photo linked from outside."""
    outside = photos(tmp_path / "outside", 1, first=9)
    (src / "broken.jpg").symlink_to("nowhere")
    (src / "self.jpg").symlink_to("self.jpg")
    (src / "ping.jpg").symlink_to("pong.jpg")
    (src / "pong.jpg").symlink_to("ping.jpg")
    (src / "loop").symlink_to(src)
    (src / "deep").mkdir()
    (src / "deep" / "up").symlink_to("..")
    (src / "elsewhere").symlink_to(outside)
    (src / "photo.png").symlink_to(outside / "000009.png")
    run(src, tmp_path / "a.lmdb")
    assert names(tmp_path / "a.lmdb") == [*GOOD, "photo.png"]
    loop = dict.fromkeys(["self.jpg", "ping.jpg", "pong.jpg"], "cannot be read: Too many levels")
    found = report(tmp_path / "a.lmdb")
    folders = dict.fromkeys(["loop", "up", "elsewhere"], "a link to a folder")
    gone = {"broken.jpg": "cannot be read: No such file or directory"}
    assert found.keys() == {*loop, *folders, *gone}
    assert all(found[name].startswith(reason) for name, reason in (loop | folders | gone).items())


def test_p12_what_is_no_regular_file_is_not_opened(src: Path, tmp_path: Path) -> None:
    """P12: a folder, FIFO, socket and endless device under a photo's name."""
    (src / "folder.jpg").mkdir()
    os.mkfifo(src / "pipe.jpg")
    (src / "zero.jpg").symlink_to("/dev/zero")
    (src / "terminal.jpg").symlink_to("/dev/tty")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(src)  # a socket's path is at most 107 bytes
        try:
            listener.bind("socket.jpg")
        finally:
            os.chdir(here)
        run(src, tmp_path / "a.lmdb")
    found = report(tmp_path / "a.lmdb")
    assert names(tmp_path / "a.lmdb") == GOOD
    assert found.keys() == {"pipe.jpg", "zero.jpg", "terminal.jpg", "socket.jpg"}
    assert found["pipe.jpg"] == found["zero.jpg"] == "not a regular file"


ODD = [b"\xff\xfe.png", b"new\nline.png", b"esc\x1b[31m.png", b"-x.png", b"n" * 251 + b".png"]
ODD += ["ñandú 日本.png".encode(), b"a,b\"c'.png", b" .png", b"%s{}.png"]


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_p13_odd_names_survive_and_are_printed_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """P13: names that are no text, that would write to a terminal, or look like flags."""
    source = os.path.join(os.fsencode(tmp_path), "fotos-ñ-日".encode() + b"\xff")
    os.mkdir(source)
    for name in ODD:
        with open(os.path.join(source, name), "wb") as file:
            file.write(encoded(scene(), "PNG"))
        with open(os.path.join(source, b"bad" + name[:200]), "wb") as file:
            file.write(b"x")
    before = tree(tmp_path)
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done = run(source, tmp_path / "señal.lmdb")
    path = tmp_path / "señal.lmdb"
    assert f"{len(ODD)} of {2 * len(ODD)} files kept" in done.stdout
    assert sorted(map(os.fsencode, names(path))) == sorted(ODD)
    assert before.items() <= tree(tmp_path).items()
    text = (path / "report.csv").read_text(encoding="utf-8")
    assert len(report(path)) == len(ODD)
    for escaped in ("badnew\\nline.png", "badesc\\x1b[31m.png", "bad\\xff\\xfe.png"):
        assert escaped in text
    assert "\x1b" not in text + done.stdout
    line = run(source, tmp_path / "señal.lmdb", code=1).stderr
    assert "exists already" in line
    assert "\\xff\\n: cannot" in run(source + b"\n", tmp_path / "b.lmdb", code=1).stderr


def test_p14_equal_names_and_equal_photos_are_all_kept(tmp_path: Path) -> None:
    """P14: the same name in two folders, the same bytes twice, the same source twice."""
    for name in ("a", "b"):
        photos(tmp_path / "src" / name, 2)
    photos(tmp_path / "b" / "src", 2)
    run(tmp_path / "src", tmp_path / "b" / "src", tmp_path / "src", tmp_path / "a.lmdb")
    nested = [f"{folder}/{name}" for folder in "ab" for name in GOOD[:2]]
    assert names(tmp_path / "a.lmdb") == [*nested, *GOOD[:2], *nested]
    stored = entries(tmp_path / "a.lmdb")
    assert [key for key in stored if key.startswith("64-")] == [f"64-{i:05d}" for i in range(10)]


@pytest.mark.slow
def test_p15_sources_without_photos_make_nothing(tmp_path: Path) -> None:
    """P15: a source that is missing, empty, all bad, a FIFO or a text; the old DST stays."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"x")
    (tmp_path / "text").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    run(photos(tmp_path / "src", 2), tmp_path / "old.lmdb")
    before = tree(tmp_path)
    for source, text in {
        "empty": "there are no files",
        "none": "No such file",
        "pipe": "neither a folder nor a regular file",
        "bad": "left out: 1 not an image",
        "text": "left out: 1 not an image",
    }.items():
        assert text in run(tmp_path / source, tmp_path / "new.lmdb", code=1).stderr
        assert text in run(tmp_path / source, tmp_path / "old.lmdb", "--overwrite", code=1).stderr
    assert tree(tmp_path) == before
    run(tmp_path / "src" / "000001.png", tmp_path / "one.lmdb")  # a photo is a source too
    assert names(tmp_path / "one.lmdb") == ["000001.png"]


@pytest.mark.slow
def test_p16_what_stands_at_the_destination_is_spared(src: Path, tmp_path: Path) -> None:
    """P16: DST is a file, a folder, ours, a foreign or damaged LMDB, a link, or cannot be made."""
    photos(tmp_path / "folder", 1)
    (tmp_path / "file").write_text("x")
    (tmp_path / "broken").symlink_to("nowhere/far")
    with lmdb.open(str(tmp_path / "foreign")) as env, env.begin(write=True) as txn:
        txn.put(b"mine", b"1")
    run(src, tmp_path / "ours.lmdb")
    shutil.copytree(tmp_path / "ours.lmdb", tmp_path / "damaged")
    os.truncate(tmp_path / "damaged" / "data.mdb", 9000)
    shutil.copytree(tmp_path / "ours.lmdb", tmp_path / "mixed")
    (tmp_path / "mixed" / "thesis.tex").write_text("x")
    before = tree(tmp_path)
    for name in (
        "folder",
        "file",
        "broken",
        "foreign",
        "damaged",
        "mixed",
        "src",
        "file/a",
        "no/a",
    ):
        run(src, tmp_path / name, code=1)
        run(src, tmp_path / name, "--overwrite", code=1)
    assert "exists already" in run(src, tmp_path / "ours.lmdb", code=1).stderr
    assert tree(tmp_path) == before


def test_p16_a_link_to_a_database_stays_a_link(src: Path, tmp_path: Path) -> None:
    """P16: --overwrite through a link replaces what it leads to, as often as one likes."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.lmdb").symlink_to("disk/a.lmdb")
    for count in (3, 4, 5):
        photos(src, count)
        run(src, tmp_path / "a.lmdb", "--overwrite")
        assert len(names(tmp_path / "disk" / "a.lmdb")) == count
    assert (tmp_path / "a.lmdb").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.lmdb", "disk", "src"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["a.lmdb"]


def test_p17_databases_within_the_source_are_not_searched(src: Path, tmp_path: Path) -> None:
    """P17: DST in the source, and one made there earlier, whose contact sheet is no photo."""
    before = tree(src)
    run(src, src / "a.lmdb")
    run(src, src / "b.lmdb")
    run("src", "src/a.lmdb", "--overwrite", cwd=tmp_path)
    for name in ("a.lmdb", "b.lmdb"):
        assert names(src / name) == GOOD
    assert report(src / "b.lmdb") == {"a.lmdb": "a database"}
    run(src, src, code=1)
    run(src, src, "--overwrite", code=1)
    assert "1 a database" in run(src / "a.lmdb", tmp_path / "c.lmdb", code=1).stderr
    assert before.items() <= tree(src).items()


@contextmanager
def meanwhile(change: object) -> Iterator[None]:
    """Call `change` again and again in a thread."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            change()  # type: ignore[operator]

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
def test_p23_files_that_vanish_or_change_are_left_out(tmp_path: Path) -> None:
    """P23: photos and folders that are removed, emptied and replaced while the run reads them."""
    source = photos(tmp_path / "src", 40)
    whole = encoded(scene(), "PNG")
    turn = 0

    def change() -> None:
        nonlocal turn
        turn += 1
        path = source / f"x{turn % 7}.png"
        shutil.rmtree(source / "deep", ignore_errors=True)
        if turn % 3 == 0:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(whole if turn % 3 == 1 else whole[:50])
        photos(source / "deep" / str(turn % 5), 2)

    for number in range(3):
        with meanwhile(change):
            time.sleep(0.1)
            run(source, tmp_path / f"{number}.lmdb")
        kept = names(tmp_path / f"{number}.lmdb")
        assert {f"{index:06d}.png" for index in range(40)} <= set(kept)
        found = set(reasons(tmp_path / f"{number}.lmdb").values())
        assert found <= {"cannot be read", "not an image", "damaged"}


@pytest.mark.slow
def test_p23_photos_removed_after_the_search_are_left_out(tmp_path: Path) -> None:
    """P23: all but the first photos are removed while the run is at work."""
    source = large_photos(tmp_path / "src", 100)
    long = LongRun(source, tmp_path / "a.lmdb", "--workers", 2)
    for path in sorted(source.iterdir())[90:]:
        path.unlink()
    long.end(0)
    found = report(tmp_path / "a.lmdb")
    assert len(names(tmp_path / "a.lmdb")) + len(found) == 100
    assert set(found.values()) == {"cannot be read: No such file or directory"}


WRONG = ["0", "-1", "nan", "1e9", "1000000000000000000000", "x", "", "3.5"]
FLAGS = ["--sizes", "--quality", "--min_size", "--per_source", "--workers", "--seed"]
CASES = [(flag, value) for flag in FLAGS for value in WRONG if (flag, value) != ("--seed", "0")]
CASES += [("--sizes", value) for value in ("48", "64,48", "2048", "64,", "64;32")]
CASES += [("--quality", "101"), ("--workers", "10000")]
CASES += [("--where", value) for value in ("Young=-1", "Young", "age<old", "")]
CASES += [("--key", "name"), ("--nonsense", "1"), ("--list", ""), ("--table", "")]


def children_seconds() -> float:
    """Return the processor time of all runs so far: their own, whatever else the machine does."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("flag", sorted({flag for flag, _ in CASES}))
def test_p25_wrong_flags_are_told_and_nothing_is_made(src: Path, flag: str) -> None:
    """P25: every flag with numbers at the edge and words: one line, exit 2, within 3 s."""
    before = tree(src.parent)
    for value in (value for name, value in CASES if name == flag):
        code = 1 if flag in ("--list", "--table") else 2
        before_seconds = children_seconds()
        done = run(src, src.parent / "a.lmdb", f"{flag}={value}", code=code)
        assert children_seconds() - before_seconds < 3
        if code == 2:
            assert flag in done.stderr
    assert tree(src.parent) == before


def test_p25_one_path_alone_and_no_name_are_refused(src: Path) -> None:
    """P25: SRC without DST, and a DST that names nothing."""
    assert "SRC DST" in run(src, code=2).stderr
    for name in (".", "/"):
        assert "DST" in run(src, name, code=2).stderr


@pytest.mark.slow
def test_p27_records_do_not_depend_on_workers_or_the_order_on_disk(tmp_path: Path) -> None:
    """P27: 1 and 8 workers, and copies whose files were made in other orders, give one database."""
    made = photos(tmp_path / "a" / "src", 60)
    for index in range(0, 60, 7):
        (made / f"{index:06d}.png").write_bytes(b"bad")
    photos(made / "deep" / "er", 30, first=100)
    files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    shuffled = sorted(files, key=lambda path: hash(str(path)[::-1]) % 997)
    for name, order in {"b": files[::-1], "c": shuffled}.items():
        for path in order:
            (tmp_path / name / "src" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made / path, tmp_path / name / "src" / path)
    found = []
    for name, workers in {"a": 1, "b": 8, "c": 3}.items():
        flags = ["--workers", workers, "--per_source", 50]
        run(tmp_path / name / "src", tmp_path / f"{name}.lmdb", *flags)
        found.append(entries(tmp_path / f"{name}.lmdb"))
    assert found[0] == found[1] == found[2]
    assert len(names(tmp_path / "a.lmdb")) == 50
    reports = {(tmp_path / f"{n}.lmdb" / "report.csv").read_text().count("\n") for n in "abc"}
    assert len(reports) == 1
