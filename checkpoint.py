"""Checkpoints: one format, written whole or not at all, read without trusting them.

A file is a torch archive of plain values: `format`, `model` (the ModelConfig), `G_ema`, and for
the full state whatever else train.py hands over. A snapshot is the same file with fewer entries.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model import Generator, ModelConfig

FORMAT = 1
LATEST = "latest.pt"
PREVIOUS = "previous.pt"


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message is one line for the user."""


def save(path: Path, config: ModelConfig, entries: dict[str, Any]) -> None:
    """Write a checkpoint so that `path` holds the old file or the whole new one, never neither.

    `entries` are tensors, numbers, strings and dicts or lists of them. Raises OSError, and
    CheckpointError when a weight is not finite: such a file is never written.
    """
    broken = first_not_finite(entries)
    if broken:
        raise CheckpointError(
            f"{path}: not saved, since {broken} is not finite; expected finite weights. "
            "Continue from the last checkpoint with a lower --lr"
        )
    partial = path.with_name(f".{path.name}.tmp")
    try:
        with open(partial, "wb") as file:
            torch.save({"format": FORMAT, "model": asdict(config), **entries}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def save_latest(run: Path, config: ModelConfig, entries: dict[str, Any]) -> None:
    """Write `latest.pt` in the run folder and keep the one before as `previous.pt`."""
    latest = run / LATEST
    fresh = run / "next.pt"
    save(fresh, config, entries)
    if latest.exists():
        os.replace(latest, run / PREVIOUS)
    os.replace(fresh, latest)
    sync_folder(run)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def first_not_finite(value: Any, name: str = "") -> str | None:
    """Return the name of the first tensor under `value` that holds NaN or infinity, if any."""
    if isinstance(value, torch.Tensor):
        finite = not value.is_floating_point() or bool(value.isfinite().all())
        return None if finite else name
    if isinstance(value, dict):
        for key, inner in value.items():
            found = first_not_finite(inner, f"{name}.{key}" if name else str(key))
            if found:
                return found
    return None


def load(path: Path) -> dict[str, Any]:
    """Return the entries of a checkpoint, tensors on the CPU.

    The archive is checked before torch sees it: stored members only, no more bytes than the file
    has, every CRC32 right. Raises CheckpointError, whatever is wrong.
    """
    check_archive(path)
    try:
        entries = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here; its advice must not be shown
        raise not_ours(path) from error
    if not isinstance(entries, dict) or not {"format", "model", "G_ema"} <= entries.keys():
        raise not_ours(path)
    if entries["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: format {entries['format']!r}; this program reads {FORMAT}. Update Retrato"
        )
    broken = first_not_finite(entries)
    if broken:
        raise CheckpointError(f"{path}: {broken} is not finite; use an earlier checkpoint")
    return entries


def check_archive(path: Path) -> None:
    """Raise CheckpointError unless `path` is a sound zip archive such as torch.save writes."""
    try:
        status = path.stat()
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror}; expected a checkpoint or a run folder of train.py"
        ) from error
    if not stat.S_ISREG(status.st_mode):  # a FIFO would hang
        raise not_ours(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            stored = all(m.compress_type == zipfile.ZIP_STORED for m in members)
            if not stored or sum(m.file_size for m in members) > status.st_size:
                raise not_ours(path)
            damaged = archive.testzip()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; expected a readable file") from error
    except CheckpointError:
        raise
    except Exception as error:  # zipfile leaks struct.error, NotImplementedError and more
        raise CheckpointError(
            f"{path}: truncated or not a checkpoint; expected a file that train.py wrote. "
            f"In a run folder, {PREVIOUS} is the one before"
        ) from error
    if damaged:
        raise CheckpointError(
            f"{path}: damaged (checksum of {damaged}); use an earlier one, such as {PREVIOUS}"
        )


def not_ours(path: Path) -> CheckpointError:
    """Return the error for a file of another program."""
    return CheckpointError(f"{path}: not a checkpoint of this program; expected one of train.py")


def load_latest(run: Path, tell: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the newest sound full state in a run folder, or None where there is none yet.

    A damaged file is told and the one before it used. Raises CheckpointError when every one is.
    """
    present = [run / name for name in (LATEST, PREVIOUS) if (run / name).exists()]
    for path in present:
        try:
            return load(path)
        except CheckpointError as error:
            if path == present[-1]:
                raise
            tell(f"{error}; using {PREVIOUS}")
    return None


def find(path: Path) -> Path:
    """Return the file meant by `path`: itself, or in a run folder the newest full state.

    Raises CheckpointError for a folder with neither.
    """
    if not path.is_dir():
        return path
    snapshots = sorted((path / "snapshots").glob("*.pt"))
    for candidate in [path / LATEST, path / PREVIOUS, *snapshots[::-1]]:
        if candidate.exists():
            return candidate
    raise CheckpointError(f"{path}: no checkpoint in this folder; expected a run of train.py")


def load_generator(path: Path, device: torch.device) -> tuple[Generator, dict[str, Any]]:
    """Return G_ema, ready to sample from, and the other entries of the checkpoint.

    Raises CheckpointError, also when the weights do not fit the config stored beside them.
    """
    entries = load(path)
    config = read_config(path, entries)
    weights = entries.pop("G_ema")
    stored = sum(t.numel() for t in weights.values() if isinstance(t, torch.Tensor))
    with torch.device("meta"):  # a config that lies about its size allocates nothing
        G = Generator(config)
    if sum(t.numel() for t in G.state_dict().values()) != stored:
        raise CheckpointError(f"{path}: the weights do not fit the stored config {config}")
    G = G.to_empty(device=device)
    load_weights(G, weights, path)
    return G.eval().requires_grad_(False), entries


def read_config(path: Path, entries: dict[str, Any]) -> ModelConfig:
    """Return the ModelConfig stored in `entries`; raise CheckpointError if it is not one."""
    try:
        config = ModelConfig(**entries["model"])
        sizes = [config.resolution, config.z_dim, config.w_dim, config.mapping_layers]
        sound = all(isinstance(n, int) and 0 < n <= 65536 for n in sizes) and 0 < config.width <= 64
    except TypeError:
        sound = False
    if not sound:
        raise CheckpointError(f"{path}: unusable model config {entries['model']!r}")
    return config


def load_weights(module: torch.nn.Module, weights: dict[str, Any], path: Path) -> None:
    """Copy `weights` into `module`; raise CheckpointError naming the first difference."""
    own = module.state_dict()
    for name in [*own, *weights]:
        here, there = own.get(name), weights.get(name)
        if here is None or there is None or here.shape != there.shape:
            shapes = [None if t is None else tuple(t.shape) for t in (there, here)]
            raise CheckpointError(
                f"{path}: {name} is {shapes[0]} in the file and {shapes[1]} in this model"
            )
    module.load_state_dict(weights)
