"""Files that are whole or not there, even after a kill or a power cut."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file to write, which replaces `path` once it is whole and on the disk.

    Raises an OSError that names `path`, which is then as it was.
    """
    partial = path.with_name(f".{path.name}.tmp")
    try:
        partial.unlink(missing_ok=True)  # left by a killed run, or a link, which would be followed
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync(path.parent)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read_regular(path: Path) -> bytes:
    """Return the content of a file. Raises OSError, also for a FIFO, a device or a folder."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return file.read()


def sync(path: Path) -> None:
    """Write a file's content, or a folder's list of names, through to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
