"""Files of styles give back the same faces, and every unusable file is refused in one line."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from common.cli import UserError
from model import Generator
from sampling.latents import Latents, fingerprint, load_latents, save_latents, unique_names
from tests.support.generators import SMALL, untrained


def generator(seed: int = 0) -> Generator:
    return untrained(seed=seed).requires_grad_(False)


def some_latents(count: int = 2, resolution: int = 16) -> Latents:
    rng = torch.Generator().manual_seed(7)
    ws = torch.randn(count, SMALL.num_ws, SMALL.w_dim, generator=rng)
    return Latents(ws, generator().draw_noise(count, resolution, rng))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_latents(tmp_path / "faces.npz", generator(), some_latents())
    return tmp_path / "faces.npz"


def refused(path: Path, seed: int = 0, resolution: int = 16) -> str:
    with pytest.raises(UserError) as error:
        load_latents(path, generator(seed), resolution)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_saved_comes_back_to_the_last_bit(path: Path) -> None:
    there = some_latents()
    back = load_latents(path, generator(), 16)
    assert torch.equal(back.ws, there.ws)
    assert len(back.noise) == len(there.noise)
    assert all(torch.equal(a, b) for a, b in zip(back.noise, there.noise, strict=True))
    assert os.listdir(path.parent) == [path.name]


def test_the_fingerprint_follows_every_weight_that_makes_pictures() -> None:
    seen = {fingerprint(generator())}
    assert fingerprint(generator()) in seen
    for index in range(len(list(generator().synthesis.parameters()))):
        G = generator()
        list(G.synthesis.parameters())[index].view(-1)[0] += 1e-3
        seen.add(fingerprint(G))
    assert len(seen) == 1 + len(list(generator().synthesis.parameters()))
    G = generator()
    G.w_avg += 1
    assert fingerprint(G) in seen


def test_styles_of_another_generator_or_resolution_are_refused(path: Path) -> None:
    assert "another generator" in refused(path, seed=1)
    assert "does not fit" in refused(path, resolution=8)


def rewritten(path: Path, **changes: object) -> Path:
    with np.load(path, allow_pickle=False) as loaded:
        arrays = {name: loaded[name] for name in loaded.files} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_arrays_that_do_not_fit_are_refused(path: Path) -> None:
    whole = path.read_bytes()
    bad = np.zeros((2, SMALL.num_ws, SMALL.w_dim), np.float32)
    changes: list[tuple[dict[str, object], str]] = [
        ({"format": np.int64(2)}, "format 2"),
        ({"ws": None}, "not a file of styles"),
        ({"ws": bad[:, :3]}, "does not fit"),
        ({"ws": bad[:0]}, "does not fit"),
        ({"ws": np.float32(1)}, "does not fit"),
        ({"ws": bad.astype(np.float64)}, "float32"),
        ({"ws": bad + np.nan}, "finite"),
        ({"noise03": None}, "does not fit"),
        ({"ws": np.array([{}], dtype=object)}, "not a file of styles"),
    ]
    for change, reason in changes:
        path.write_bytes(whole)
        assert reason in refused(rewritten(path, **change)), change


def test_damaged_hostile_and_missing_files_are_refused(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], b"\x93NUMPY", b"a photo"):
        path.write_bytes(content)
        assert "damaged or not a file of styles" in refused(path)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    refused(path)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ws.npy", bytes(10**7))
    path.write_bytes(bomb.getvalue())
    refused(path)
    assert "No such file" in refused(tmp_path / "none.npz")
    refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.npz")
    refused(tmp_path / "pipe.npz")


def test_photos_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    paths = [Path(folder, "me.jpg") for folder in ("a", "b", "c")]
    assert unique_names(paths) == ["me", "me_2", "me_3"]
    assert unique_names([Path("me_2.jpg"), *paths[:2]]) == ["me_2", "me", "me_3"]
