"""generate.py as its user meets it: grids, mixes and films, or one line if they cannot be made."""

import importlib.util
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import generate
from common.device import dtype_of_pictures
from model import ModelConfig
from outputs.film import enlarge
from outputs.grids import mix_sheet
from sampling.sampler import Faces, load_faces
from tests.support.generators import CPU, call, error_of, make_deaf, pixels, save_generator
from tests.support.run import (
    ROOT,
    bound_by_modes,
    command,
    end,
    fork,
    on_read_only,
    on_small_disk,
    run,
    start,
    wait_for,
)

GAP = 2  # px between the pictures of a sheet
FEW = ("--seeds", "0-3", "--mix_seeds", "0", "1", "--mix_layers", "coarse")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of 16 px."""
    return save_generator(tmp_path_factory.mktemp("small") / "run" / "snapshots" / "000010.pt")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of 64 px."""
    config = ModelConfig(64, 0.03, z_dim=16, w_dim=16, mapping_layers=2)
    return save_generator(tmp_path_factory.mktemp("full") / "snapshot.pt", config)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def draw(*args: object) -> None:
    call(generate.main, *args)


def refused(capsys: pytest.CaptureFixture[str], code: int, *args: object) -> str:
    return error_of(generate.main, capsys, code, *args)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def cell(sheet: np.ndarray, row: int, column: int, side: int = 16) -> np.ndarray:
    top, left = (GAP + place * (side + GAP) for place in (row, column))
    return sheet[top : top + side, left : left + side]


def load(path: Path) -> Faces:
    """Return the generator as generate.py uses it here."""
    faces = load_faces(path, CPU, pytest.fail).faces
    faces.dtype = dtype_of_pictures("auto", CPU)
    return faces


def test_without_flags_a_sample_and_a_mix_of_each_part_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_generator(tmp_path / "a.pt")
    draw(path)
    made = tmp_path / "generated"
    sheets = ["sample.png", "mix_coarse.png", "mix_middle.png"]
    assert names(made) == set(sheets)
    assert pixels(made / "sample.png").shape == (8 * 18 + GAP, 8 * 18 + GAP, 3)
    apart = 18 + GAP + 2
    for name in sheets[1:]:
        sheet = pixels(made / name)
        assert sheet.shape == (6 * 18 + GAP + apart, 8 * 18 + GAP + apart, 3)
        assert (sheet[:apart, :apart] == 255).all(), "the corner is not blank"
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(path), *(str(made / n) for n in sheets)]


