"""Reads spoiled checkpoints: each must load or raise CheckpointError, in 1 GB and without a hang.

    python tests/support/fuzz_checkpoint.py FOLDER COUNT [FIRST]

Input number n follows from n alone, so that any can be made again. What ends otherwise is kept in
FOLDER as n.pt. Prints how many inputs had which outcome.
"""

import collections
import copy
import faulthandler
import io
import os
import pickletools
import random
import re
import resource
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from checkpoints import checkpoint  # the scripts' folder is on the path only now
from model import Generator, ModelConfig
from sampling.sampler import read_stage

torch.manual_seed(0)
MODEL = ModelConfig(4, 0.005, z_dim=3, w_dim=3, mapping_layers=1)
ROOM = 2**30  # bytes that reading may take
EDGES = [0, 1, 2, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]
ODD: list[Any] = [
    None, True, -1, 2**63, 2**200, 1e308, float("nan"), "", "x" * 5000, b"", [], {}, (), [[]],
    torch.zeros(0), torch.zeros(()), torch.ones(3, dtype=torch.bool), torch.full((2,), torch.nan),
    torch.zeros(2, dtype=torch.complex64), torch.zeros(1).expand(2**40), {"a": {"b": {"c": 0}}},
    torch.ones(1).to_sparse(), torch.zeros(4, device="meta"), torch.zeros(2, 3).mT, set(), "cpu",
    torch.Size([1]), torch.float16, torch.nn.Parameter(torch.zeros(2)),
]  # fmt: skip

ENTRIES: dict[str, Any] = {
    "format": 1,
    "model": dict(vars(MODEL)),
    "G_ema": Generator(MODEL).state_dict(),
    "opt_G": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    "iteration": 3,
    "stage": [4, 1.0],
}

Members = dict[str, bytes]


def saved(entries: Any) -> bytes:
    file = io.BytesIO()
    torch.save(entries, file)
    return file.getvalue()


def members(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archived(parts: Members) -> bytes:
    """Return an archive whose checksums are right, whatever it holds."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


def flip(rng: random.Random, data: bytes) -> bytes:
    spoiled = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 50])):
        spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
    return bytes(spoiled)


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def splice(rng: random.Random, data: bytes) -> bytes:
    """Take a piece out, put one in twice, or put in noise."""
    a, b = sorted(rng.choices(range(len(data)), k=2))
    b = min(b, a + rng.choice([1, 8, 100, 5000]))
    at = rng.randrange(len(data))
    piece = rng.choice([b"", data[a:b], rng.randbytes(b - a), bytes(b - a)])
    return data[:at] + piece + data[at + rng.choice([0, b - a]) :]


def edit_zip(rng: random.Random, data: bytes) -> bytes:
    """Overwrite fields of the archive's own records."""
    spoiled = bytearray(data)
    records = [m.start() for m in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06|\x06\x06)", data)]
    for _ in range(rng.choice([1, 1, 3])):
        at = rng.choice(records) + rng.randrange(4, 46)
        kind = rng.choice(["<H", "<I"])
        if at + struct.calcsize(kind) <= len(spoiled):
            value = rng.choice([*EDGES, rng.randrange(2**32)])
            struct.pack_into(kind, spoiled, at, value & (0xFFFF if kind == "<H" else 0xFFFFFFFF))
    return bytes(spoiled)


def edit_pickle(rng: random.Random, data: bytes) -> bytes:
    """Change opcodes and arguments of the pickle, with the checksums made right."""
    parts = members(data)
    name = next(name for name in parts if name.endswith("data.pkl"))
    program = bytearray(parts[name])
    places = [place for _, _, place in pickletools.genops(bytes(program))]
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.choice([rng.choice(places), rng.randrange(len(program))]) % len(program)
        other = rng.choice(places) % len(program)
        how = rng.randrange(5)
        if how == 0:
            program[at : at + 1] = rng.choice(OPCODES)
        elif how == 1:
            program[at:at] = rng.choice(OPCODES) * rng.choice([1, 1, 1000])
        elif how == 2:
            program[at] ^= 1 << rng.randrange(8)
        elif how == 3:
            program[at:at] = program[other : other + rng.choice([1, 5, 50])]
        else:
            del program[at : at + rng.choice([1, 2, 20])]
    parts[name] = bytes(program)
    return archived(parts)


def edit_members(rng: random.Random, data: bytes) -> bytes:
    """Change, drop, rename or lengthen members, with the checksums made right."""
    parts = members(data)
    for _ in range(rng.choice([1, 1, 3])):
        name = rng.choice(list(parts))
        content = parts.pop(name)
        how = rng.randrange(5)
        if how == 0:
            parts[name] = flip(rng, content or b"x")
        elif how == 1:
            parts[name] = content[: rng.randrange(len(content) + 1)]
        elif how == 2:
            parts[name] = content + bytes(rng.choice([1, 64, 10_000]))
        elif how == 3:
            parts[rng.choice(["x", "../x", name + "/", name[1:] or "y"])] = content
        if not parts:
            break
    return archived(parts)


def edit_entries(rng: random.Random, _: bytes) -> bytes:
    """Put odd values in the place of entries at any depth."""
    entries = copy.deepcopy(ENTRIES)
    for _ in range(rng.choice([1, 1, 2])):
        inner: Any = entries
        while True:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            key = rng.choice(keys)
            if not isinstance(inner[key], dict | list) or not inner[key] or rng.random() < 0.2:
                break
            inner = inner[key]
        inner[key] = rng.choice(ODD)
    return saved(entries)


MUTATIONS: list[Callable[[random.Random, bytes], bytes]] = [
    flip, truncate, splice, edit_zip, edit_pickle, edit_pickle, edit_members, edit_entries,
]  # fmt: skip


def outcome(path: Path) -> str:
    """Read a checkpoint as generate.py does; return how that ended."""
    try:
        G, entries = checkpoint.load_generator(path, torch.device("cpu"))
        read_stage(path, G, entries)
    except checkpoint.CheckpointError as error:
        said = str(error)
        assert len(said) < 1000, "a message without end"
        return re.sub(r"[^a-z ]", "", said.removeprefix(f"{path}: "))[:24].strip()
    return "loaded"


def fuzz(folder: Path, count: int, first: int = 0) -> dict[str, dict[str, int]]:
    """Read `count` spoiled checkpoints; return the outcomes of each mutation."""
    data, path = saved(ENTRIES), folder / "spoiled.pt"
    path.write_bytes(data)
    assert outcome(path) == "loaded"
    outcomes: dict[str, dict[str, int]] = collections.defaultdict(collections.Counter)
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for n in range(first, first + count):
        rng = random.Random(n)
        mutation = MUTATIONS[n % len(MUTATIONS)]
        path.write_bytes(mutation(rng, data))
        faulthandler.dump_traceback_later(300, exit=True)  # of a busy machine
        try:
            how = outcome(path)
        except BaseException as error:
            how = f"BAD {type(error).__name__}"
            (folder / f"{n}.pt").write_bytes(path.read_bytes())
        outcomes[mutation.__name__][how] += 1
        if (n + 1) % 10_000 == 0:
            print(n + 1, "inputs read", flush=True)
    faulthandler.cancel_dump_traceback_later()
    return outcomes


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = fuzz(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    for mutation, counts in found.items():
        print(f"{mutation}: {dict(sorted(counts.items()))}")
    total = sum(sum(counts.values()) for counts in found.values())
    bad = sum(c for counts in found.values() for how, c in counts.items() if how.startswith("BAD"))
    print(f"{total} inputs, {bad} bad")
    raise SystemExit(bool(bad))
