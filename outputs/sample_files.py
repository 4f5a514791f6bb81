"""Samples as files for other programs, to measure them or to train on them.

A zip has the layout of NVIDIA's dataset_tool.py: 00000/img00000000.png and so on, uncompressed, and
a dataset.json without labels. A folder is flat, as torch-fidelity expects by default; NVIDIA's
programs search all subfolders.
"""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from common.files import replacing
from sampling.sampler import Faces, check_variety

MADE = (1980, 1, 1, 0, 0, 0)  # the time of every member, so that equal samples give equal zips
NAME = "img{:08d}.png"


def is_zip(path: Path) -> bool:
    """Return whether `path` is the name of a zip."""
    return path.suffix.lower() == ".zip"


def write_samples(
    path: Path, faces: Faces, seeds: range, psi: float, progress: Callable[[int], object]
) -> None:
    """Write the picture of each seed to the folder or zip `path`, whole or not at all.

    A zip is replaced; a folder must be empty or new. Raises OSError or UserError.
    """
    pictures = render(faces, seeds, psi, progress)
    if is_zip(path):
        write_zip(path, pictures)
    else:
        write_folder(path, pictures)


def render(
    faces: Faces, seeds: range, psi: float, progress: Callable[[int], object]
) -> Iterator[Image.Image]:
    """Yield the picture of each seed, the same as generate.py's. Raises UserError."""
    for start in range(0, len(seeds), faces.batch):
        batch = seeds[start : start + faces.batch]
        images = faces.render(faces.ws(batch, psi), faces.noise(batch), progress)
        check_variety(images, batch, psi)
        for image in images.permute(0, 2, 3, 1).contiguous():
            yield Image.fromarray(image.numpy())


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
    """Write pictures to a new folder, renamed into place when it is complete. Raises OSError."""
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
