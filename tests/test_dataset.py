"""ImageBank, on our databases, rosinality's and damaged ones."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image

import dataset
from common.cli import UserError
from data.lmdb_format import HOLDOUT, TRAINING
from data.lmdb_writer import Writer
from data.photos import Recipe
from dataset import ImageBank
from tests.support.folders import entries, jpeg

ROOT = Path(__file__).parents[1]


def decode(record: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(record))).transpose(2, 0, 1)


def store(path: Path, entries: dict[str, bytes]) -> Path:
    """Write an LMDB without our writer."""
    with lmdb.open(str(path), map_size=2**24) as env, env.begin(write=True) as txn:
        for key, value in entries.items():
            txn.put(key.encode(), value)
    return path


def rosinality(path: Path, count: int, size: int = 16) -> Path:
    entries = {f"{size}-{str(i).zfill(5)}": jpeg(i, size) for i in range(count)}
    return store(path, {**entries, "length": str(count).encode()})


def ours(path: Path, count: int = 20, sizes: tuple[int, ...] = (16,)) -> Path:
    with Writer(path, sizes, ["young", "old"]) as writer:
        for index in range(count):
            records = [jpeg(index, size) for size in sizes]
            writer.add(records, b"n%d.png" % index, index % 2)
    return path


def images(bank: ImageBank) -> torch.Tensor:
    assert bank.images is not None
    return bank.images


def change(path: Path, key: str, value: bytes | None) -> None:
    with lmdb.open(str(path), map_size=2**26) as env, env.begin(write=True) as txn:
        txn.delete(key.encode()) if value is None else txn.put(key.encode(), value)


def test_a_database_of_rosinality_opens(tmp_path: Path) -> None:
    bank = ImageBank(rosinality(tmp_path / "r.lmdb", 12), 16)
    assert (bank.count, bank.resolution, bank.sources) == (12, 16, [])
    expected = np.stack([decode(jpeg(index)) for index in range(12)])
    assert torch.equal(images(bank), torch.from_numpy(expected))


def test_the_bank_holds_every_image_of_ours(tmp_path: Path) -> None:
    bank = ImageBank(ours(tmp_path / "a.lmdb"), 16)
    expected = np.stack([decode(jpeg(index)) for index in range(20)])
    assert torch.equal(images(bank), torch.from_numpy(expected))
    assert bank.sources == ["young", "old"]


def test_the_bank_knows_how_its_photos_were_prepared(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.lmdb", [8, 16], ["young"]) as writer:
        writer.settings = {"quality": 80, "min_size": 100, "seed": 3}
        writer.add([jpeg(0, 8), jpeg(0)], b"0.png", 0)
        writer.add([jpeg(1, 8), jpeg(1)], b"1.png", 0, HOLDOUT)
    for part in (TRAINING, HOLDOUT):
        recipe = ImageBank(tmp_path / "a.lmdb", 16, part=part).recipe
        assert recipe == Recipe((8, 16), 80, 100)
        assert recipe.settings() == {"quality": 80, "min_size": 100}


@pytest.mark.parametrize("settings", [None, {}, [], {"quality": "high", "min_size": None}])
def test_an_unknown_recipe_is_the_default_one(tmp_path: Path, settings: object) -> None:
    path = ours(tmp_path / "a.lmdb", 3)
    meta = json.loads(entries(path)["meta"])
    change(path, "meta", json.dumps({**meta, "settings": settings}).encode())
    assert ImageBank(path, 16).recipe == Recipe((16,), quality=95, min_size=32)
    assert ImageBank(rosinality(tmp_path / "r.lmdb", 3), 16).recipe == Recipe((16,))


def test_held_out_photos_have_their_own_bank_and_do_not_change_the_digest(tmp_path: Path) -> None:
    path = ours(tmp_path / "a.lmdb", 6)
    before = ImageBank(path, 16).digest
    with pytest.raises(UserError, match="no photos are held out"):
        ImageBank(path, 16, part=HOLDOUT)
    with Writer(tmp_path / "b.lmdb", [16], ["young", "old"]) as writer:
        for index in range(10):
            part = HOLDOUT if index >= 6 else TRAINING
            writer.add([jpeg(index)], b"n%d.png" % index, index % 2, part)
    bank, unseen = (ImageBank(tmp_path / "b.lmdb", 16, part=part) for part in (TRAINING, HOLDOUT))
    assert bank.digest == before
    assert unseen.digest != before
    assert torch.equal(images(unseen)[3], torch.tensor(decode(jpeg(9))))
    assert torch.equal(images(bank), images(ImageBank(path, 16)))
    change(tmp_path / "b.lmdb", "holdout-length", b"3")
    with pytest.raises(UserError, match="holdout-length"):
        ImageBank(tmp_path / "b.lmdb", 16)
    change(tmp_path / "b.lmdb", "holdout-length", b"4")
    change(tmp_path / "b.lmdb", "holdout-16-00002", jpeg(50))
    with pytest.raises(UserError, match="holdout-16-00002 is bad"):
        ImageBank(tmp_path / "b.lmdb", 16, part=HOLDOUT)


def test_the_smallest_sufficient_size_is_read(tmp_path: Path) -> None:
    path = ours(tmp_path / "a.lmdb", 4, (8, 16, 64))
    for resolution, stored in [(8, 8), (16, 16), (64, 64)]:
        bank = ImageBank(path, resolution)
        assert np.array_equal(images(bank)[3].numpy(), decode(jpeg(3, stored)))


def test_a_larger_stored_size_is_reduced_by_means_rounded_once(tmp_path: Path) -> None:
    bank = ImageBank(ours(tmp_path / "a.lmdb", 4), 4)
    pixels = decode(jpeg(2)).astype(np.float64)
    while pixels.shape[1] > 4:
        pixels = (pixels[:, ::2] + pixels[:, 1::2]) / 2
        pixels = (pixels[:, :, ::2] + pixels[:, :, 1::2]) / 2
    assert np.array_equal(images(bank)[2].numpy(), np.floor(pixels + 0.5))


@pytest.mark.parametrize("size", [1, 6, 20, 47])
def test_batches_are_slices_of_endless_permutations(tmp_path: Path, size: int) -> None:
    bank = ImageBank(ours(tmp_path / "a.lmdb"), 16)
    sequence: list[int] = []
    for epoch in range(12):
        draws = np.random.Philox(np.random.SeedSequence([5, epoch])).random_raw(20)
        sequence += sorted(range(20), key=lambda index: draws[index])
    for iteration in [3, 0, 2, 1, 4]:
        expected = sequence[iteration * size : (iteration + 1) * size]
        batch = bank.batch(5, iteration, size)
        assert batch.dtype == torch.uint8
        assert torch.equal(batch, images(bank)[expected])


def test_every_image_is_shown_once_per_epoch_and_epochs_and_seeds_differ(tmp_path: Path) -> None:
    bank = ImageBank(ours(tmp_path / "a.lmdb"), 16)
    epochs = [np.concatenate([bank.indices(0, e * 5 + i, 4) for i in range(5)]) for e in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(bank.indices(0, 0, 20), bank.indices(1, 0, 20))


def test_without_memory_for_all_images_batches_are_decoded_as_needed_and_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ours(tmp_path / "a.lmdb")
    bank = ImageBank(path, 8)
    monkeypatch.setattr(dataset, "free_bytes", lambda _: 1000)
    streamed = ImageBank(path, 8)
    assert streamed.images is None
    assert streamed.digest == bank.digest
    for iteration in [*range(8), 3, 3, 9, 10]:
        assert torch.equal(streamed.batch(1, iteration, 6), bank.batch(1, iteration, 6))
    half = slice(3, 6)
    assert torch.equal(streamed.batch(1, 11, 6, half), bank.batch(1, 11, 6)[half])
    streamed.close()


def test_the_next_batch_is_decoded_while_this_one_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "free_bytes", lambda _: 1000)
    bank = ImageBank(ours(tmp_path / "a.lmdb"), 8)
    decode, here = bank._decode, []

    def watched(indices: np.ndarray) -> np.ndarray:
        here.append(threading.current_thread() is threading.main_thread())
        return decode(indices)

    monkeypatch.setattr(bank, "_decode", watched)
    for iteration in range(5):
        bank.batch(1, iteration, 6)
    bank.close()
    assert here == [True] + [False] * (len(here) - 1)
    assert len(here) >= 5


def test_the_digest_names_the_data(tmp_path: Path) -> None:
    digests = {
        ImageBank(ours(tmp_path / "a.lmdb"), 16).digest,
        ImageBank(ours(tmp_path / "b.lmdb", 19), 16).digest,
        ImageBank(rosinality(tmp_path / "c.lmdb", 20), 16).digest,
        ImageBank(rosinality(tmp_path / "d.lmdb", 19), 16).digest,
    }
    assert len(digests) == 4
    assert ImageBank(ours(tmp_path / "e.lmdb"), 16).digest in digests
    assert ImageBank(rosinality(tmp_path / "f.lmdb", 20), 16).digest in digests


def refused(path: Path, resolution: int = 16) -> str:
    with pytest.raises(UserError) as error:
        ImageBank(path, resolution)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    assert "; expected" in text
    return text


def test_a_path_without_a_database_is_refused_and_nothing_is_created(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "none.lmdb")
    (tmp_path / "file").write_text("x")
    assert "a file" in refused(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "without data.mdb" in refused(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "data.mdb").write_text("no database " * 1000)
    assert "not an LMDB" in refused(tmp_path / "text")
    (tmp_path / "text" / "data.mdb").write_bytes(b"")
    assert "cannot be opened" in refused(tmp_path / "text")
    assert not (tmp_path / "none.lmdb").exists()


def test_a_foreign_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = store(tmp_path / "f.lmdb", {"a": b"1", "b": b"2"})
    before = hashlib.sha256((path / "data.mdb").read_bytes()).digest()
    assert "not of faces" in refused(path)
    assert hashlib.sha256((path / "data.mdb").read_bytes()).digest() == before


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_truncated_database_is_refused_without_a_crash(tmp_path: Path, share: float) -> None:
    path = ours(tmp_path / "a.lmdb", 50)
    whole = (path / "data.mdb").stat().st_size
    os.truncate(path / "data.mdb", int(whole * share))
    code = (
        "import pathlib, sys; from data import lmdb_format as database\n"
        "with database.reading(pathlib.Path(sys.argv[1])) as txn: list(txn.cursor())"
    )
    # In a process of its own, which a truncated file could kill by SIGBUS.
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"truncated, {int(whole * share):,} of {whole:,} bytes" in done.stderr
    assert "truncated" in refused(path)


@pytest.mark.parametrize("length", [None, b"", b"many", b"-3", b"0", b"21", b"1" + b"0" * 12])
def test_a_wrong_length_is_refused(tmp_path: Path, length: bytes | None) -> None:
    path = ours(tmp_path / "a.lmdb")
    change(path, "length", length)
    assert "length" in refused(path)


@pytest.mark.parametrize("meta", [b"\xff", b"[]", b"{}", b'{"format": 1, "sizes": 3}'])
def test_damaged_meta_is_refused(tmp_path: Path, meta: bytes) -> None:
    path = ours(tmp_path / "a.lmdb")
    change(path, "meta", meta)
    assert "damaged" in refused(path)


ODD_METAS: list[dict[str, object]] = [
    {"sizes": []}, {"sizes": 16}, {"sizes": ["16"]}, {"sizes": [16.0]}, {"sizes": [10**30]},
    {"sizes": {"16": 1}}, {"sizes": None}, {"format": 10**400}, {"format": "x" * 10**5},
    {"count": "24"},
]  # fmt: skip


def test_meta_of_other_types_or_nested_without_end_is_refused_briefly(tmp_path: Path) -> None:
    path = ours(tmp_path / "a.lmdb")
    meta = json.loads(entries(path)["meta"])
    odd = [json.dumps({**meta, **more}).encode() for more in ODD_METAS]
    for content in (*odd, b"[" * 10**5, b"null", b""):
        change(path, "meta", content)
        assert len(refused(path)) < 600


def test_a_later_format_is_refused_by_its_number(tmp_path: Path) -> None:
    path = ours(tmp_path / "a.lmdb")
    meta = json.loads(entries(path)["meta"])
    change(path, "meta", json.dumps({**meta, "format": 2}).encode())
    assert "format 2; expected 1" in refused(path)


def test_a_resolution_above_what_is_stored_is_refused(tmp_path: Path) -> None:
    path = ours(tmp_path / "a.lmdb")
    assert "stores 16 px" in refused(path, 32)
    assert "stores 16 px" in refused(path, 12)


def test_bad_records_are_named(tmp_path: Path) -> None:
    path = ours(tmp_path / "a.lmdb")
    change(path, "16-00007", jpeg(7)[:-9] + bytes(9))
    assert "16-00007" in refused(path)
    assert "checksum" in refused(path)
    change(path, "16-00007", None)
    assert "16-00007 is bad: missing" in refused(path)


@pytest.mark.parametrize(
    ("record", "how"),
    [
        (b"", "not a JPEG"),
        (b"text", "not a JPEG"),
        (jpeg(3)[:200], "not a JPEG"),
        (jpeg(3, 8), "8 x 8 px"),
    ],
)
def test_records_that_are_not_such_jpegs_are_named(tmp_path: Path, record: bytes, how: str) -> None:
    path = rosinality(tmp_path / "r.lmdb", 5)
    change(path, "16-00003", record)
    assert "16-00003" in refused(path)
    assert how in refused(path)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = ours(tmp_path / "a.lmdb")
    piece = jpeg(4)[-40:]  # within the pixels, where a JPEG decoder notices nothing
    data = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(data.replace(piece, bytes([piece[0] ^ 1]) + piece[1:]))
    assert "16-00004" in refused(path)
