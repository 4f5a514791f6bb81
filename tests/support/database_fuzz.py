"""Opens damaged databases and counts how they are received: python database_fuzz.py SEED COUNT.

Each number below COUNT stands for one way to damage the data.mdb in the folder SEED. The readers
are forked processes with little memory, since what is tested against is their death.
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

sys.path.insert(0, str(Path(__file__).parents[2]))

from dataset import ImageBank

PAGE = 4096
ROOM = 2**30  # bytes that a reader may map beyond what importing torch maps
PATIENCE = 10.0  # seconds for one database
NUMBERS = (b"\0\0", b"\1\0", b"\xff\xff", b"\xff\x7f", b"\0\x80", b"\xf0\x0f", b"\0\x10")


def damaged(whole: bytes, number: int) -> bytes:
    """Return `whole` with one to eight faults that follow from `number`."""
    rng = random.Random(number)
    data = bytearray(whole)
    pages = len(whole) // PAGE
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        page = rng.randrange(max(1, min(pages, len(data) // PAGE))) * PAGE
        # Headers and tables of offsets, where a fault does most, are at the start of a page.
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
    """Return how the database there is received."""
    try:
        ImageBank(folder, 16).close()
    except UserError as error:
        return "refused" if "\n" not in str(error) else "refused in many lines"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "opened"


def read_some(whole: bytes, folder: Path, numbers: range, answers: int) -> None:
    """Read the databases of these numbers, writing each outcome to `answers`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in numbers:
        (folder / "data.mdb").write_bytes(damaged(whole, number))
        os.write(answers, outcome(folder).replace("\n", " ")[:200].encode() + b"\n")


def survey(whole: bytes, folder: Path, numbers: range) -> list[str]:
    """Return the outcome of each number; a death of the reader, or its silence, is one too."""
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
            while (ready := select.select([file], [], [], PATIENCE)[0]) and (
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
    """Print the outcomes, as JSON, with how often each was and one number that gives it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    whole = (Path(sys.argv[1]) / "data.mdb").read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = survey(whole, Path(folder), range(int(sys.argv[2])))
    first = {name: outcomes.index(name) for name in outcomes}
    print(json.dumps({name: [n, first[name]] for name, n in Counter(outcomes).items()}))


if __name__ == "__main__":
    main()
