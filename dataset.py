"""ImageBank: the faces of an LMDB in memory, and endless batches of them in a resumable order.

The layout of the LMDB is described in data/lmdb_format.py; prepare_data.py makes one.
"""

import hashlib
import io
import os
import zlib
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import lmdb
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.cli import UserError
from common.device import free_bytes
from data.lmdb_format import (
    HOLDOUT,
    TRAINING,
    get,
    open_database,
    printable,
    read_catalogue,
    read_holdout,
    record_key,
)

MEMORY_SHARE = 0.5  # of the free memory; images that need more are decoded batch by batch
CHUNK = 256  # images that a thread decodes in one go, at most


class ImageBank:
    """All the images of a database at one resolution, and endless batches of them.

    They are the images to train on or, with part=HOLDOUT, those held out. `images` is uint8
    [N, 3, R, R], on the device or, if it has no room, in main memory. If neither has, it is None:
    then each batch is decoded while the one before it is in use. An image stored larger than
    `resolution` is reduced by exact means over squares. Raises UserError.
    """

    images: Tensor | None

    def __init__(
        self,
        path: str | os.PathLike[str],
        resolution: int,
        device: str | torch.device = "cpu",
        part: str = TRAINING,
    ) -> None:
        self.path = Path(path)
        self.part = part
        self.resolution = resolution
        self.device = torch.device(device)
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        self._threads = ThreadPoolExecutor(min(32, os.cpu_count() or 1))
        self._reader = ThreadPoolExecutor(1)
        self._ahead: tuple[list[int], Future[np.ndarray]] | None = None  # being decoded
        self._env = open_database(self.path)
        try:
            with self._env.begin() as txn:
                read = read_holdout if part == HOLDOUT else read_catalogue
                catalogue = read(txn, self.path)
                self.count, self.sources = catalogue.count, catalogue.sources
                self.held_out, self.recipe = catalogue.held_out, catalogue.recipe
                self._stored = self._smallest_sufficient(catalogue.sizes)
                self._crcs = catalogue.crcs.get(self._stored)
                self.digest = catalogue.digest or self._digest_of_records(txn)
            self.images = self._load()
        except BaseException:
            self.close()
            raise
        if self.images is not None:
            self.close()

    def close(self) -> None:
        """Close the database, which only a bank without `images` needs open."""
        self._reader.shutdown(cancel_futures=True)
        self._threads.shutdown(cancel_futures=True)
        self._env.close()

    def batch(self, seed: int, iteration: int, size: int, rows: slice = slice(None)) -> Tensor:
        """Return the uint8 images [size, 3, R, R] of one iteration, or its `rows`, on the device.

        They depend on the arguments alone: epochs are permutations drawn from (seed, epoch), one
        after the other, and iteration i takes the places from i * size to (i + 1) * size.
        """
        indices = self.indices(seed, iteration, size)[rows]
        if self.images is not None:
            return self.take(indices)
        following = self.indices(seed, iteration + 1, size)[rows]
        return torch.from_numpy(self._stream(indices, following)).to(self.device)

    def take(self, indices: np.ndarray) -> Tensor:
        """Return the uint8 images [len(indices), 3, R, R] with these indices, on the device."""
        if self.images is None:
            return torch.from_numpy(self._decode(indices)).to(self.device)
        chosen = torch.from_numpy(indices).to(self.images.device)
        return self.images[chosen].to(self.device)

    def _stream(self, indices: np.ndarray, following: np.ndarray) -> np.ndarray:
        """Return the images of `indices`, and start to decode those of `following`."""
        ahead, self._ahead = self._ahead, None
        expected = ahead is not None and ahead[0] == indices.tolist()
        images = ahead[1].result() if ahead and expected else self._decode(indices)
        self._ahead = following.tolist(), self._reader.submit(self._decode, following)
        return images

    def indices(self, seed: int, iteration: int, size: int) -> np.ndarray:
        """Return the indices of the images in an iteration's batch, int64 [size]."""
        parts = []
        position, end = iteration * size, (iteration + 1) * size
        while position < end:
            epoch, place = divmod(position, self.count)
            parts.append(self._order(seed, epoch)[place : place + end - position])
            position += len(parts[-1])
        return np.concatenate(parts)

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        if (seed, epoch) not in self._orders:
            if len(self._orders) > 1:
                self._orders.clear()
            # Raw draws, since numpy guarantees them, unlike permutations, across versions.
            draws = np.random.Philox(np.random.SeedSequence([seed, epoch])).random_raw(self.count)
            self._orders[seed, epoch] = np.argsort(draws, kind="stable")
        return self._orders[seed, epoch]

    def _smallest_sufficient(self, sizes: Iterable[int]) -> int:
        stored = sorted(sizes)
        for size in stored:
            if size >= self.resolution and size % self.resolution == 0:
                return size
        raise UserError(
            f"{printable(self.path)}: has no images for {self.resolution} px, it stores "
            f"{', '.join(map(str, stored))} px; expected a power of two up to {stored[-1]}. "
            f"Choose one, or prepare the photos with --sizes {self.resolution}"
        )

    def _digest_of_records(self, txn: lmdb.Transaction) -> str:
        digest = hashlib.sha256()
        for index in range(self.count):
            digest.update(self._record(txn, index))
        return digest.hexdigest()[:16]

    def _load(self) -> Tensor | None:
        needed = self.count * 3 * self.resolution**2
        for place in dict.fromkeys([self.device, torch.device("cpu")]):
            if needed <= MEMORY_SHARE * free_bytes(place):
                return torch.from_numpy(self._decode(np.arange(self.count))).to(place)
        return None

    def _decode(self, indices: np.ndarray) -> np.ndarray:
        """Return the images with these indices, uint8 [len(indices), 3, R, R]."""
        images = np.empty((len(indices), 3, self.resolution, self.resolution), np.uint8)

        def decode_chunk(start: int) -> None:
            with self._env.begin() as txn:
                for place in range(start, min(start + size, len(indices))):
                    images[place] = self._image(txn, int(indices[place]))

        size = min(CHUNK, -(-len(indices) // (os.cpu_count() or 1)))
        list(self._threads.map(decode_chunk, range(0, len(indices), size)))
        return images

    def _image(self, txn: lmdb.Transaction, index: int) -> np.ndarray:
        record = self._record(txn, index)
        if self._crcs is not None and zlib.crc32(record) != self._crcs[index]:
            raise self._bad_record(index, "its checksum differs from the stored one")
        try:
            with Image.open(io.BytesIO(record), formats=("JPEG",)) as image:
                pixels = np.asarray(image.convert("RGB"))  # [R, R, 3]
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            raise self._bad_record(index, f"{len(record)} bytes that are not a JPEG") from None
        if pixels.shape != (self._stored, self._stored, 3):
            width, height = pixels.shape[1], pixels.shape[0]
            raise self._bad_record(index, f"{width} x {height} px")
        return _reduce(pixels, self._stored // self.resolution).transpose(2, 0, 1)

    def _record(self, txn: lmdb.Transaction, index: int) -> bytes:
        try:
            record = get(txn, record_key(self._stored, index, self.part))
        except lmdb.Error as error:
            raise self._bad_record(index, str(error)) from None
        if record is None:
            raise self._bad_record(index, "missing")
        return record

    def _bad_record(self, index: int, how: str) -> UserError:
        name = record_key(self._stored, index, self.part).decode()
        return UserError(
            f"{printable(self.path)}: record {name} is bad: {how}; expected a JPEG of "
            f"{self._stored} x {self._stored} px. Copy the database again, or prepare it anew"
        )


def _reduce(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Return uint8 [H, W, 3] reduced by means over factor x factor squares, rounded once."""
    if factor == 1:
        return pixels
    height, width, channels = pixels.shape
    squares = pixels.reshape(height // factor, factor, width // factor, factor, channels)
    sums = squares.sum(axis=(1, 3), dtype=np.uint32)
    return ((sums + factor**2 // 2) // factor**2).astype(np.uint8)
