"""Samples as files: where other programs look for them, and the pictures of generate.py."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.cli import UserError
from outputs.sample_files import write_samples, write_zip
from sampling.sampler import Faces, load_faces
from tests.support.folders import names, run
from tests.support.generators import CPU, make_blank, make_deaf, needs, save_generator


@pytest.fixture
def faces(tmp_path: Path) -> Faces:
    return load_faces(save_generator(tmp_path / "a.pt"), CPU, print).faces


def write(path: Path, faces: Faces, count: int, first: int = 0) -> Path:
    write_samples(path, faces, range(first, first + count), 0.9, lambda count: None)
    return path


def pixels(content: Path | bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image)


def test_pictures_are_those_of_their_seeds_flat_in_a_folder(faces: Faces, tmp_path: Path) -> None:
    made = sorted(write(tmp_path / "samples", faces, 18, first=3).iterdir())
    assert [path.name for path in made] == [f"img{i:08d}.png" for i in range(18)]
    for i in (0, 17):
        image = faces.render(faces.ws([3 + i], 0.9), faces.noise([3 + i]))[0]
        assert np.array_equal(pixels(made[i]), image.permute(1, 2, 0).numpy())


@needs("torch_fidelity")
def test_torch_fidelity_finds_the_pictures(faces: Faces, tmp_path: Path) -> None:
    from torch_fidelity.defaults import DEFAULTS
    from torch_fidelity.utils import glob_samples_paths

    write(tmp_path / "samples", faces, 5)
    deep, endings = DEFAULTS["samples_find_deep"], DEFAULTS["samples_find_ext"]
    found = glob_samples_paths(str(tmp_path / "samples"), deep, endings, verbose=False)
    assert len(found) == 5


def test_a_zip_is_laid_out_as_nvidias_tools_do_it(tmp_path: Path) -> None:
    """Its data set reads members by their endings, sorted, and labels from dataset.json."""
    path = tmp_path / "samples.zip"
    write_zip(path, (Image.new("RGB", (16, 16), (i % 256, 0, 0)) for i in range(1001)))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        found = sorted(name for name in archive.namelist() if name.endswith(".png"))
        assert pixels(archive.read(found[7])).tolist() == [[[7, 0, 0]] * 16] * 16
        assert len(archive.read(found[0])) > 16 * 16 * 3, "the pixels are compressed"
        assert json.loads(archive.read("dataset.json")) == {"labels": None}
    assert found == [f"{i // 1000:05d}/img{i:08d}.png" for i in range(1001)]


def test_the_same_samples_are_the_same_zip(faces: Faces, tmp_path: Path) -> None:
    first, again = (write(tmp_path / name, faces, 2) for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.slow
def test_prepare_data_reads_a_zip_of_samples(faces: Faces, tmp_path: Path) -> None:
    write(tmp_path / "samples.zip", faces, 3)
    run(tmp_path / "samples.zip", tmp_path / "a.lmdb", "--min_size", 16, "--sizes", 16)
    assert names(tmp_path / "a.lmdb") == [f"00000/img{i:08d}.png" for i in range(3)]


@pytest.mark.parametrize("name", ["samples", "samples.zip"])
def test_no_pictures_are_left_if_some_cannot_be_made(tmp_path: Path, name: str) -> None:
    bad = tmp_path / "bad.pt"
    for change, reason in ((make_blank, "of one colour"), (make_deaf, "the same image")):
        faces = load_faces(save_generator(bad, change=change), CPU, print).faces
        with pytest.raises(UserError, match=reason):
            write(tmp_path / name, faces, 3)
        assert list(tmp_path.iterdir()) == [bad]
