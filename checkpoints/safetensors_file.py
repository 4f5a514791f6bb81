"""Weights as a safetensors file, with the config of the networks in its header.

Needs the package safetensors, which is optional.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from common.files import replacing

CONFIG = "config"  # in the header's metadata, as JSON
HEADER_AT = 8  # bytes, after the length of the header


def begins_safetensors(start: bytes) -> bool:
    """Return whether a file beginning with `start` (ten bytes or more) may be one."""
    return start[HEADER_AT : HEADER_AT + 2] == b'{"'


def save_safetensors(path: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write tensors and a config of plain values; `path` is never half a file. Raises OSError."""
    from safetensors.torch import save

    metadata = {"format": "pt", CONFIG: json.dumps(config)}  # `pt`: what transformers looks for
    content = save({k: v.cpu().contiguous() for k, v in tensors.items()}, metadata)
    with replacing(path) as file:
        file.write(content)


def parse_safetensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the config in a file's content.

    Raises ImportError without the package, and any of a dozen errors for other files.
    """
    from safetensors.torch import load

    tensors = load(content)  # checks the header and every offset
    length = int.from_bytes(content[:HEADER_AT], "little")
    header = json.loads(content[HEADER_AT : HEADER_AT + length])
    return tensors, dict(json.loads(header["__metadata__"][CONFIG]))
