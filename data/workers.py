"""Worker processes that prepare photos, whose results come in order; they end with their parent."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from common.cli import UserError
from data.photos import PhotoError, Recipe, prepare_photo
from data.zips import Member, open_member

CHUNK = 16  # photos that a worker takes at once, at most: enough to hide the cost of sending them
CHUNKS_PER_WORKER = 4  # at least, so that a few large photos do not leave other workers idle
LOOK_AHEAD = 4  # chunks per worker that may be prepared before the one that is due
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Place = bytes | Member  # where a photo is: its path, or a zip and the name within
Outcome = list[bytes] | str  # one JPEG for each size, or why the photo is left out


class Workers:
    """A pool of processes; use it as a context manager. An exception within kills them at once.

    Each worker has a pipe of its own, whose other end only this process holds: if either dies, even
    while sending, the pipe breaks and the other notices. With a queue shared by all, as in the
    pools of the standard library, the reader of half a message would wait forever.
    """

    def __init__(self, count: int, recipe: Recipe) -> None:
        self._count = count
        self._recipe = recipe
        self._processes: dict[Connection, BaseProcess] = {}
        self._idle: list[Connection] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for pipe, process in self._processes.items():
            if kind is not None:
                process.kill()
            pipe.close()
        for process in self._processes.values():
            process.join()

    def prepare(self, places: Sequence[Place]) -> Iterator[Outcome]:
        """Yield the outcome of each photo, in order; the iterator must be exhausted.

        Raises UserError if a process dies, which most often means that memory ran out.
        """
        size = max(1, min(CHUNK, len(places) // (CHUNKS_PER_WORKER * self._count)))
        chunks = [places[start : start + size] for start in range(0, len(places), size)]
        sent = 0
        at_work: dict[Connection, int] = {}
        done: dict[int, list[Outcome]] = {}
        try:
            for due in range(len(chunks)):
                last = min(len(chunks), due + LOOK_AHEAD * self._count)
                while True:
                    while sent < last and (pipe := self._idle_pipe()):
                        pipe.send(chunks[sent])
                        at_work[pipe] = sent
                        sent += 1
                    if due in done:
                        break
                    ready = wait(list(at_work))
                    for pipe in [pipe for pipe in at_work if pipe in ready]:
                        done[at_work.pop(pipe)] = pipe.recv()
                        self._idle.append(pipe)
                yield from done.pop(due)
        except (EOFError, OSError, MemoryError):  # also: no more processes or open files
            raise UserError(
                "--workers: one of the processes died, most likely for lack of memory; expected "
                "all to keep running. Free some memory, or use fewer: --workers 1"
            ) from None

    def _idle_pipe(self) -> Connection | None:
        """Return the pipe of an idle worker, started if need be; None if all are at work."""
        if not self._idle and len(self._processes) < self._count:
            self._start()
        return self._idle.pop() if self._idle else None

    def _start(self) -> None:
        # Spawned, because a forked process would inherit the open LMDB, the lock on its folder and
        # all pipes. What a spawned one inherits are the blocked signals: none can end it with a
        # traceback before it ignores them.
        context = multiprocessing.get_context("spawn")
        resource_tracker.ensure_running()  # else the first start() would do so and unblock signals
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, self._recipe))
            process.start()
            theirs.close()
            self._processes[ours] = process
            self._idle.append(ours)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def usable_cores() -> int:
    """Return how many cores this process may use; taskset and job queues grant fewer than all."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _work(pipe: Connection, recipe: Recipe) -> None:
    """Prepare chunks until the parent closes its end of the pipe; signals are ignored."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # libtiff and others print there, bypassing Python
    with contextlib.suppress(EOFError):
        while True:
            outcomes = []
            for place in pipe.recv():
                if pipe.poll():  # nothing is sent meanwhile, so this is the end: the parent is gone
                    return
                outcomes.append(prepare_place(place, recipe))
            pipe.send(outcomes)


def prepare_place(place: Place, recipe: Recipe) -> Outcome:
    """Return the photo's JPEGs, or the reason to leave it out."""
    try:
        return prepare_photo(open_member(place) if isinstance(place, Member) else place, recipe)
    except PhotoError as error:
        return str(error)
    except MemoryError:
        return "too large for the memory"
