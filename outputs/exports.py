"""export.py's work: from a checkpoint to files for other programs, each with a model card."""

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
from outputs.model_card import write_card
from outputs.onnx_file import export_onnx
from outputs.sample_files import write_samples
from sampling.sampler import Loaded, load_faces

PROGRAM = "export.py"


def export_all(args: argparse.Namespace) -> None:
    """Write every export asked for, with its card, and print a line for each.

    Raises UserError or OSError.
    """
    load = partial(load_faces, args.checkpoint, tell=partial(tell, PROGRAM))
    cpu = torch.device("cpu")
    device = choose_device(args.device) if args.images else cpu
    loaded = load(cpu if args.onnx or args.safetensors else device)
    if args.onnx:
        seed = args.seed if args.noise == "constant" else None
        say([write_onnx(args.onnx, loaded, seed, args.license)])
    if args.safetensors:
        say([write_safetensors(args.safetensors, loaded, args.license)])
    if args.images:
        loaded = loaded if loaded.faces.device == device else load(device)
        loaded.faces.dtype = dtype_of_pictures(args.precision, device)
        seeds = range(args.seed, args.seed + args.count)
        say([write_images(args.images, loaded, seeds, args.psi, args.license)])


def write_onnx(path: Path, loaded: Loaded, seed: int | None, licence: str) -> str:
    """Write the ONNX file and its card; return the line that says so.

    The noise is that of `seed`, or inputs of the graph. Raises UserError or OSError.
    """
    faces = loaded.faces
    difference = export_onnx(path, faces, seed, metadata(loaded))
    checked = "not checked: onnxruntime is not installed"
    if difference is not None:
        checked = f"at most {difference:.1e} from PyTorch's pictures in onnxruntime"
    config, size = faces.G.config, faces.stage.resolution
    last = f"`noise{faces.layers - 1:02d}`"
    maps = f"; `noise00` to {last}: normal numbers [batch, 1, r, r] for each layer"
    use = (
        f"ONNX, {checked}. Inputs: `z`, normal numbers [batch, {config.z_dim}]; `psi`, one number "
        f"(0.7 is usual, 1 gives full variety){maps if seed is None else ''}. Outputs: `images` "
        f"[batch, 3, {size}, {size}], red, green and blue in about [-1, 1], and `ws` "
        f"[batch, {config.num_ws}, {config.w_dim}]. To mix faces, cut the graph at `ws`: "
        "`onnx.utils.extract_model(FILE, PART, ['ws', ...], ['images'])`."
    )
    return f"{path}: {checked}; {write_card_beside(path, loaded, licence, use)}"


def write_safetensors(path: Path, loaded: Loaded, licence: str) -> str:
    """Write the safetensors file and its card; return the line that says so. Raises OSError."""
    weights = loaded.faces.G.state_dict()
    save_safetensors(path, weights, metadata(loaded))
    use = (
        f"safetensors: `python generate.py {path.name}` with Retrato. The entry `config` of the "
        "header's metadata holds, as JSON, what the networks are built from."
    )
    card = write_card_beside(path, loaded, licence, use)
    return f"{path}: {len(weights):,} tensors; {card}"


def metadata(loaded: Loaded) -> dict[str, Any]:
    """Return what is stored with the weights: the config, the stage and the training so far."""
    kept = {name: loaded.entries.get(name) for name in ("iteration", "nimg", "foreign")}
    return {
        "format": FORMAT,
        "model": asdict(loaded.faces.G.config),
        "stage": list(loaded.faces.stage),
        **{name: value for name, value in kept.items() if isinstance(value, int)},
    }


def write_images(path: Path, loaded: Loaded, seeds: range, psi: float, licence: str) -> str:
    """Write samples to a folder or zip, and their card; return the line that says so.

    Raises UserError or OSError.
    """
    count = len(seeds)
    with tqdm(total=count, unit=" images", leave=False, disable=None) as bar:
        write_samples(path, loaded.faces, seeds, psi, bar.update)
    use = (
        f"{count:,} samples as PNG: seeds {seeds[0]} to {seeds[-1]}, psi {psi:g}. They are "
        "generated; they are not photographs."
    )
    return f"{path}: {count:,} pictures; {write_card_beside(path, loaded, licence, use)}"


def write_card_beside(path: Path, loaded: Loaded, licence: str, use: str) -> str:
    """Write the card of the export at `path`; return the part of the line that names it."""
    card = path.with_name(f"{path.name}.md")
    write_card(card, loaded, path.name, licence, use)
    return f"card: {card.name}"
