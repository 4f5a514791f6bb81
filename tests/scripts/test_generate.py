"""generate.py as its user meets it: a checkpoint in, pictures out, and one line if it cannot be."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import generate
from checkpoints import checkpoint
from common import cli
from common.device import dtype_of_pictures
from model import Generator, ModelConfig, Stage
from outputs.film import PROGRESS_FRAMES, PROGRESS_HOLD_MS, enlarge, progress_paths, write_progress
from outputs.grids import mix_sheet
from sampling.sampler import Faces, load_faces, replace_layers, walk

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
GAP = 2  # px between the pictures of a sheet
SHEETS = {"sample.png", "mix_coarse.png", "mix_middle.png", "mix_fine.png"}
FEW = ("--seeds", "0-3", "--mix_seeds", "0", "1", "--mix_layers", "coarse")


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in cli.EXIT_CODES}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def make(
    path: Path,
    resolution: int = 16,
    change: Callable[[Generator], None] = lambda G: None,
    **entries: object,
) -> Path:
    """Save an untrained generator that uses its noise and has a mean style."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        config = ModelConfig(resolution, 0.03, z_dim=16, w_dim=16, mapping_layers=2)
        G = Generator(config)
        G.w_avg.normal_()
        for layer in G.synthesis.layers:
            layer.noise_strength.normal_(0, 1 / layer.noise_scale)
        change(G)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, config, {"G_ema": G.state_dict(), **entries})
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of 16 px."""
    return make(tmp_path_factory.mktemp("small") / "run" / "snapshots" / "000010.pt")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of 64 px."""
    return make(tmp_path_factory.mktemp("full") / "snapshot.pt", 64)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def refused(capsys: pytest.CaptureFixture[str], code: int, *args: object) -> str:
    """Return the one line on stderr with which the script ends."""
    with pytest.raises(SystemExit) as end:
        generate.main([str(arg) for arg in args])
    said = capsys.readouterr().err
    assert end.value.code == code, said
    assert said.startswith("generate.py: error: ")
    assert said.count("\n") == 1
    return said


def draw(*args: object) -> None:
    generate.main([str(arg) for arg in args])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def cell(sheet: np.ndarray, row: int, column: int, side: int = 16) -> np.ndarray:
    top, left = (GAP + place * (side + GAP) for place in (row, column))
    return sheet[top : top + side, left : left + side]


def faces_of(path: Path) -> Faces:
    """Return the generator as generate.py takes it here."""
    faces = load_faces(path, CPU, print)[0]
    faces.dtype = dtype_of_pictures("auto", CPU)
    return faces


