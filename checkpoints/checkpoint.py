"""Checkpoints: one format, written whole or not at all, and read without being trusted.

A file is a torch archive of plain values: `format`, `model` (a ModelConfig), `G_ema`, and in a full
state everything else that training needs. A snapshot has fewer entries. A safetensors file written
by export.py is read as a snapshot.
"""

import os
import stat
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from reprlib import repr as brief
from typing import IO, Any

import torch

from checkpoints import rosinality
from checkpoints.safetensors_file import begins_safetensors, parse_safetensors
from common.cli import UserError
from common.files import replacing
from critic import Critic, make_critic
from model import Generator, ModelConfig

FORMAT = 1
SIZES = [2**n for n in range(2, 11)]  # px, of images
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch before 1.6 begin
MAX_DEPTH = 8  # of dicts within dicts; Adam's state has 4


class CheckpointError(UserError):
    """A checkpoint that cannot be used."""


class NotFiniteError(CheckpointError):
    """Numbers of a run are NaN or infinite; no checkpoint is made of them."""


def save(path: Path, config: ModelConfig, entries: dict[str, Any]) -> None:
    """Write a checkpoint; `path` holds the old file until the new one is whole.

    `entries` are tensors, numbers, strings, and dicts or lists of them. Raises OSError, and
    NotFiniteError if a tensor is not finite.
    """
    broken = first_not_finite(entries)
    if broken:
        raise NotFiniteError(f"{broken} is not finite")
    write(path, {"format": FORMAT, "model": asdict(config), **entries})


