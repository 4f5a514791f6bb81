"""Samples as files that other programs read, to measure them or to train on them.

A zip is laid out as by NVIDIA's dataset_tool.py: 00000/img00000000.png and so on, stored and not
compressed, and a dataset.json without labels. In a folder the pictures lie flat, as torch-fidelity
looks for them unless told otherwise; NVIDIA's programs search folders whole.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from common.files import replacing
from sampling.sampler import Faces, refuse_alike

MADE = (1980, 1, 1, 0, 0, 0)  # the time of every member: the same samples are the same zip
NAME = "img{:08d}.png"


def is_zip(path: Path) -> bool:
    """Return whether samples at `path` go into a zip."""
    return path.suffix.lower() == ".zip"


def write_samples(
    path: Path, faces: Faces, seeds: range, psi: float, done: Callable[[int], object]
) -> None:
    """Write the picture of each seed to the folder or zip `path`, which is whole or not there.

    A zip is replaced, a folder must be empty or not be there. Raises OSError, UserError.
    """
    pictures = render(faces, seeds, psi, done)
    if is_zip(path):
        write_zip(path, pictures)
    else:
        write_folder(path, pictures)


def render(
    faces: Faces, seeds: range, psi: float, done: Callable[[int], object]
) -> Iterator[Image.Image]:
    """Yield the picture of each seed, the same as generate.py's."""
    for start in range(0, len(seeds), faces.batch):
        batch = seeds[start : start + faces.batch]
        images = faces.render(faces.ws(batch, psi), faces.noise(batch))
        refuse_alike(images, batch, psi)
        for image in images.permute(0, 2, 3, 1).contiguous():
            yield Image.fromarray(image.numpy())
        done(len(batch))


def write_zip(path: Path, pictures: Iterator[Image.Image]) -> None:
    """Write pictures as a zip. Raises OSError."""
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, content: bytes) -> None:
            info = zipfile.ZipInfo(name, MADE)
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)

        for i, picture in enumerate(pictures):
            content = io.BytesIO()
            picture.save(content, "PNG", compress_level=0)  # as fast to read as raw pixels
            add(f"{i // 1000:05d}/{NAME.format(i)}", content.getvalue())
        add("dataset.json", json.dumps({"labels": None}).encode())


def write_folder(path: Path, pictures: Iterator[Image.Image]) -> None:
    """Write pictures into a new folder, put into its place once it is whole. Raises OSError."""
    partial = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        for i, picture in enumerate(pictures):
            picture.save(partial / NAME.format(i))
        os.replace(partial, path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