def test_with_nothing_else_a_sample_and_three_mixes_are_made(
    full: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(full)
    made = full.parent / "generated"
    assert names(made) == SHEETS
    rows, columns = 8 * 66 + GAP, 8 * 66 + GAP
    assert pixels(made / "sample.png").shape == (rows, columns, 3)
    apart = 66 + GAP + 64 // 8
    for name in SHEETS - {"sample.png"}:
        sheet = pixels(made / name)
        assert sheet.shape == (6 * 66 + GAP + apart, 8 * 66 + GAP + apart, 3)
        assert (sheet[:apart, :apart] == 255).all(), "the corner is not blank"
    told = capsys.readouterr()
    assert told.err == ""
    assert [line.split(": ")[0] for line in told.out.splitlines()] == [
        str(full),
        *(str(made / f"{name}.png") for name in ("sample", "mix_coarse", "mix_middle", "mix_fine")),
    ]


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
    draw(small, "--singles", "--seeds", 5, "--out", tmp_path / "alone")
    alone = (tmp_path / "alone" / "seed0005.png").read_bytes()
    for i, flags in enumerate([("0-40",), ("40,7,5",), ("5-21", "--n_col", "3"), ("5,5",)]):
        draw(small, "--singles", "--seeds", *flags, "--out", tmp_path / str(i))
        assert (tmp_path / str(i) / "seed0005.png").read_bytes() == alone
    draw(small, "--n_row", 2, "--n_col", 4, "--out", tmp_path / "grid")
    face = cell(pixels(tmp_path / "grid" / "sample.png"), 1, 1)
    assert (face == pixels(tmp_path / "alone" / "seed0005.png")).all()


def test_seeds_reach_to_the_last_and_name_the_files(small: Path, out: Path) -> None:
    draw(small, "--singles", "--seeds", f"7,3-4,{2**63 - 1}", "--out", out)
    singles = {"seed0007.png", "seed0003.png", "seed0004.png", "seed9223372036854775807.png"}
    assert names(out) - singles == SHEETS - {"mix_fine.png"}
    sheet = pixels(out / "sample.png")
    assert sheet.shape == (16 + 2 * GAP, 4 * (16 + GAP) + GAP, 3)
    for column, name in enumerate(["seed0007", "seed0003", "seed0004"]):
        assert (cell(sheet, 0, column) == pixels(out / f"{name}.png")).all()


def test_a_mix_of_a_face_with_itself_is_that_face(small: Path, out: Path) -> None:
    draw(small, "--mix_seeds", 3, 3, "--out", out)
    faces = faces_of(small)
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
    faces = faces_of(full)
    left, top = faces.ws([1, 2], 0.7), faces.ws([5], 0.7)
    mixed = left.clone()
    mixed[:, layers] = top[:, layers]
    noise = faces.noise([0])
    sheet = mix_sheet(*(faces.render(ws, noise) for ws in (left, top, mixed)))
    assert (pixels(out / f"mix_{named}.png") == np.asarray(sheet)).all()


def test_bfloat16_changes_what_the_eye_cannot_see(full: Path, out: Path) -> None:
    sheets = []
    for precision in ("fp32", "bf16"):
        draw(full, *FEW, "--precision", precision, "--out", out / precision)
        sheets.append(pixels(out / precision / "sample.png").astype(float))
    error = np.square(sheets[0] - sheets[1]).mean()
    assert error > 0
    assert 10 * np.log10(255**2 / error) > 45  # dB


def test_replacing_all_layers_gives_the_other_and_none_gives_the_first(small: Path) -> None:
    faces = faces_of(small)
    a, b = faces.ws([1], 1.0), faces.ws([2], 1.0)
    assert torch.equal(replace_layers(faces.G, a, b, range(6)), b)
    assert torch.equal(replace_layers(faces.G, a, b, range(0)), a)


def test_one_layer_can_be_mixed_alone(small: Path, out: Path) -> None:
    draw(small, "--mix_seeds", 1, 2, "--mix_layers", "5,5-5", "--out", out)
    assert (pixels(out / "mix_5.png") == pixels(out / "mix_5-5.png")).all()


def test_psi_0_gives_one_face_and_psi_1_all_the_variety(small: Path) -> None:
    faces = faces_of(small)
    noise = faces.noise([0])
    one = faces.render(faces.ws([1, 2, 3], 0.0), noise)
    assert torch.equal(one[0], one[1])
    assert torch.equal(one[0], one[2])
    assert torch.equal(faces.ws([1], 0.0)[0, 0], faces.G.w_avg)
    assert torch.equal(faces.ws([1], 1.0), faces.G.broadcast(faces.ws([1], 1.0)[:, 0]))
    assert not torch.equal(*faces.render(faces.ws([1, 2], 1.0), noise))


def test_psi_pulls_each_style_to_the_mean(small: Path, tmp_path: Path) -> None:
    faces = faces_of(small)
    half = faces.G.w_avg + 0.5 * (faces.ws([4], 1.0) - faces.G.w_avg)
    torch.testing.assert_close(faces.ws([4], 0.5), half)
    for psi in (0.7, 1.0):
        draw(small, *FEW, "--psi", psi, "--out", tmp_path / str(psi))
    draw(small, *FEW, "--out", tmp_path / "default")
    sheets = [pixels(tmp_path / name / "sample.png") for name in ("0.7", "1.0", "default")]
    assert (sheets[0] == sheets[2]).all()
    assert (sheets[0] != sheets[1]).any()


def test_z_and_noise_of_a_seed_are_its_own_and_normal(small: Path) -> None:
    faces = faces_of(small)
    together = faces.noise([8, 9])
    assert [tuple(maps.shape) for maps in together] == [
        (2, 1, r, r) for r in (4, 8, 16) for _ in range(2)
    ]
    for maps, alone in zip(together, faces.noise([9]), strict=True):
        assert torch.equal(maps[1:], alone)
    values = torch.cat([maps.flatten() for maps in faces.noise(range(50))])
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02


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


def test_the_size_and_the_fade_in_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    for stage in ([16, 0.25], [16, 1.0], [8, 1.0]):
        path = make(tmp_path / f"{stage[0]}-{stage[1]}.pt", 16, stage=stage)
        faces = faces_of(path)
        assert faces.stage == Stage(*stage)
        images = faces.render(faces.ws([0], 0.7), faces.noise([0]))
        assert images.shape[-1] == stage[0]
        G = checkpoint.load_generator(path, CPU)[0]
        ws, noise = faces.ws([0] * 16, 0.7), faces.noise([0] * 16)
        direct = G.synthesis(ws, Stage(*stage), noise, faces.dtype)
        expected = ((direct + 1) * 127.5).clamp(0, 255).round().byte()
        assert (images[0].int() - expected[0].int()).abs().max() <= 1
    assert faces_of(make(tmp_path / "none.pt", 16)).stage == Stage(16, 1.0)


def test_parts_that_a_stage_lacks_are_left_out_unless_named(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make(tmp_path / "young.pt", 16, stage=[8, 1.0])
    draw(path, "--n_row", 1, "--out", out)
    assert names(out) == {"sample.png", "mix_coarse.png"}
    for layers in ("middle", "4", "0-4"):
        said = refused(capsys, 2, path, "--mix_layers", layers, "--out", tmp_path / "none")
        assert f"--mix_layers {layers}: expected layers within 0-3" in said
    assert not (tmp_path / "none").exists()


def test_a_walk_passes_through_every_face_and_closes() -> None:
    ws = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0))
    path = walk(ws, 8)
    assert path.shape == (40, 6, 3)
    assert torch.equal(path[::8], ws)
    assert torch.equal(walk(ws.roll(1, 0), 8), path.roll(8, 0)), "it has a seam"
    torch.testing.assert_close(walk(ws.flip(0), 8).flip(0).roll(-7, 0), path)
    fine = walk(ws.double(), 1000)
    speed = fine.roll(-1, 0) - fine
    assert (speed - speed.roll(1, 0)).abs().max() < 0.05 * speed.abs().max(), "it turns a corner"


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
    faces = faces_of(small)
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