def write(path: Path, entries: dict[str, Any]) -> None:
    """Write an archive of plain values; `path` is never half a file. Raises OSError."""
    with replacing(path) as file:
        try:
            torch.save(entries, file)
        except RuntimeError as error:  # torch's own, for an archive that it could not finish
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def named_tensors(value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor in nested dicts and lists with its dotted name.

    Each dict and list is entered once, even in a cycle. Raises ValueError if nested too deeply.
    """
    todo: list[tuple[tuple[str, ...], Any]] = [((), value)]
    seen = set()
    while todo:
        keys, value = todo.pop()
        if len(keys) > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if isinstance(value, torch.Tensor):
            yield ".".join(keys), value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            todo += reversed([((*keys, str(key)), inner) for key, inner in items])


def first_not_finite(entries: dict[str, Any]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity, if any."""
    for name, tensor in named_tensors(entries):
        if not tensor.isfinite().all():
            return name
    return None


def is_plain(entries: dict[str, Any], size: int) -> bool:
    """Return whether every tensor is an ordinary one with all its numbers in a file of `size`.

    Otherwise a few bytes could stand for a tensor of any size, or exotic kinds fail later on.
    """
    stored = {}
    for _, tensor in named_tensors(entries):
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            return False
        storage = tensor.untyped_storage()
        expanded = tensor.numel() * tensor.element_size() > storage.nbytes()
        if expanded or tensor.is_quantized or tensor.is_complex():
            return False
        stored[storage.data_ptr()] = storage.nbytes()
    return sum(stored.values()) <= size


def load(path: Path) -> dict[str, Any]:
    """Return the entries of a checkpoint, with tensors on the CPU.

    Generators of rosinality's program are converted, and have the entry `foreign`. Raises
    CheckpointError, whatever is wrong with the file.
    """
    entries = read(path)
    try:
        entries = translated(entries)
    except Exception as error:  # as many types again, of a state dict that is not what it seems
        raise not_ours(path) from error
    if not {"format", "model", "G_ema"} <= entries.keys() or not isinstance(entries["G_ema"], dict):
        raise not_ours(path)
    if not isinstance(entries["format"], int) or entries["format"] != FORMAT:
        written = brief(entries["format"])
        raise CheckpointError(
            f"{path}: format {written}; this program reads {FORMAT}. Update Retrato"
        )
    broken = first_not_finite(entries)
    if broken:
        raise CheckpointError(f"{path}: {broken} is not finite; use an earlier checkpoint")
    return entries


def read(path: Path) -> dict[str, Any]:
    """Return the plain values in a file that torch.save made from a dict, tensors on the CPU.

    The archive is checked before torch reads it: only stored members, no more bytes than the file
    has, every CRC32 right. torch's old format, which is no archive, and safetensors are read, too.
    Raises CheckpointError, whatever is wrong with the file.
    """
    with open_file(path) as file:  # opened once, in case it is replaced meanwhile
        start = file.read(len(LEGACY))
        is_safe = begins_safetensors(start)
        if start != LEGACY and not is_safe:
            check_archive(path, file)
        file.seek(0)
        try:
            with warnings.catch_warnings(action="ignore"):  # torch's advice is not for users
                entries = read_safe(file) if is_safe else torch.load(file, "cpu", weights_only=True)
            sound = isinstance(entries, dict)
            sound = sound and is_plain(entries, os.fstat(file.fileno()).st_size)
        except ImportError as error:
            raise CheckpointError(
                f"{path}: needs the package safetensors (pip install safetensors)"
            ) from error
        except Exception as error:  # a hostile file makes torch raise a dozen types
            raise not_ours(path) from error
    if not sound:
        raise not_ours(path)
    return entries


def read_safe(file: IO[bytes]) -> dict[str, Any]:
    """Return the entries of a snapshot in a safetensors file."""
    weights, entries = parse_safetensors(file.read())
    return {**entries, "G_ema": weights}


def translated(entries: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of rosinality's program converted to ours, others unchanged."""
    state = rosinality.find_state(entries)
    if state is None:
        return entries
    config, weights = rosinality.convert(state)
    return {"format": FORMAT, "model": asdict(config), "G_ema": weights, "foreign": True}


def open_file(path: Path) -> IO[bytes]:
    """Open the regular file at `path`; raise CheckpointError if it is none."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a FIFO would hang
            raise not_ours(path)
        return open(path, "rb")
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror}; expected a checkpoint or a run folder of train.py"
        ) from error


def check_archive(path: Path, file: IO[bytes]) -> None:
    """Raise CheckpointError unless `file` is an undamaged zip archive as torch.save writes it."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            stored = all(m.compress_type == zipfile.ZIP_STORED for m in members)
            size = os.fstat(file.fileno()).st_size
            if not stored or sum(m.file_size for m in members) > size:
                raise not_ours(path)
            damaged = archive.testzip()
    except CheckpointError:
        raise
    except Exception as error:  # zipfile lets errors of many kinds through
        raise CheckpointError(
            f"{path}: truncated or not a checkpoint; expected a file that train.py wrote. "
            "In a run folder, previous.pt is the state before it"
        ) from error
    if damaged:
        raise CheckpointError(
            f"{path}: damaged (checksum of {damaged}); use an earlier one, such as previous.pt"
        )


def not_ours(path: Path) -> CheckpointError:
    """Return the error for a file that no train.py wrote."""
    return CheckpointError(f"{path}: not a checkpoint of this program; expected one of train.py")


def load_generator(path: Path, device: torch.device) -> tuple[Generator, dict[str, Any]]:
    """Return G_ema, ready to sample from, and the other entries of the checkpoint.

    Raises CheckpointError, also when the weights do not fit the config stored beside them.
    """
    entries = load(path)
    config = model_config_of(path, entries)
    weights = entries.pop("G_ema")
    with torch.device("meta"):  # so that a config that lies about its size allocates nothing
        G = Generator(config)
        if entries.get("foreign"):
            rosinality.adapt(G)
    difference = first_difference(G, weights)
    if difference:
        raise CheckpointError(f"{path}: {difference}")
    G = G.to_empty(device=device)
    G.load_state_dict(dict(weights))  # a plain dict, without metadata
    return G.eval().requires_grad_(False), entries


def load_discriminator(path: Path, entries: dict[str, Any], G: Generator) -> Critic | None:
    """Return the D that was trained with `G`, on its device; None if the file has none.

    Raises CheckpointError if its weights do not fit.
    """
    weights = entries.get("D")
    if weights is None:
        return None
    with torch.device("meta"):
        D = make_critic(G.config)
    difference = first_difference(D, weights) if isinstance(weights, dict) else "D is not a dict"
    if difference:
        raise CheckpointError(f"{path}: {difference}")
    D = D.to_empty(device=G.w_avg.device)
    D.load_state_dict(weights)
    return D.eval().requires_grad_(False)


def model_config_of(path: Path, entries: dict[str, Any]) -> ModelConfig:
    """Return the ModelConfig stored in `entries`; raise CheckpointError if it is not one."""
    try:
        config = ModelConfig(**entries["model"])
        sizes = [config.z_dim, config.w_dim, config.mapping_layers]
        sound = type(config.resolution) is int and config.resolution in SIZES
        sound = sound and all(type(n) is int and n > 0 for n in sizes)
        sound = sound and max(sizes[:2]) <= 65536 and config.mapping_layers <= 64
        sound = sound and isinstance(config.width, int | float) and 0 < config.width <= 64
    except TypeError:
        sound = False
    if not sound:
        raise CheckpointError(f"{path}: unusable model config {brief(entries['model'])}")
    return config


def first_difference(module: torch.nn.Module, weights: dict[str, Any]) -> str | None:
    """Return the first difference in name, shape or type between `weights` and `module`, if any."""
    own = module.state_dict()
    for name in [*own, *weights]:
        there, here = described(weights.get(name)), described(own.get(name))
        if there != here or here == "no tensor":
            return f"{name} is {there} in the file and {here} in this model"
    return None


def described(value: object) -> str:
    """Return the shape and type of a tensor as text."""
    if not isinstance(value, torch.Tensor):
        return "no tensor"
    return f"{tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
