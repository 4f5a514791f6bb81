"""export.py as its user meets it: files for other programs with their cards, or one line."""

import importlib.util
import json
import os
import shutil
import signal
import struct
import zipfile
from pathlib import Path

import pytest
import torch

import export
import generate
from checkpoints.checkpoint import load_generator
from sampling.sampler import load_faces
from tests.support.generators import CPU, call, error_of, needs, pixels, save_generator
from tests.support.rosinality import its_state, save
from tests.support.run import command, end, fork, hashes, start, wait_for

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
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot while 16 px are faded in."""
    path = tmp_path_factory.mktemp("run") / "snapshots" / "000010.pt"
    return save_generator(path, stage=[16, 0.25], iteration=10, nimg=160)


def write(*args: object) -> None:
    call(export.main, *args)


@needs("safetensors")
def test_safetensors_come_back_as_the_same_generator(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read by the package, by the description of the format, and by generate.py."""
    from safetensors import safe_open

    path = tmp_path / "faces.safetensors"
    write(snapshot, "--safetensors", path)
    assert "card: faces.safetensors.md" in capsys.readouterr().out
    G, _ = load_generator(snapshot, CPU)
    with safe_open(str(path), "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert state.keys() == G.state_dict().keys()
    assert all(torch.equal(state[name], own) for name, own in G.state_dict().items())
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    config = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["config"])
    assert config["model"] == vars(G.config)
    assert config["stage"] == [16, 0.25]
    assert (config["iteration"], config["nimg"]) == (10, 160)
    few = ["--seeds", "0-3", "--mix_seeds", "0", "1"]
    for source, out in ((snapshot, tmp_path / "a"), (path, tmp_path / "b")):
        call(generate.main, source, *few, "--out", out)
    made = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert "sample.png" in made
    for name in made:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@needs("safetensors")
def test_generators_of_rosinality_keep_their_pictures_as_safetensors(tmp_path: Path) -> None:
    theirs = save(tmp_path / "010000.model", "bare", its_state(1))
    write(theirs, "--safetensors", tmp_path / "faces.safetensors")
    pictures = []
    for path in (theirs, tmp_path / "faces.safetensors"):
        faces = load_faces(path, CPU, print)[0]
        pictures.append(faces.render(faces.ws([1], 0.7), faces.noise([1])))
    assert torch.equal(*pictures)


def test_pictures_are_those_of_generate(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(snapshot, "--images", 3, tmp_path / "samples", "--seed", 3, "--psi", 0.9)
    assert "samples: 3 pictures; card: samples.md" in capsys.readouterr().out
    assert "seeds 3 to 5, psi 0.9" in (tmp_path / "samples.md").read_text()
    flags = ["--seeds", "3-5", "--mix_seeds", "0", "1", "--psi", "0.9", "--singles"]
    call(generate.main, snapshot, *flags, "--out", tmp_path / "out")
    for i in range(3):
        made, same = tmp_path / "samples" / f"img{i:08d}.png", tmp_path / f"out/seed{3 + i:04d}.png"
        assert (pixels(made) == pixels(same)).all()
    assert sorted(os.listdir(tmp_path)) == ["out", "samples", "samples.md"]


def test_the_licence_reaches_the_card(snapshot: Path, tmp_path: Path) -> None:
    write(snapshot, "--images", 1, tmp_path / "a.zip", "--license", "cc-by-4.0")
    assert "license: cc-by-4.0\n" in (tmp_path / "a.zip.md").read_text()


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ([], 2, "nothing to write"),
        (["--onnx", "faces.pt"], 2, "does not end with .onnx"),
        (["--onnx", ".onnx"], 2, "does not end with .onnx"),
        (["--safetensors", "none/a.safetensors"], 2, "there is no folder"),
        (["--images", "0", "samples"], 2, "not a whole number in 1.."),
        (["--images", "5", "full"], 2, "exists already"),
        (["--images", "5", "file"], 2, "exists already"),
        (["--images", "5", "folder.zip"], 2, "is not a file"),
        (["--images", "5", "."], 2, "cannot name a new folder"),
        (["--images", "5", "a", "--license", "a: b"], 2, "is not a name"),
        (["--images", "5", "a", "--seed", "-1"], 2, "not a whole number"),
        (["--images", "5", "a", "--device", "cuda:99"], 1, "not on this machine"),
    ],
)
def test_mistakes_end_with_one_line(
    snapshot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("full/inner", "folder.zip"):
        Path(folder).mkdir(parents=True)
    Path("file").touch()
    before = sorted(tmp_path.rglob("*"))
    assert said in error_of(export.main, capsys, code, snapshot, *flags)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("flag", ["onnx", "safetensors"])
def test_a_missing_package_is_one_line(
    snapshot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flag: str,
) -> None:
    found = importlib.util.find_spec
    hidden = ("onnxscript", "safetensors")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in hidden else found(name, *a)
    )
    flags = (f"--{flag}", tmp_path / f"a.{flag}")
    said = error_of(export.main, capsys, 2, snapshot, *flags)
    assert "pip install -r requirements-export.txt" in said


