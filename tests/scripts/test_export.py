"""export.py as its user meets it, its files read by the programs that they are for."""

import importlib.util
import io
import json
import signal
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import export
import generate
from checkpoints import checkpoint
from checkpoints.checkpoint import CheckpointError, load_generator
from common import cli
from model import Generator, ModelConfig, Stage
from outputs import onnx_file
from sampling.sampler import load_faces, replace_layers
from tests.support.folders import names, run
from tests.support.rosinality import its_state, save

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
NEEDS = "needs requirements-export.txt"


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if not importlib.util.find_spec(name)]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} {NEEDS}")


@pytest.fixture(autouse=True)
def _signal_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in cli.EXIT_CODES}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def make(path: Path, change: Callable[[Generator], None] = lambda G: None) -> Path:
    """Save a generator that uses its noise and has a mean style, while 16 px are faded in."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        config = ModelConfig(16, 0.03, z_dim=16, w_dim=12, mapping_layers=2)
        G = Generator(config)
        G.w_avg.normal_()
        G.synthesis.const.normal_()
        for layer in G.synthesis.layers:
            layer.noise_strength.normal_(0, 1 / layer.noise_scale)
        change(G)
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {"G_ema": G.state_dict(), "stage": [16, 0.25], "iteration": 10, "nimg": 160}
    checkpoint.save(path, config, entries)
    return path


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot in a run folder that knows nothing."""
    return make(tmp_path_factory.mktemp("run") / "snapshots" / "000010.pt")


def write(*args: object) -> None:
    export.main([str(arg) for arg in args])


def refused(capsys: pytest.CaptureFixture[str], code: int, *args: object) -> str:
    """Return the one line on stderr with which the script ends."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        write(*args)
    said = capsys.readouterr().err
    assert end.value.code == code, said
    assert said.startswith("export.py: error: ")
    assert said.count("\n") == 1
    return said


@pytest.fixture(scope="module")
def graph(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The snapshot as an ONNX file that takes its noise."""
    path = tmp_path_factory.mktemp("onnx") / "faces.onnx"
    write(snapshot, "--onnx", path, "--noise", "input")
    return path


