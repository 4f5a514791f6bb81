"""Checks the pages of an LMDB before LMDB reads them, since it follows damaged pointers blindly.

LMDB has no page checksums: a pointer out of the file or the page ends the process with SIGBUS or
SIGSEGV, which cannot be caught. The tree of keys is therefore walked once, from the newer of its
two roots, and every bound checked. The layout is that of lmdb.h and mdb.c 0.9 (MDB_meta, MDB_db,
MDB_page, MDB_node) on a 64-bit little-endian machine.
"""

import mmap
import struct
from pathlib import Path

MAGIC, VERSION = 0xBEEFC0DE, 1
PAGE_HEADER = struct.Struct("<QHHHH")  # number, pad, flags, bounds of the free space
OVERFLOW_HEADER = struct.Struct("<QHHI")  # number, pad, flags, count of pages
META = struct.Struct("<IIQQ")  # magic, version, address, size of the map
TREE = struct.Struct("<IHHQQQQQ")  # page size, flags, depth, three counts, entries, root
META_END = struct.Struct("<QQ")  # last page, transaction
NODE = struct.Struct("<HHHH")  # a size (2 words) or a page number (3), key size
BRANCH, LEAF, OVERFLOW, META_PAGE = 0x01, 0x02, 0x04, 0x08  # flags of a page
BIG_DATA = 0x01  # flag of a node whose value is on overflow pages
EMPTY = 2**64 - 1  # the root of a tree without keys
MAX_DEPTH = 32  # mdb.c: CURSOR_STACK


def check_pages(path: Path) -> None:
    """Raise ValueError unless all keys and values in the data.mdb at `path` lie within it."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            Walk(data).run()
        except struct.error:
            raise ValueError("a page ends with the file") from None


class Walk:
    """A walk over the tree in `data`, from the root of the last transaction."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.page_size = TREE.unpack_from(data, PAGE_HEADER.size + META.size)[0]
        if self.page_size not in (1 << n for n in range(9, 17)):
            raise ValueError(f"pages of {self.page_size} bytes")
        metas = [self.read_meta(number) for number in (0, 1)]
        _, self.last, self.root = max(metas)
        self.seen: set[int] = set()

    def read_meta(self, number: int) -> tuple[int, int, int]:
        """Return the transaction, last page and root that one of the two meta pages states."""
        start = number * self.page_size + PAGE_HEADER.size
        flags = PAGE_HEADER.unpack_from(self.data, number * self.page_size)[2]
        magic, version, _, _ = META.unpack_from(self.data, start)
        if (magic, version) != (MAGIC, VERSION) or not flags & META_PAGE:
            raise ValueError(f"page {number} is not a meta page of LMDB 0.9")
        page_size, _, *_ = TREE.unpack_from(self.data, start + META.size)
        _, tree_flags, depth, *_, root = TREE.unpack_from(self.data, start + META.size + TREE.size)
        last, transaction = META_END.unpack_from(self.data, start + META.size + 2 * TREE.size)
        if page_size != self.page_size or tree_flags or depth > MAX_DEPTH:
            raise ValueError(f"meta page {number} describes another kind of tree")
        return transaction, last, root

    def run(self) -> None:
        """Check every page that can be reached from the root."""
        if self.last >= len(self.data) // self.page_size:
            raise ValueError(f"page {self.last} is past the end")
        waiting = [] if self.root == EMPTY else [(self.root, 1)]
        while waiting:
            number, depth = waiting.pop()
            if depth > MAX_DEPTH:
                raise ValueError(f"page {number} is too deep")
            waiting += [(child, depth + 1) for child in self.children(number)]

    def claim(self, number: int, count: int = 1) -> int:
        """Return the offset of page `number`: the first of `count`, not seen before."""
        if not 2 <= number <= self.last or number + count - 1 > self.last or number in self.seen:
            raise ValueError(f"page {number} is past the end, or in two places")
        self.seen.add(number)
        return number * self.page_size

    def children(self, number: int) -> list[int]:
        """Check a page of keys and its values; return the pages of keys below it."""
        start = self.claim(number)
        own, _, flags, lower, upper = PAGE_HEADER.unpack_from(self.data, start)
        head = PAGE_HEADER.size
        bounded = head <= lower <= upper <= self.page_size and lower % 2 == 0
        if own != number or flags not in (BRANCH, LEAF) or not bounded:
            raise ValueError(f"page {number} has a damaged header")
        offsets = struct.unpack_from(f"<{(lower - head) // 2}H", self.data, start + head)
        if len(offsets) < (2 if flags == BRANCH else 1):
            raise ValueError(f"page {number} has too few keys")
        found = []
        for offset in offsets:
            if not upper <= offset <= self.page_size - NODE.size or offset % 2:
                raise ValueError(f"page {number} has a key outside it")
            low, high, node_flags, key_size = NODE.unpack_from(self.data, start + offset)
            end = offset + NODE.size + key_size
            if flags == BRANCH:
                found.append(low | high << 16 | node_flags << 32)
            else:
                end += self.value(start + end, low | high << 16, node_flags)
            if end > self.page_size:
                raise ValueError(f"page {number} has a value that leaves it")
        return found

    def value(self, place: int, size: int, flags: int) -> int:
        """Check a value's overflow pages, if any; return how many bytes it takes beside its key."""
        if flags & ~BIG_DATA:
            raise ValueError(f"a value of an unknown kind, {flags}")
        if not flags:
            return size
        (number,) = struct.unpack_from("<Q", self.data, place)
        needed = -(-(OVERFLOW_HEADER.size + size) // self.page_size)
        start = self.claim(number, needed)
        own, _, page_flags, count = OVERFLOW_HEADER.unpack_from(self.data, start)
        if own != number or page_flags != OVERFLOW or count < needed:
            raise ValueError(f"page {number} has a damaged header")
        return 8
