"""Files that are replaced whole, and what is not a file."""

import os

import pytest

from common.files import read_regular, replacing


def test_links_in_the_place_of_a_file_or_of_its_first_half_are_replaced_and_not_followed(tmp_path):
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    for name in ("a", ".a.tmp"):
        (tmp_path / name).symlink_to(mine)
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert mine.read_bytes() == b"mine"
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")],
    ids=["a FIFO", "a folder", "a device"],
)
def test_what_is_no_regular_file_is_not_read(tmp_path, make):
    make(tmp_path / "a")
    with pytest.raises(OSError, match=r"regular|directory"):
        read_regular(tmp_path / "a")
