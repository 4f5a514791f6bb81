"""A checkpoint becomes files for other programs, each with a model card: export.py's work."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from checkpoints.checkpoint import FORMAT
from checkpoints.safetensors_file import save_safetensors
from common.cli import say, tell
from common.device import choose_device, dtype_of_pictures
from outputs.model_card import Subject, write_card
from outputs.onnx_file import export_onnx
from outputs.sample_files import write_samples
from sampling.sampler import load_faces

PROGRAM = "export.py"


def export_all(args: argparse.Namespace) -> None:
    """Write every export asked for, with its card, and say a line for each.

    Raises UserError or OSError.
    """

    def load(where: torch.device) -> Subject:
        return Subject(*load_faces(args.checkpoint, where, partial(tell, PROGRAM)))

    cpu = torch.device("cpu")
    chosen = choose_device(args.device) if args.images else cpu
    subject = load(cpu if args.onnx or args.safetensors else chosen)
    if args.onnx:
        say([write_onnx(args, subject)])
    if args.safetensors:
        say([write_safetensors(args, subject)])
    if args.images:
        own = subject if subject.faces.device == chosen else load(chosen)
        say([write_images(args, own)])


def header(subject: Subject) -> dict[str, Any]:
    """Return what goes with the weights: the config, the stage, and how far it was trained."""

    kept = {name: subject.entries.get(name) for name in ("iteration", "nimg", "foreign")}
    return {
        "format": FORMAT,
        "model": asdict(subject.faces.G.config),
        "stage": list(subject.faces.stage),
        **{name: value for name, value in kept.items() if isinstance(value, int)},
    }


def write_onnx(args: argparse.Namespace, subject: Subject) -> str:
    """Write the ONNX file and its card; return the line that says so."""

    seed = args.seed if args.noise == "constant" else None
    difference = export_onnx(args.onnx, subject.faces, seed, header(subject))
    config, size = subject.faces.G.config, subject.faces.stage.resolution
    last = f"`noise{subject.faces.layers - 1:02d}`"
    maps = f"`noise00` to {last}: normal numbers [batch, 1, r, r] for each layer"
    checked = "not checked: onnxruntime is not installed"
    if difference is not None:
        checked = f"at most {difference:.1e} from PyTorch's pictures in onnxruntime"
    use = [
        f"ONNX, {checked}. Inputs: `z`, normal numbers [batch, {config.z_dim}]; `psi`, one number "
        f"(0.7 is usual, 1 gives full variety){'; ' + maps if seed is None else ''}. Outputs: "
        f"`images` [batch, 3, {size}, {size}], red, green and blue in about [-1, 1], and `ws` "
        f"[batch, {config.num_ws}, {config.w_dim}]. To mix faces, cut the graph at `ws`: "
        "`onnx.utils.extract_model(FILE, PART, ['ws', ...], ['images'])`."
    ]
    return f"{args.onnx}: {checked}; {write_card_of(args.onnx, args, subject, use)}"


def write_safetensors(args: argparse.Namespace, subject: Subject) -> str:
    """Write the safetensors file and its card; return the line that says so."""

    weights = subject.faces.G.state_dict()
    save_safetensors(args.safetensors, weights, header(subject))
    name = args.safetensors.name
    use = [
        f"safetensors: `python generate.py {name}` with Retrato. The entry `config` of the "
        "header's metadata holds, as JSON, what the networks are built from."
    ]
    shown = f"{args.safetensors}: {len(weights):,} tensors"
    return f"{shown}; {write_card_of(args.safetensors, args, subject, use)}"


def write_images(args: argparse.Namespace, subject: Subject) -> str:
    """Write the samples and their card; return the line that says so."""

    faces = subject.faces
    faces.dtype = dtype_of_pictures(args.precision, faces.device)
    seeds = range(args.seed, args.seed + args.count)
    with tqdm(total=args.count, unit=" images", leave=False, disable=None) as bar:
        write_samples(args.images, faces, seeds, args.psi, bar.update)
    use = [
        f"{args.count:,} samples as PNG: seeds {seeds[0]} to {seeds[-1]}, psi {args.psi:g}. They "
        "are made, not photographed; no one is seen in them."
    ]
    return (
        f"{args.images}: {args.count:,} pictures; {write_card_of(args.images, args, subject, use)}"
    )


def write_card_of(path: Path, args: argparse.Namespace, subject: Subject, use: list[str]) -> str:
    """Write the card of the export at `path` beside it; return its name for the line."""

    card = path.with_name(f"{path.name}.md")
    write_card(card, subject, path.name, args.license, use)
    return f"card: {card.name}"
