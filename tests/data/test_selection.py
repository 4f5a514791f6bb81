"""selection.py: which files a source holds, which of them a list or table takes, and how many."""

import os
import socket
from pathlib import Path

import pytest

from data.selection import evenly_spaced, find_photos
from tests.support.folders import encoded, outcomes, photos, scene

GOOD = [b"000000.png", b"000001.png", b"000002.png"]


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A folder with three good photos."""
    return photos(tmp_path / "src", 3)


def left_out(source: Path) -> dict[str, str]:
    """Return why files are left out, by their paths relative to the source."""
    return {os.path.relpath(path, source): reason for path, reason in outcomes(source)[1].items()}


def test_files_are_sorted_by_path_and_hidden_ones_skipped(src: Path) -> None:
    photos(src / "b" / "deep", 1)
    photos(src / "a", 1)
    photos(src / ".git", 1)
    photos(src / "__MACOSX" / "a", 1)
    (src / ".hidden.jpg").write_bytes(b"x")
    good, reasons = outcomes(src)
    assert list(good) == [*GOOD, b"a/000000.png", b"b/deep/000000.png"]
    assert reasons == {}


def test_a_photo_is_a_source(src: Path) -> None:
    assert list(outcomes(src / "000001.png")[0]) == [b"000001.png"]


def test_links_are_followed_to_files_only(src: Path, tmp_path: Path) -> None:
    outside = photos(tmp_path / "outside", 1, first=9)
    (src / "broken.jpg").symlink_to("nowhere")
    (src / "self.jpg").symlink_to("self.jpg")
    (src / "loop").symlink_to(src)
    (src / "deep").mkdir()
    (src / "deep" / "up").symlink_to("..")
    (src / "elsewhere").symlink_to(outside)
    (src / "photo.png").symlink_to(outside / "000009.png")
    assert list(outcomes(src)[0]) == [*GOOD, b"photo.png"]
    found = left_out(src)
    assert found.pop("self.jpg").startswith("cannot be read: Too many levels")
    assert found.pop("broken.jpg") == "cannot be read: No such file or directory"
    assert found == dict.fromkeys(["loop", "deep/up", "elsewhere"], "a link to a folder")


def test_what_is_not_a_regular_file_is_not_opened(src: Path) -> None:
    (src / "folder.jpg").mkdir()
    os.mkfifo(src / "pipe.jpg")
    (src / "zero.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(src)  # a socket's path is at most 107 bytes
        try:
            listener.bind("socket.jpg")
        finally:
            os.chdir(here)
        found = left_out(src)
    assert found.pop("socket.jpg").startswith("cannot be read")
    assert found == dict.fromkeys(["pipe.jpg", "zero.jpg"], "not a regular file")


def test_a_photo_removed_after_the_search_is_left_out(
    src: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_and_remove(*arguments: object) -> object:
        found = find_photos(*arguments)  # type: ignore[arg-type]
        (src / "000001.png").unlink()
        return found

    monkeypatch.setattr("tests.support.folders.find_photos", find_and_remove)
    assert left_out(src) == {"000001.png": "cannot be read: No such file or directory"}


def test_databases_and_tables_of_labels_are_not_photos(src: Path) -> None:
    (src / "deep" / "a.lmdb").mkdir(parents=True)
    for name in ("data.mdb", "contact_sheet.jpg"):
        (src / "deep" / "a.lmdb" / name).write_bytes(encoded(scene()))
    for name in ("dataset.json", "metadata.csv", "metadata.jsonl"):
        (src / "deep" / name).write_text("{}")
    assert list(outcomes(src)[0]) == GOOD
    found = left_out(src)
    assert found.pop("deep/a.lmdb") == "a database"
    labels = [f"deep/{name}" for name in ("dataset.json", "metadata.csv", "metadata.jsonl")]
    assert found == dict.fromkeys(labels, "a table, no photo")
    assert left_out(src / "deep" / "a.lmdb") == {".": "a database"}


@pytest.mark.parametrize(
    ("count", "wanted"), [(10, 3), (1000, 10), (7, 7), (7, 6), (5, 9), (1, 1), (0, 4)]
)
def test_evenly_spaced_takes_one_from_each_of_as_many_equal_parts(count: int, wanted: int) -> None:
    places = evenly_spaced(count, wanted, seed=3)
    assert places == sorted(set(places))
    assert len(places) == min(count, wanted)
    bounds = [part * count // wanted for part in range(wanted + 1)]
    if wanted < count:
        assert all(bounds[i] <= place < bounds[i + 1] for i, place in enumerate(places))


def test_another_seed_takes_other_places() -> None:
    assert evenly_spaced(1000, 10, seed=3) != evenly_spaced(1000, 10, seed=4)