def test_progress_shows_the_run_from_first_to_last_and_holds_the_last(
    small: Path, tmp_path: Path, out: Path
) -> None:
    run = tmp_path / "run"
    make(run / "latest.pt")
    (run / "samples").mkdir()
    for i in range(4):
        Image.new("RGB", (24, 16), (60 * i, 0, 0)).save(run / "samples" / f"{10**i}00.png")
    (run / "samples" / ".000500.png.tmp").write_bytes(b"half")
    draw(run, *FEW, "--progress", "--out", out)
    with Image.open(out / "progress.webp") as film:
        assert (film.n_frames, film.size) == (4, (24, 16))
        reds = []
        for i in range(4):
            film.seek(i)
            film.load()
            reds.append(np.asarray(film.convert("RGB"))[0, 0, 0])
        assert film.info["duration"] == PROGRESS_HOLD_MS
    assert np.abs(np.subtract(reds, [0, 60, 120, 180])).max() < 12


def test_progress_of_a_long_run_is_thinned_evenly(tmp_path: Path, out: Path) -> None:
    run = tmp_path / "run"
    make(run / "latest.pt")
    (run / "samples").mkdir()
    for i in range(500):
        (run / "samples" / f"{i:06d}.png").touch()
    shown = [int(path.stem) for path in progress_paths(run)]
    assert (len(shown), shown[0], shown[-1]) == (PROGRESS_FRAMES, 0, 499)
    assert set(np.diff(shown)) <= {4, 5}


