"""The ONNX file gives the pictures of PyTorch in onnxruntime. To write one takes seconds."""

import json
from pathlib import Path

import pytest
import torch

from checkpoints.checkpoint import load_generator
from common.cli import UserError
from model import Generator, ModelConfig, Stage
from outputs import onnx_file
from outputs.exports import write_onnx
from outputs.onnx_file import export_onnx
from sampling.sampler import load_faces, replace_layers
from tests.support.generators import CPU, needs, save_generator
from tests.support.rosinality import its_state, save

CONFIG = ModelConfig(16, 0.03, z_dim=16, w_dim=12, mapping_layers=2)
pytestmark = [pytest.mark.slow, needs("onnx", "onnxscript", "onnxruntime")]


def make_lively(G: Generator) -> None:
    G.synthesis.const.normal_()


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot while 16 px are faded in."""
    path = tmp_path_factory.mktemp("run") / "snapshots" / "000010.pt"
    return save_generator(path, CONFIG, change=make_lively, stage=[16, 0.25])


@pytest.fixture(scope="module")
def graph(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The snapshot as an ONNX file that takes its noise."""
    path = tmp_path_factory.mktemp("onnx") / "faces.onnx"
    write_onnx(path, load_faces(snapshot, CPU, print), None, "unknown")
    return path


def answers(path: Path, **inputs: torch.Tensor) -> list[torch.Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {name: each.numpy() for name, each in inputs.items()}
    return [torch.from_numpy(each) for each in session.run(None, given)]


def random_inputs(G: Generator, batch: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    rng = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 16, generator=rng), G.draw_noise(batch, 16, rng)


def test_no_path_of_the_machine_is_in_the_file(graph: Path) -> None:
    assert str(Path(__file__).parents[2]).encode() not in graph.read_bytes()


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


def test_generators_of_rosinality_become_onnx_files_with_constant_noise(tmp_path: Path) -> None:
    theirs = save(tmp_path / "010000.model", "bare", its_state(1))
    loaded = load_faces(theirs, CPU, print)
    line = write_onnx(tmp_path / "faces.onnx", loaded, 7, "unknown")
    assert "from PyTorch's pictures in onnxruntime; card: faces.onnx.md" in line
    faces = loaded.faces
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


def test_a_graph_that_differs_is_not_written(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    faces = load_faces(snapshot, CPU, print).faces
    with pytest.raises(UserError, match="differs from PyTorch by"):
        export_onnx(tmp_path / "faces.onnx", faces, 0, {})
    assert list(tmp_path.iterdir()) == []


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
