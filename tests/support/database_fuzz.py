"""Opens damaged databases and counts the outcomes.

Usage, at the top of the repository: PYTHONPATH=. python tests/support/database_fuzz.py DB COUNT.
Each number below COUNT stands for one way to damage data.mdb of the database DB. The readers are
forked processes with little memory, since a damaged database could kill or hang them.
"""

import json
import os
import random
import resource
import select
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from common.cli import UserError
from dataset import ImageBank

PAGE = 4096
MEMORY = 2**30  # bytes that a reader may map beyond what importing torch maps
TIMEOUT = 10.0  # seconds for one database
NUMBERS = (b"\0\0", b"\1\0", b"\xff\xff", b"\xff\x7f", b"\0\x80", b"\xf0\x0f", b"\0\x10")


def damaged(whole: bytes, number: int) -> bytes:
    """Return `whole` with one to eight faults that follow from `number`."""
    rng = random.Random(number)
    data = bytearray(whole)
    pages = len(whole) // PAGE
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        page = rng.randrange(max(1, min(pages, len(data) // PAGE))) * PAGE
        # Half of the faults hit the start of a page, where headers and offsets are.
        place = min(len(data) - 8, page + rng.choice((rng.randrange(PAGE), rng.randrange(160))))
        other = rng.randrange(pages) * PAGE
        length = rng.randrange(1, 64)
        fault = rng.randrange(10)
        if fault == 0:
            del data[max(64, rng.randrange(len(data))) :]
        elif fault == 1:
            data[page : page + PAGE] = rng.choice((bytes(PAGE), whole[other : other + PAGE]))
        elif fault == 2:
            even = place & ~1
            data[even : even + 2] = rng.choice(NUMBERS)
        elif fault == 3:
            data[place : place + length] = whole[other : other + length]
        elif fault < 6:
            data[place : place + length] = rng.randbytes(length)
        else:
            data[place] = rng.choice((data[place] ^ 1 << rng.randrange(8), rng.randrange(256)))
    return bytes(data)


def outcome(folder: Path) -> str:
    """Return whether the database in `folder` is opened or rejected, or what went wrong."""
    try:
        ImageBank(folder, 16).close()
    except UserError as error:
        return "rejected" if "\n" not in str(error) else "rejected in many lines"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "opened"


def read_some(whole: bytes, folder: Path, numbers: range, answers: int) -> None:
    """Open the databases damaged by these numbers; write each outcome to the pipe `answers`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in numbers:
        (folder / "data.mdb").write_bytes(damaged(whole, number))
        os.write(answers, outcome(folder).replace("\n", " ")[:200].encode() + b"\n")


def survey(whole: bytes, folder: Path, numbers: range) -> list[str]:
    """Return the outcome of each number; that a reader died or hung is an outcome too."""
    outcomes: list[str] = []
    while len(outcomes) < len(numbers):
        answers, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.close(answers)
            read_some(whole, folder, numbers[len(outcomes) :], theirs)
            os._exit(0)
        os.close(theirs)
        with open(answers, "rb", buffering=0) as file:
            while (ready := select.select([file], [], [], TIMEOUT)[0]) and (
                answer := file.readline()
            ):
                outcomes.append(answer.decode().strip())
        if not ready:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if not ready:
            outcomes.append("hang")
        elif status:
            outcomes.append(f"died: {signal.Signals(-status).name if status < 0 else status}")
    return outcomes


def main() -> None:
    """Print as JSON, for each outcome, how often it occurred and the first number that gave it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    whole = (Path(sys.argv[1]) / "data.mdb").read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = survey(whole, Path(folder), range(int(sys.argv[2])))
    first = {name: outcomes.index(name) for name in outcomes}
    print(json.dumps({name: [n, first[name]] for name, n in Counter(outcomes).items()}))


if __name__ == "__main__":
    main()