def test_progress_with_a_damaged_grid_names_it(tmp_path: Path) -> None:
    bad = tmp_path / "000100.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(OSError, match=r"000100\.png: not a picture"):
        write_progress([bad], tmp_path / "progress.webp")
    assert names(tmp_path) == {"000100.png"}


@pytest.mark.parametrize(
    "flags",
    [
        "--n_row 1000 --n_col 1000",
        "--mix_seeds 0-999 0-999",
        "--film webp --frames 10000",
    ],
)
def test_what_no_picture_can_hold_is_refused_before_it_is_drawn(
    small: Path, out: Path, capsys: pytest.CaptureFixture[str], flags: str
) -> None:
    assert "expected at most" in refused(capsys, 2, small, "--out", out, *flags.split())
    assert not out.exists()


def test_more_seeds_than_a_picture_can_hold_are_shown_in_part(
    small: Path, monkeypatch: pytest.MonkeyPatch, out: Path
) -> None:
    monkeypatch.setattr("outputs.grids.MAX_SHEET", 16 * 16 * 16)
    draw(small, *FEW, "--seeds", "0-30", "--out", out)
    assert pixels(out / "sample.png").shape == (2 * 18 + GAP, 8 * 18 + GAP, 3)


@pytest.mark.parametrize(
    "stage", [[32, 1.0], [5, 1.0], [16, 2.0], [4, 0.5], [16], 16, "16", [16, "1"], [16, 1, 1]]
)
def test_a_stage_that_the_model_does_not_have_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: object
) -> None:
    path = make(tmp_path / "odd.pt", 16, stage=stage)
    assert "unusable stage" in refused(capsys, 1, path)


def test_a_run_folder_gives_its_newest_sound_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for name in ("snapshots/990000.pt", "snapshots/1000000.pt", "previous.pt", "latest.pt"):
        make(run / name, iteration=len(name))
    bad: list[str] = []
    for name in ("latest.pt", "previous.pt", "snapshots/1000000.pt", "snapshots/990000.pt"):
        draw(run, *FEW)
        told = capsys.readouterr()
        assert told.out.startswith(f"{run / name}: 16 px after {len(name)} iterations")
        assert [line.split(": ")[1] for line in told.err.splitlines()] == bad
        (run / name).write_bytes((run / name).read_bytes()[:-100])
        bad.append(str(run / name))
    with pytest.raises(SystemExit) as end:
        draw(run, *FEW)
    told = capsys.readouterr()
    assert (end.value.code, told.err.count("\n"), told.out) == (1, 4, "")
    assert names(run / "generated") == {"sample.png", "mix_coarse.png"}


def test_a_folder_that_cannot_be_written_is_told(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        assert str(place) in refused(capsys, 1, small, *FEW, "--out", place)
    assert (tmp_path / "file").read_text() == "mine"


def command(*args: object) -> list[str]:
    return [sys.executable, str(ROOT / "generate.py"), *map(str, args)]


ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_the_command_draws_what_the_function_draws(small: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(small, *FEW, "--out", tmp_path / "a"), capture_output=True, text=True, env=ENV
    )
    assert (done.returncode, done.stderr) == (0, "")
    draw(small, *FEW, "--out", tmp_path / "b")
    for name in ("sample.png", "mix_coarse.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_flags_are_checked_and_help_is_given_without_torch(small: Path) -> None:
    code = (
        "import sys, generate\n"
        "try: generate.main(sys.argv[1:])\n"
        "except SystemExit as end: print(end.code, {'torch', 'PIL', 'numpy'} & set(sys.modules))"
    )
    for flags, code_expected in ((["--help"], 0), (["--seeds", "x"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(small), *flags],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.stdout.splitlines()[-1] == f"{code_expected} set()", done.stderr