def test_a_bad_checkpoint_is_one_line_and_no_file(
    snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Path(shutil.copy(snapshot, tmp_path / "bad.pt"))
    os.truncate(bad, 5000)
    assert "truncated" in error_of(export.main, capsys, 1, bad, "--images", 3, tmp_path / "a")
    assert os.listdir(tmp_path) == ["bad.pt"]


@pytest.mark.slow
@every
def test_a_full_disk_is_one_line_and_leaves_what_was_there(
    snapshot: Path, tmp_path: Path, wanted: tuple[object, ...]
) -> None:
    name = str(wanted[-1])
    if name != "a":
        (tmp_path / name).write_bytes(b"mine")
    before = hashes(tmp_path)
    ended = fork("export.py", snapshot, *wanted, cwd=tmp_path, patch=NO_ROOM.format(500))
    error = ended.failed()
    assert "File too large" in error
    assert f"'{name}" in error
    assert hashes(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == len(before)


@every
def test_a_name_that_is_too_long_or_taken_by_a_folder_is_one_line(
    snapshot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wanted: tuple[object, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    *flags, name = wanted
    suffix = Path(str(name)).suffix
    long = f"{'a' * 250}{suffix}"
    assert "too long" in error_of(export.main, capsys, 2, snapshot, *flags, long)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / str(name) / "mine").mkdir(parents=True)
    code = 1 if suffix == ".safetensors" else 2
    assert str(name) in error_of(export.main, capsys, code, snapshot, *wanted)
    assert [path.name for path in tmp_path.rglob("*")] == [str(name), "mine"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.zip", "a"])
def test_a_signal_leaves_no_pictures_and_one_line(
    snapshot: Path, tmp_path: Path, name: str
) -> None:
    for number, code in {signal.SIGINT: 130, signal.SIGTERM: 143}.items():
        argv = command("export.py", snapshot, "--images", 10_000_000, name)
        process = start(argv, cwd=tmp_path)
        wait_for(tmp_path / f".{name}.tmp", process)
        process.send_signal(number)
        ended = end(process)
        assert ended.code == code
        assert ended.messages == ["export.py: interrupted; finished exports stay"]
        assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_goes_with_the_next(snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / ".a.tmp").mkdir()
    for name in (".a.tmp/img00000009.png", ".a.zip.tmp"):
        (tmp_path / name).write_bytes(b"half")
    for name in ("a", "a.zip"):
        write(snapshot, "--images", 3, tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "a.md", "a.zip", "a.zip.md"}
    assert len(list((tmp_path / "a").iterdir())) == 3
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None


@pytest.mark.slow
@every
def test_an_export_may_have_any_name(
    snapshot: Path, tmp_path: Path, wanted: tuple[object, ...]
) -> None:
    *flags, name = wanted
    flags = [3 if flag == 400 else flag for flag in flags]
    for start_of in ("with space ", os.fsdecode(b"caf\xe9"), "-dash", "a\nb"):
        path = f"./{start_of}{name}"
        ended = fork("export.py", snapshot, *flags, path, cwd=tmp_path).succeeded()
        assert ended.err == ""
        assert (tmp_path / path).exists()
        card = (tmp_path / f"{path}.md").read_text()
        assert card.startswith("---\nlicense: unknown")
        assert card.count("\n# ") == 1
