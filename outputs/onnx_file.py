"""A generator as an ONNX file: z -> w -> truncated ws -> images, for any runtime that reads it.

The graph takes `z` [batch, z_dim] and `psi` (a number), and gives `images` [batch, 3, R, R] in
about [-1, 1] and `ws` [batch, num_ws, w_dim], where it may be cut in two to mix styles. The file is
written only if onnxruntime, where it is installed, gives the same pictures.
"""

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.cli import UserError
from common.files import replacing
from sampling.sampler import Faces

TOLERANCE = 1e-4  # of 2, the range of an image
BATCHES = (1, 3)  # batch sizes that are compared
OPSET = 18  # of 2022: older ones lack operators that torch writes
CHECK_SEED, CHECK_PSI = 0, 0.7


class ToStyles(nn.Module):
    """The first half of the graph: z and psi to ws."""

    def __init__(self, faces: Faces) -> None:
        super().__init__()
        self.G = faces.G

    def forward(self, z: Tensor, psi: Tensor) -> Tensor:
        """Return ws [batch, num_ws, w_dim]."""
        return self.G.truncate(self.G.broadcast(self.G.mapping(z)), psi)


class ToImages(nn.Module):
    """The second half: ws and noise to images; `constant` is the noise unless it is an input."""

    def __init__(self, faces: Faces, constant: list[Tensor] | None) -> None:
        super().__init__()
        self.synthesis, self.stage, self.constant = faces.G.synthesis, faces.stage, constant

    def forward(self, ws: Tensor, *noise: Tensor) -> Tensor:
        """Return images [batch, 3, R, R]."""
        return self.synthesis(ws, self.stage, self.constant or list(noise))


def export_onnx(path: Path, faces: Faces, seed: int | None, config: dict[str, Any]) -> float | None:
    """Write `faces`, on the CPU, as an ONNX file; return its largest difference from PyTorch.

    Without onnxruntime that is None. The noise is that of `seed`, or else an input for each layer:
    noise00, noise01, ... Raises UserError or OSError.
    """
    constant = None if seed is None else faces.noise([seed])
    content = build(faces, constant, config)
    difference = None
    if importlib.util.find_spec("onnxruntime"):
        difference = largest_difference(content, faces, constant)
        if not difference <= TOLERANCE:
            raise UserError(
                f"{path}: differs from PyTorch by {difference:.1e}, expected at most "
                f"{TOLERANCE:.0e}; nothing was written. Use another checkpoint"
            )
    with replacing(path) as file:
        file.write(content)
    return difference


def draw_inputs(faces: Faces, batch: int, constant: list[Tensor] | None) -> list[Tensor]:
    """Return z, psi and, unless it is constant, noise for comparing a graph with PyTorch."""
    rng = torch.Generator().manual_seed(CHECK_SEED)
    z = torch.randn(batch, faces.G.config.z_dim, generator=rng)
    noise = [] if constant else faces.G.draw_noise(batch, faces.stage.resolution, rng)
    return [z, torch.tensor(CHECK_PSI), *noise]


def build(faces: Faces, constant: list[Tensor] | None, config: dict[str, Any]) -> bytes:
    """Return the content of the ONNX file. Raises UserError.

    Its halves are traced separately: traced as one, each would take the batch size from the other's
    inputs, and the graph could not be cut.
    """
    import onnx.compose

    z, psi, *noise = draw_inputs(faces, 2, constant)
    to_styles, to_images = ToStyles(faces), ToImages(faces, constant)
    maps = [f"noise{i:02d}" for i in range(len(noise))]
    first = trace(to_styles, {"z": z, "psi": psi}, "ws")
    named = dict(zip(maps, noise, strict=True))
    second = trace(to_images, {"ws": to_styles(z, psi), **named}, "images")
    first = onnx.compose.add_prefix(first, "mapping.", rename_inputs=False, rename_outputs=False)
    model = onnx.compose.merge_models(first, second, [("ws", "ws")])
    model.graph.output.append(first.graph.output[0])
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces of the exporter, with paths of this machine
    model.metadata_props.add(key="config", value=json.dumps(config))
    try:
        return model.SerializeToString()
    except ValueError as error:  # protobuf's limit
        raise UserError(f"--onnx: more than 2 GB, the limit of an ONNX file ({error})") from None


def trace(module: nn.Module, inputs: dict[str, Tensor], output: str) -> Any:
    """Return the ONNX model of a module, for any batch size, as onnx.ModelProto."""
    batch = {0: torch.export.Dim("batch")}
    shapes: list[Any] = [batch if tensor.ndim else None for tensor in inputs.values()]
    if isinstance(module, ToImages):  # one argument takes all the noise, if there is any
        shapes = [batch, (batch,) * (len(inputs) - 1)][: len(inputs)]
    with warnings.catch_warnings(action="ignore"):  # torch's advice for authors of exporters
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=tuple(shapes),
            opset_version=OPSET,
            external_data=False,
            optimize=False,  # it would drop an epsilon of 1e-8 as zero
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def largest_difference(content: bytes, faces: Faces, constant: list[Tensor] | None) -> float:
    """Return the largest difference of images and ws between the file and PyTorch."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    largest = 0.0
    for batch in BATCHES:
        inputs = draw_inputs(faces, batch, constant)
        given = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
        with torch.no_grad():
            ws = ToStyles(faces)(*inputs[:2])
            expected = ToImages(faces, constant)(ws, *inputs[2:])
        found = session.run(["images", "ws"], given)
        for ours, theirs in zip((expected, ws), found, strict=True):
            largest = max(largest, float(np.abs(ours.numpy() - theirs).max()))
    return largest
