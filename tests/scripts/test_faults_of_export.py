"""export.py under faults: one line, the right exit code, nothing half written, no hang."""

import importlib.util
import os
import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scripts.test_faults_of_generate import forge_weights, numb, save
from tests.support.run import command, end, flip, fork, hashes, start, wait_for

NO_ROOM = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))\n"
WANTED = {
    "safetensors": ("--safetensors", "a.safetensors"),
    "zip": ("--images", 400, "a.zip"),
    "folder": ("--images", 400, "a"),
}
if not importlib.util.find_spec("safetensors"):
    del WANTED["safetensors"]
every = pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("sound") / "sound.pt")


@every
def test_no_checkpoint(sound: Path, tmp_path: Path, wanted: tuple[object, ...]) -> None:
    """Missing, empty, truncated, flipped, a FIFO: a line, and nothing is made."""
    bad, out = tmp_path / "bad.pt", tmp_path / "out"
    out.mkdir()
    makers: dict[str, Callable[[], object]] = {
        "No such file": lambda: None,
        "truncated or not": bad.touch,
        "truncated": lambda: os.truncate(shutil.copy(sound, bad), 5000),
        "checksum": lambda: flip(Path(shutil.copy(sound, bad))),
        "not a checkpoint": lambda: os.mkfifo(bad),
    }
    for told, make in makers.items():
        make()
        ended = fork("export.py", bad, *wanted, cwd=out, memory=4096)
        assert told in ended.failed()
        assert ended.out == ""
        assert list(out.iterdir()) == []
        bad.unlink(missing_ok=True)


@every
def test_no_room(sound: Path, tmp_path: Path, wanted: tuple[object, ...]) -> None:
    """A disk that is full at once: a line that names the file; what was there is as it was."""
    name = str(wanted[-1])
    if name != "a":
        (tmp_path / name).write_bytes(b"mine")
    before = hashes(tmp_path)
    ended = fork("export.py", sound, *wanted, cwd=tmp_path, patch=NO_ROOM.format(500))
    error = ended.failed()
    assert "File too large" in error
    assert f"'{name}" in error
    assert hashes(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == len(before)


def test_no_samples(tmp_path: Path) -> None:
    """Images that are alike: a line, no pictures."""
    forge_weights(tmp_path / "bad.pt", numb)
    for name in ("a", "a.zip"):
        ended = fork("export.py", "bad.pt", "--images", 3, name, cwd=tmp_path)
        assert "all seeds give the same image" in ended.failed()
        assert os.listdir(tmp_path) == ["bad.pt"]


@every
def test_no_place(sound: Path, tmp_path: Path, wanted: tuple[object, ...]) -> None:
    """A name too long for the disk, one that is taken by a folder: a line, nothing is left."""
    *flags, name = wanted
    suffix = Path(str(name)).suffix
    ended = fork("export.py", sound, *flags, f"{'a' * 250}{suffix}", cwd=tmp_path)
    assert "too long" in ended.failed(2)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / str(name) / "mine").mkdir(parents=True)
    assert str(name) in fork("export.py", sound, *wanted, cwd=tmp_path).error
    assert [path.name for path in tmp_path.rglob("*")] == [str(name), "mine"]


@pytest.mark.parametrize("name", ["a.zip", "a"])
def test_stopped_midway(sound: Path, tmp_path: Path, name: str) -> None:
    """SIGINT and SIGTERM: 130, 143 and a line; of the pictures nothing is left."""
    for number, code in {signal.SIGINT: 130, signal.SIGTERM: 143}.items():
        argv = command("export.py", sound, "--images", 10_000_000, name)
        process = start(argv, cwd=tmp_path)
        wait_for(tmp_path / f".{name}.tmp", process)
        process.send_signal(number)
        ended = end(process)
        assert ended.code == code
        assert ended.told == ["export.py: interrupted; finished exports stay"]
        assert list(tmp_path.iterdir()) == []


def test_after_a_kill_the_next_export_is_whole(sound: Path, tmp_path: Path) -> None:
    """What a killed export left behind goes with the next one of the same name."""
    (tmp_path / ".a.tmp").mkdir()
    for name in (".a.tmp/img00000009.png", ".a.zip.tmp"):
        (tmp_path / name).write_bytes(b"half")
    for name in ("a", "a.zip"):
        fork("export.py", sound, "--images", 3, name, cwd=tmp_path).succeeded()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.md", "a.zip", "a.zip.md"}
    assert len(list((tmp_path / "a").iterdir())) == 3
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None


@every
def test_any_name(sound: Path, tmp_path: Path, wanted: tuple[object, ...]) -> None:
    """Spaces, bytes that are no text, a leading dash, a newline: all work."""
    *flags, name = wanted
    flags = [3 if flag == 400 else flag for flag in flags]
    for start_of in ("with space ", os.fsdecode(b"caf\xe9"), "-dash", "a\nb"):
        path = f"./{start_of}{name}"
        ended = fork("export.py", sound, *flags, path, cwd=tmp_path).succeeded()
        assert ended.err == ""
        assert (tmp_path / path).exists()
        card = (tmp_path / f"{path}.md").read_text()
        assert card.startswith("---\nlicense: unknown")
        assert card.count("\n# ") == 1