def answers(path: Path, **inputs: torch.Tensor) -> list[torch.Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {name: each.numpy() for name, each in inputs.items()}
    return [torch.from_numpy(each) for each in session.run(None, given)]


def random_inputs(G: Generator, batch: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    rng = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 16, generator=rng), G.draw_noise(batch, 16, rng)


@needs("onnx", "onnxscript", "onnxruntime")
@pytest.mark.parametrize(("batch", "psi"), [(1, 0.0), (2, 0.7), (5, 1.3)])
def test_the_graph_gives_the_pictures_of_pytorch(
    snapshot: Path, graph: Path, batch: int, psi: float
) -> None:
    G, _ = load_generator(snapshot, CPU)
    z, noise = random_inputs(G, batch)
    named = {f"noise{i:02d}": maps for i, maps in enumerate(noise)}
    images, ws = answers(graph, z=z, psi=torch.tensor(psi), **named)
    expected = G.truncate(G.broadcast(G.mapping(z)), psi)
    assert (ws - expected).abs().max() < 1e-4
    assert (images - G.synthesis(expected, Stage(16, 0.25), noise)).abs().max() < 1e-4
    assert images.shape == (batch, 3, 16, 16)
    assert images.std() > 0.1


@needs("onnx", "onnxscript", "onnxruntime")
def test_the_graph_cut_at_ws_mixes_faces(snapshot: Path, graph: Path, tmp_path: Path) -> None:
    """As its card says: the mapping's ws of two faces, mixed, into the other half."""
    import onnx

    G, _ = load_generator(snapshot, CPU)
    z, noise = random_inputs(G, 2)
    maps = [f"noise{i:02d}" for i in range(len(noise))]
    onnx.utils.extract_model(str(graph), str(tmp_path / "half.onnx"), ["ws", *maps], ["images"])
    onnx.utils.extract_model(str(graph), str(tmp_path / "first.onnx"), ["z", "psi"], ["ws"])
    (ws,) = answers(tmp_path / "first.onnx", z=z, psi=torch.tensor(0.7))
    mixed = replace_layers(G, ws, ws.flip(0), range(2, 4))
    given = dict(zip(maps, noise, strict=True))
    (images,) = answers(tmp_path / "half.onnx", ws=mixed, **given)
    assert (images - G.synthesis(mixed, Stage(16, 0.25), noise)).abs().max() < 1e-4


@needs("onnx", "onnxscript", "onnxruntime")
def test_generators_of_rosinality_go_on_to_onnx_with_their_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = save(tmp_path / "010000.model", "bare", its_state(1))
    write(theirs, "--onnx", tmp_path / "faces.onnx", "--seed", 7)
    assert "from PyTorch's pictures in onnxruntime; card: faces.onnx.md" in capsys.readouterr().out
    faces = load_faces(theirs, CPU, print)[0]
    z = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    images, ws = answers(tmp_path / "faces.onnx", z=z, psi=torch.tensor(1.0))
    expected = faces.G.synthesis(
        ws, faces.stage, [m.expand(3, -1, -1, -1) for m in faces.noise([7])]
    )
    assert (images - expected).abs().max() < 1e-4
    import onnx

    half = tmp_path / "half.onnx"
    onnx.utils.extract_model(str(tmp_path / "faces.onnx"), str(half), ["ws"], ["images"])
    assert torch.equal(answers(half, ws=ws[:1])[0], answers(half, ws=ws)[0][:1])
    assert "Trained with rosinality" in (tmp_path / "faces.onnx.md").read_text()


@needs("onnx", "onnxscript", "onnxruntime")
def test_a_graph_that_differs_is_not_written(
    snapshot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    said = refused(capsys, 1, snapshot, "--onnx", tmp_path / "faces.onnx")
    assert "differs from PyTorch by" in said
    assert list(tmp_path.iterdir()) == []


@needs("onnx", "onnxscript")
def test_the_graph_says_what_it_is(graph: Path) -> None:
    import onnx

    model = onnx.load(str(graph))
    onnx.checker.check_model(model)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(entries["config"])["model"]["resolution"] == 16
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes["z"] == ["batch", 16]
    assert shapes["images"] == ["batch", 3, 16, 16]
    assert shapes["noise05"] == ["batch", 1, 16, 16]
    assert sorted(path.name for path in graph.parent.iterdir()) == ["faces.onnx", "faces.onnx.md"]
    card = graph.with_name("faces.onnx.md").read_text()
    for said in ("`noise00` to `noise05`", "`ws` [batch, 6, 12]", "in onnxruntime"):
        assert said in card


@needs("safetensors")
def test_safetensors_come_back_as_the_same_generator(snapshot: Path, tmp_path: Path) -> None:
    """Read by the package, by its format's description, and by generate.py as a checkpoint."""
    from safetensors import safe_open

    path = tmp_path / "faces.safetensors"
    line = [sys.executable, str(ROOT / "export.py"), str(snapshot), "--safetensors", str(path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "card: faces.safetensors.md" in done.stdout
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
        generate.main([str(source), *few, "--out", str(out)])
    made = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert "sample.png" in made
    for name in made:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@needs("safetensors")
def test_generators_of_rosinality_survive_as_safetensors(tmp_path: Path) -> None:
    theirs = save(tmp_path / "010000.model", "bare", its_state(1))
    write(theirs, "--safetensors", tmp_path / "faces.safetensors")
    pictures = []
    for path in (theirs, tmp_path / "faces.safetensors"):
        faces = load_faces(path, CPU, print)[0]
        pictures.append(faces.render(faces.ws([1], 0.7), faces.noise([1])))
    assert torch.equal(*pictures)


@needs("safetensors")
def test_unsound_safetensors_are_refused(snapshot: Path, tmp_path: Path) -> None:
    from safetensors.torch import save as serialized

    path = tmp_path / "faces.safetensors"
    write(snapshot, "--safetensors", path)
    whole = path.read_bytes()
    G, _ = load_generator(snapshot, CPU)
    state = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    (length,) = struct.unpack("<Q", whole[:8])
    config = json.loads(whole[8 : 8 + length])["__metadata__"]["config"]

    def changed(**settings: object) -> dict[str, str]:
        return {"config": json.dumps(json.loads(config) | settings)}

    bad = [
        whole[:-1],
        whole[:100],
        whole[:12],
        whole + b"x",
        struct.pack("<Q", 2**62) + whole[8:],
        whole[:8] + whole[8:].replace(b"F32", b"F16", 1),
        whole[:8] + b"{" * length + whole[8 + length :],
        serialized(state),
        serialized(state, {"config": "[" * 100_000}),
        serialized(state, {"config": "[1]"}),
        serialized(state, changed(model={"resolution": 16})),
        serialized(state, changed(model={"resolution": 2**40, "width": 1.0})),
        serialized(state, changed(stage=[64, 1.0])),
        serialized(state, changed(format=2)),
        serialized(state, changed(G_ema=3)).replace(b"w_avg", b"w_bvg"),
        serialized(state | {"more": torch.zeros(1)}, {"config": config}),
        serialized(state | {"w_avg": torch.full((12,), torch.nan)}, {"config": config}),
        serialized(state | {"w_avg": torch.zeros(12).half()}, {"config": config}),
    ]
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"faces\.safetensors: "):
            load_faces(path, CPU, print)
    path.write_bytes(serialized(state, {"config": config}))
    load_faces(path, CPU, print)


def pixels(content: Path | bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


def test_pictures_are_those_of_generate_flat_in_a_folder(snapshot: Path, tmp_path: Path) -> None:
    write(snapshot, "--images", 18, tmp_path / "samples", "--seed", 3, "--psi", 0.9)
    made = sorted((tmp_path / "samples").iterdir())
    assert [path.name for path in made] == [f"img{i:08d}.png" for i in range(18)]
    flags = ["--seeds", "3-20", "--psi", "0.9", "--singles", "--out", str(tmp_path / "out")]
    generate.main([str(snapshot), *flags])
    for i, path in enumerate(made):
        same = tmp_path / "out" / f"seed{3 + i:04d}.png"
        assert np.array_equal(pixels(path), pixels(same))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "samples", "samples.md"]


@needs("torch_fidelity")
def test_torch_fidelity_finds_the_pictures(snapshot: Path, tmp_path: Path) -> None:
    from torch_fidelity.defaults import DEFAULTS
    from torch_fidelity.utils import glob_samples_paths

    write(snapshot, "--images", 5, tmp_path / "samples")
    deep, endings = DEFAULTS["samples_find_deep"], DEFAULTS["samples_find_ext"]
    found = glob_samples_paths(str(tmp_path / "samples"), deep, endings, verbose=False)
    assert len(found) == 5


def test_a_zip_is_laid_out_as_nvidias_tools_do_it(snapshot: Path, tmp_path: Path) -> None:
    """Its data set reads members by their endings, sorted, and labels from dataset.json."""
    path = tmp_path / "samples.zip"
    write(snapshot, "--images", 1001, path)
    write(snapshot, "--images", 2, tmp_path / "few")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        found = sorted(name for name in archive.namelist() if name.endswith(".png"))
        shown = [pixels(archive.read(name)) for name in found[:2]]
        assert len(archive.read(found[0])) > 16 * 16 * 3, "the pixels are compressed"
        assert json.loads(archive.read("dataset.json")) == {"labels": None}
    assert found == [f"{i // 1000:05d}/img{i:08d}.png" for i in range(1001)]
    for i, image in enumerate(shown):
        assert image.shape == (16, 16, 3)
        assert np.array_equal(image, pixels(tmp_path / "few" / f"img{i:08d}.png"))
    before = path.read_bytes()
    write(snapshot, "--images", 1001, path)
    assert path.read_bytes() == before


def test_prepare_data_reads_a_zip_of_samples(snapshot: Path, tmp_path: Path) -> None:
    write(snapshot, "--images", 3, tmp_path / "samples.zip")
    run(tmp_path / "samples.zip", tmp_path / "a.lmdb", "--min_size", 16, "--sizes", 16)
    assert names(tmp_path / "a.lmdb") == [f"00000/img{i:08d}.png" for i in range(3)]


def test_no_pictures_are_left_where_some_cannot_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def blank(G: Generator) -> None:
        for to_rgb in G.synthesis.to_rgb.values():
            to_rgb.weight.zero_()

    plain = make(tmp_path / "plain.pt", blank)
    for name in ("samples", "samples.zip"):
        said = refused(capsys, 1, plain, "--images", 3, tmp_path / name)
        assert "each image is of one colour" in said
    assert [path.name for path in tmp_path.iterdir()] == ["plain.pt"]


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
        (["--images", "5", "folder.zip"], 2, "is no file"),
        (["--images", "5", "."], 2, "is no name"),
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
    assert said in refused(capsys, code, snapshot, *flags)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("flag", ["onnx", "safetensors"])
def test_a_missing_extra_is_one_line(
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
    said = refused(capsys, 2, snapshot, f"--{flag}", tmp_path / f"a.{flag}")
    assert "pip install -r requirements-export.txt" in said
    start = struct.pack("<Q", 2) + b'{"' + bytes(50)
    (tmp_path / "a.safetensors").write_bytes(start)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(CheckpointError, match="needs the package safetensors"):
        checkpoint.load(tmp_path / "a.safetensors")
