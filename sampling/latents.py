"""Files of styles: what the synthesis network turns into faces, its styles and noise.

A file is an .npz of plain arrays: `format`, `generator` (a fingerprint of the weights that the
styles belong to), `ws` and one `noise` array per layer. It reproduces a picture to the last bit.
"""

import hashlib
import os
import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.cli import UserError
from common.files import replacing
from model import Generator

FORMAT = 1
LONGEST_NAME = 200  # bytes of a photo's name; with a suffix, a file name has at most 255


@dataclass(frozen=True)
class Latents:
    """Styles `ws` [N, num_ws, w_dim] and `noise` [N, 1, r, r] for each layer in use."""

    ws: Tensor
    noise: list[Tensor]

    def __getitem__(self, rows: slice | Tensor) -> "Latents":
        """Return some of the N."""
        return Latents(self.ws[rows], [maps[rows] for maps in self.noise])


def fingerprint(G: Generator) -> str:
    """Return 16 hexadecimal digits computed from the weights of `G.synthesis`.

    The mapping is left out: the picture of a w does not depend on it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(G.synthesis.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_latents(path: Path, G: Generator, latents: Latents) -> None:
    """Write `latents` of `G` to `path`, whole or not at all. Raises OSError."""
    arrays: dict[str, Any] = {
        "format": np.int64(FORMAT),
        "generator": np.str_(fingerprint(G)),
        "ws": latents.ws.cpu().numpy(),
    }
    arrays |= {f"noise{i:02d}": maps.cpu().numpy() for i, maps in enumerate(latents.noise)}
    with replacing(path) as file:
        np.savez(file, **arrays)


def unique_names(photos: Sequence[Path]) -> list[str]:
    """Return a file name for each photo's face: the photo's own, without its suffix.

    Names that repeat are numbered from 2.
    """
    names: list[str] = []
    for path in photos:
        stem = os.fsdecode(os.fsencode(path.stem)[:LONGEST_NAME])
        name, count = stem, 2
        while name in names:
            name, count = f"{stem}_{count}", count + 1
        names.append(name)
    return names


def load_latents(path: Path, G: Generator, resolution: int) -> Latents:
    """Return what `save_latents` wrote, on G's device, for pictures of `resolution` px.

    Raises UserError if the file is damaged, not a file of styles, or of another generator or
    resolution.
    """
    arrays = _read_arrays(path)
    if not {"format", "generator", "ws"} <= arrays.keys():
        raise _not_ours(path)
    if arrays["format"].tolist() != FORMAT:
        raise UserError(
            f"{path}: format {brief(arrays['format'].tolist())}; this program reads {FORMAT}. "
            "Update Retrato"
        )
    if arrays["generator"].tolist() != fingerprint(G):
        raise UserError(
            f"{path}: made with another generator; expected styles of the given checkpoint. "
            "Use the one it was made with, or create the file again"
        )
    noise = [arrays[name] for name in sorted(arrays) if name.startswith("noise")]
    sides = G.config.layers_up_to(resolution)
    count = len(arrays["ws"]) if arrays["ws"].ndim else 0
    shapes = [(count, G.config.num_ws, G.config.w_dim), *((count, 1, r, r) for r in sides)]
    if count == 0 or [array.shape for array in (arrays["ws"], *noise)] != shapes:
        raise UserError(
            f"{path}: does not fit; expected styles and noise for {resolution} px. Create it again"
        )
    ws, *maps = (_tensor(path, array, G.w_avg.device) for array in (arrays["ws"], *noise))
    return Latents(ws, maps)


def _tensor(path: Path, array: np.ndarray, device: torch.device) -> Tensor:
    if array.dtype != np.float32 or not np.isfinite(array).all():
        raise UserError(f"{path}: expected finite float32 numbers. Create it again")
    return torch.from_numpy(array).to(device)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz whose members are uncompressed and fit into the file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a FIFO would hang
            raise _not_ours(path)
        with open(path, "rb") as file:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                stored = all(m.compress_type == zipfile.ZIP_STORED for m in members)
                whole = sum(m.file_size for m in members) <= os.fstat(file.fileno()).st_size
            if not stored or not whole:
                raise _not_ours(path)
            file.seek(0)
            loaded: Any = np.load(file, allow_pickle=False)
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; expected a file of styles that --w_out or project.py wrote"
        ) from error
    except UserError:
        raise
    except Exception as error:  # a hostile file makes zipfile and numpy raise a dozen types
        raise _not_ours(path) from error


def _not_ours(path: Path) -> UserError:
    return UserError(
        f"{path}: damaged or not a file of styles; expected one that --w_out or project.py wrote"
    )
