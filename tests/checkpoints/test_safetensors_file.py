"""Safetensors files are read as checkpoints, and every unsound one is refused."""

import json
import struct
import sys
from pathlib import Path

import pytest
import torch

from checkpoints import checkpoint
from checkpoints.checkpoint import CheckpointError, load_generator
from outputs.exports import write_safetensors
from sampling.sampler import load_faces
from tests.support.generators import CPU, needs, save_generator


@needs("safetensors")
def test_unsound_safetensors_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save as serialized

    path = tmp_path / "faces.safetensors"
    snapshot = save_generator(tmp_path / "a.pt", stage=[16, 0.25])
    write_safetensors(path, load_faces(snapshot, CPU, print), "unknown")
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
        serialized(state | {"w_avg": torch.full((16,), torch.nan)}, {"config": config}),
        serialized(state | {"w_avg": torch.zeros(16).half()}, {"config": config}),
    ]
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"faces\.safetensors: "):
            load_faces(path, CPU, print)
    path.write_bytes(serialized(state, {"config": config}))
    load_faces(path, CPU, print)


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2) + b'{"' + bytes(50))
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(CheckpointError, match="needs the package safetensors"):
        checkpoint.load(path)