def test_a_snapshot_of_a_run_is_drawn_in_the_folder_of_the_run(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(small, *FEW)
    assert names(small.parent.parent / "generated") == {"sample.png", "mix_coarse.png"}
    monkeypatch.chdir(small.parent)
    (small.parent.parent / "generated" / "sample.png").unlink()
    draw(small.name, *FEW)
    assert (small.parent.parent / "generated" / "sample.png").exists()
    assert names(small.parent) == {small.name}


def test_the_same_seed_is_the_same_picture_whatever_is_made_with_it(
    small: Path, tmp_path: Path
) -> None:
    flags = ("--singles", "--seeds")
    draw(small, *FEW, *flags, 5, "--out", tmp_path / "alone")
    draw(small, *FEW, *flags, "0-40", "--n_col", 3, "--out", tmp_path / "many")
    alone, many = (tmp_path / name / "seed0005.png" for name in ("alone", "many"))
    assert alone.read_bytes() == many.read_bytes()
    face = cell(pixels(tmp_path / "many" / "sample.png"), 1, 2)
    assert (face == pixels(alone)).all()


def test_files_are_named_by_their_seeds_up_to_the_largest(small: Path, out: Path) -> None:
    draw(small, "--singles", "--seeds", f"7,3-4,{2**63 - 1}", "--out", out)
    singles = {"seed0007.png", "seed0003.png", "seed0004.png", "seed9223372036854775807.png"}
    assert names(out) - singles == {"sample.png", "mix_coarse.png", "mix_middle.png"}
    sheet = pixels(out / "sample.png")
    assert sheet.shape == (16 + 2 * GAP, 4 * (16 + GAP) + GAP, 3)
    for column, name in enumerate(["seed0007", "seed0003", "seed0004"]):
        assert (cell(sheet, 0, column) == pixels(out / f"{name}.png")).all()


def test_a_mix_of_a_face_with_itself_is_that_face(small: Path, out: Path) -> None:
    draw(small, "--mix_seeds", 3, 3, "--out", out)
    faces = load(small)
    face = faces.render(faces.ws([3], 0.7), faces.noise([0]))
    expected = np.asarray(mix_sheet(face, face, face))
    for name in ("mix_coarse.png", "mix_middle.png"):
        assert (pixels(out / name) == expected).all()


@pytest.mark.parametrize(
    ("named", "numbers", "layers"),
    [("coarse", "0-3", [0, 1, 2, 3]), ("middle", "4-7", [4, 5, 6, 7]), ("fine", "8-9", [8, 9])],
)
def test_a_mix_takes_its_layers_from_the_top_and_the_rest_from_the_left(
    full: Path, out: Path, named: str, numbers: str, layers: list[int]
) -> None:
    draw(full, "--mix_seeds", "1,2", "5", "--mix_layers", f"{named},{numbers}", "--out", out)
    assert names(out) == {"sample.png", f"mix_{named}.png", f"mix_{numbers}.png"}
    assert pixels(out / f"mix_{named}.png").tolist() == pixels(out / f"mix_{numbers}.png").tolist()
    faces = load(full)
    left, top = faces.ws([1, 2], 0.7), faces.ws([5], 0.7)
    mixed = left.clone()
    mixed[:, layers] = top[:, layers]
    noise = faces.noise([0])
    sheet = mix_sheet(*(faces.render(ws, noise) for ws in (left, top, mixed)))
    assert (pixels(out / f"mix_{named}.png") == np.asarray(sheet)).all()


def test_bfloat16_changes_pictures_less_than_the_eye_can_see(full: Path, out: Path) -> None:
    sheets = []
    for precision in ("fp32", "bf16"):
        draw(full, *FEW, "--precision", precision, "--out", out / precision)
        sheets.append(pixels(out / precision / "sample.png").astype(float))
    error = np.square(sheets[0] - sheets[1]).mean()
    assert error > 0
    assert 10 * np.log10(255**2 / error) > 45  # dB


def test_one_layer_can_be_mixed_alone(small: Path, out: Path) -> None:
    draw(small, "--mix_seeds", 1, 2, "--mix_layers", "5,5-5", "--out", out)
    assert (pixels(out / "mix_5.png") == pixels(out / "mix_5-5.png")).all()


def test_psi_reaches_the_pictures_and_is_0_7_by_default(small: Path, tmp_path: Path) -> None:
    for psi in (0.7, 1.0):
        draw(small, *FEW, "--psi", psi, "--out", tmp_path / str(psi))
    draw(small, *FEW, "--out", tmp_path / "default")
    sheets = [pixels(tmp_path / name / "sample.png") for name in ("0.7", "1.0", "default")]
    assert (sheets[0] == sheets[2]).all()
    assert (sheets[0] != sheets[1]).any()


def test_the_grid_has_the_rows_and_columns_asked_for(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases: list[tuple[list[object], int, int]] = [
        (["--n_row", 2, "--n_col", 3], 2, 3),
        (["--n_row", 3], 3, 8),
        (["--seeds", "0-10", "--n_col", 4], 3, 4),
        (["--seeds", "0-10", "--n_col", 4, "--n_row", 2], 2, 4),
        (["--seeds", "0-10"], 2, 8),
        (["--seeds", "0-1", "--n_row", 5], 1, 2),
    ]
    for flags, n_row, n_col in cases:
        draw(small, *flags, "--mix_seeds", 0, 1, "--out", tmp_path)
        expected = (n_row * 18 + GAP, n_col * 18 + GAP, 3)
        assert pixels(tmp_path / "sample.png").shape == expected
    assert "sample.png: 8 of 11 seeds" in capsys.readouterr().out


def test_more_seeds_than_a_picture_can_hold_are_shown_in_part(
    small: Path, monkeypatch: pytest.MonkeyPatch, out: Path
) -> None:
    monkeypatch.setattr("outputs.grids.MAX_SHEET", 16 * 16 * 16)
    draw(small, *FEW, "--seeds", "0-30", "--out", out)
    assert pixels(out / "sample.png").shape == (2 * 18 + GAP, 8 * 18 + GAP, 3)


def test_parts_that_a_stage_lacks_are_left_out_unless_named(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_generator(tmp_path / "young.pt", stage=[8, 1.0])
    draw(path, "--n_row", 1, "--out", out)
    assert names(out) == {"sample.png", "mix_coarse.png"}
    for layers in ("middle", "4", "0-4"):
        said = refused(capsys, 2, path, "--mix_layers", layers, "--out", tmp_path / "none")
        assert f"--mix_layers {layers}: expected layers within 0-3" in said
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("suffix", ["webp", "gif"])
def test_a_film_has_the_frames_asked_for_and_never_ends(
    small: Path, out: Path, suffix: str
) -> None:
    draw(small, *FEW, "--seeds", "0-2", "--film", suffix, "--frames", 3, "--fps", 10, "--out", out)
    with Image.open(out / f"film.{suffix}") as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (9, (256, 256), 0)
        film.seek(3)
        film.load()
        assert film.info["duration"] == 100
        frame = np.asarray(film.convert("RGB")).astype(int)
    faces = load(small)
    face = faces.render(faces.ws([1], 0.7), faces.noise([0]))[0].permute(1, 2, 0).numpy()
    expected = np.asarray(enlarge(Image.fromarray(face), 256))
    assert np.abs(frame - expected).mean() < 8, "frame 3 is not the second face"


def test_without_seeds_a_film_walks_through_the_first_eight(small: Path, out: Path) -> None:
    draw(small, "--mix_seeds", 0, 1, "--film", "webp", "--frames", 2, "--out", out)
    with Image.open(out / "film.webp") as film:
        assert film.n_frames == 16
        film.load()
        assert film.info["duration"] == 40


def test_an_mp4_needs_one_more_package_and_says_so(
    small: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install av" in refused(capsys, 2, small, "--film", "mp4", "--out", out)
    assert not out.exists()


def test_an_mp4_holds_every_frame(small: Path, out: Path) -> None:
    av = pytest.importorskip("av")
    draw(small, *FEW, "--film", "mp4", "--frames", 3, "--fps", 10, "--out", out)
    with av.open(str(out / "film.mp4")) as film:
        frames = list(film.decode(video=0))
        assert film.streams.video[0].average_rate == 10
    assert [(frame.width, frame.height) for frame in frames] == [(256, 256)] * 12


def test_progress_is_one_more_film(tmp_path: Path, out: Path) -> None:
    save_generator(tmp_path / "latest.pt")
    (tmp_path / "samples").mkdir()
    Image.new("RGB", (24, 16)).save(tmp_path / "samples" / "000100.png")
    draw(tmp_path, *FEW, "--progress", "--out", out)
    assert names(out) == {"sample.png", "mix_coarse.png", "progress.webp"}


def test_a_folder_that_cannot_be_written_is_one_line(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        assert str(place) in refused(capsys, 1, small, *FEW, "--out", place)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_bad_checkpoint_is_one_line_and_no_picture(
    small: Path, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Path(shutil.copy(small, tmp_path / "bad.pt"))
    os.truncate(bad, 5000)
    assert "truncated" in refused(capsys, 1, bad, *FEW, "--out", out)
    alike = save_generator(tmp_path / "alike.pt", change=make_deaf)
    assert "the same image" in refused(capsys, 1, alike, *FEW, "--out", out)
    assert not out.exists()


@pytest.mark.slow
def test_the_command_draws_what_the_function_draws(small: Path, tmp_path: Path) -> None:
    ended = run(command("generate.py", small, *FEW, "--out", tmp_path / "a")).succeeded()
    assert ended.err == ""
    draw(small, *FEW, "--out", tmp_path / "b")
    for name in ("sample.png", "mix_coarse.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_help_and_usage_errors_need_no_torch() -> None:
    code = (
        "import sys, generate\n"
        "try: generate.main(sys.argv[1:])\n"
        "except SystemExit as end: print(end.code, {'torch', 'PIL', 'numpy'} & set(sys.modules))"
    )
    for flag, expected in (("--help", 0), ("--seeds=x", 2)):
        ended = run([sys.executable, "-c", code, "a.pt", flag], cwd=ROOT)
        assert ended.out.splitlines()[-1] == f"{expected} set()"


BAD_FLAGS = [
    "--n_row 0", "--n_row -1", "--n_row 1000000000", "--n_col 0", "--n_col 1.5",
    "--seeds -1", "--seeds 1180591620717411303424", "--seeds 0-1000000000", "--seeds 5-3",
    "--psi nan", "--psi inf", "--psi x", "--psi 1e9", "--mix_layers 0-99", "--mix_layers -1",
    "--mix_layers none", "--mix_seeds 1", "--mix_seeds 0-9999 0-9999",
    "--frames 0 --film gif", "--fps nan --film gif", "--film bmp", "--film webp --seeds 1",
    "--seeds 1,,2", "--seeds x", "--seeds 1-", "--seeds ²", "--seeds 9223372036854775808",
    "--mix_seeds 1 x", "--mix_layers 3-1", "--mix_layers 0-3,", "--progress", "--psi 3",
    "--frames 10000 --film webp", "--frames -1 --film webp", "--fps 0",
    "--device tpu", "--device meta", "--size 32", "--n_row 1000 --n_col 1000",
]  # fmt: skip


@pytest.mark.parametrize("flags", BAD_FLAGS)
def test_a_flag_out_of_range_is_a_usage_error(
    small: Path, out: Path, capsys: pytest.CaptureFixture[str], flags: str
) -> None:
    name = flags.split()[0]
    assert name in refused(capsys, 2, small, "--out", out, *flags.split())
    assert not out.exists()


@pytest.mark.slow
def test_a_read_only_or_full_disk_is_one_line_and_no_half_picture(
    small: Path, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "sample.png").write_text("mine")
    argv = command("generate.py", small, *FEW, "--out", closed)
    assert "Read-only" in run(on_read_only(closed, argv)).failed()
    closed.chmod(0o555)
    assert "Permission denied" in run(bound_by_modes(argv)).failed()
    assert [path.read_text() for path in closed.iterdir()] == ["mine"]
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    keep = ["sh", "-c", f'"$@"; code=$?; cp -r "$0" {kept}; exit $code', str(disk)]
    many = command("generate.py", small, "--singles", "--seeds", "0-400", "--out", disk / "out")
    ended = run(on_small_disk(disk, 0.3, [*keep, *many]))
    assert "No space left" in ended.failed()
    left = sorted((kept / "out").iterdir())
    assert len(left) > 10
    assert [path.name for path in left] == [f"seed{i:04d}.png" for i in range(len(left))]
    assert all(is_whole(path) for path in left)


def is_whole(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
        return image.size == (16, 16)


@pytest.mark.slow
def test_pictures_take_the_memory_of_a_batch_and_survive_a_film_that_does_not_fit(
    small: Path, tmp_path: Path
) -> None:
    few = ("--seeds", "0-20", "--singles", "--mix_seeds", 0, 1)
    ended = fork("generate.py", small, *few, "--out", tmp_path / "few").succeeded()
    many = ("--seeds", "0-1500", "--singles", "--mix_seeds", 0, 1)
    grown = fork("generate.py", small, *many, "--out", tmp_path / "many").succeeded()
    assert grown.peak < ended.peak + 50
    film = (*few, "--film", "webp", "--frames", 190)
    ended = fork("generate.py", small, *film, "--out", tmp_path / "film", memory=400)
    assert "out of memory" in ended.failed()
    made = [path.name for path in (tmp_path / "film").iterdir()]
    assert {f"seed{i:04d}.png" for i in range(21)} < set(made)
    assert not [name for name in made if name.startswith((".", "film"))]


@pytest.mark.slow
def test_a_signal_leaves_whole_pictures_and_one_line(small: Path, tmp_path: Path) -> None:
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
    for number, code in codes.items():
        out = tmp_path / str(code)
        process = start(
            command("generate.py", small, "--singles", "--seeds", "0-99999", "--out", out)
        )
        wait_for(out / "seed0050.png", process)
        process.send_signal(number)
        ended = end(process)
        assert ended.code == code
        expected = [] if code == -9 else ["generate.py: interrupted; finished pictures stay"]
        assert ended.messages == expected
        made = sorted(out.glob("seed*.png"))
        assert len(made) > 50
        assert all(is_whole(path) for path in made)
        if code != -9:
            assert not list(out.glob(".*"))


@pytest.mark.slow
def test_a_checkpoint_may_have_any_name(small: Path, tmp_path: Path) -> None:
    for name in ("with space.pt", os.fsdecode(b"caf\xe9.pt"), "-dash.pt", "a\nb.pt", "\x1b[31m.pt"):
        shutil.copy(small, tmp_path / name)
        ended = fork("generate.py", *FEW, "--out", "./out", "--", name, cwd=tmp_path).succeeded()
        assert ended.err == ""
        assert (tmp_path / "out" / "sample.png").exists()
        shutil.rmtree(tmp_path / "out")
        (tmp_path / name).write_bytes(b"text")
        error = fork("generate.py", *FEW, "--out", "./out", "--", name, cwd=tmp_path).failed()
        assert "truncated or not a checkpoint" in error
        assert error.isprintable()
