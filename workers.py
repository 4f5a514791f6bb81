"""Worker processes that prepare photos: in order, few at a time, and gone when their parent is."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from archives import Member, open_member
from photos import PhotoError, Recipe, prepare_photo

CHUNK = 16  # photos that a worker takes at once: enough to hide the cost of sending them
SHARES = 4  # for each worker, at least: else a few large photos would leave others idle
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Place = bytes | Member  # where a photo is: a path, or within a zip
Outcome = list[bytes] | str  # one JPEG for each size, or why the photo is left out


class WorkerLostError(Exception):
    """A worker process died; its text is the whole message."""


class Workers:
    """A pool of processes; use it as a context manager. An exception within kills them at once."""

    def __init__(self, count: int, recipe: Recipe) -> None:
        # Spawned, not forked: forked ones would inherit the open LMDB and the lock on its folder.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(count, context, _start_worker)
        self._recipe = recipe
        self._count = count
        self._in_flight: deque[Future[list[Outcome]]] = deque()
        self._most_in_flight = 4 * count
        self._lost = False

    def __enter__(self) -> "Workers":
        threading.excepthook = self._lose
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for process in multiprocessing.active_children():
                process.kill()
        with contextlib.suppress(RuntimeError):  # it waits for a thread that could not be started
            self._pool.shutdown(cancel_futures=True)
        threading.excepthook = threading.__excepthook__

    def prepare(self, places: Sequence[Place]) -> Iterator[Outcome]:
        """Yield what became of each photo, in their order.

        Raises WorkerLostError if a process dies, most often for want of memory.
        """
        chunk = max(1, min(CHUNK, len(places) // (SHARES * self._count)))
        try:
            for start in range(0, len(places), chunk):
                self._in_flight.append(self._submit(places[start : start + chunk]))
                if len(self._in_flight) >= self._most_in_flight:
                    yield from self._next()
            while self._in_flight:
                yield from self._next()
        except (BrokenProcessPool, MemoryError):
            raise WorkerLostError(
                "--workers: one of the processes died, most often for want of memory; expected all "
                "to live. Free some memory, or use fewer: --workers 1"
            ) from None

    def _next(self) -> list[Outcome]:
        if self._lost:
            raise BrokenProcessPool
        outcomes = self._in_flight[0].result()
        self._in_flight.popleft()
        return outcomes

    def _lose(self, _: threading.ExceptHookArgs) -> None:
        """Give up: a thread of the pool has died, and its futures would never be done."""
        self._lost = True
        for future in self._in_flight:
            if not future.done():
                future.set_exception(BrokenProcessPool())

    def _submit(self, places: Sequence[Place]) -> "Future[list[Outcome]]":
        # Processes start here when needed. They inherit the mask, so that a signal in their first
        # moments waits until they ignore it, rather than end them with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            return self._pool.submit(_prepare_chunk, list(places), self._recipe)
        except (RuntimeError, OSError) as error:  # no more threads, processes or open files
            raise BrokenProcessPool from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def usable_cores() -> int:
    """Return how many cores this process may run on: all, unless taskset or a queue gave fewer."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _prepare_chunk(places: list[Place], recipe: Recipe) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for place in places:
        try:
            source = open_member(place) if isinstance(place, Member) else place
            outcomes.append(prepare_photo(source, recipe))
        except PhotoError as error:
            outcomes.append(str(error))
        except MemoryError:
            outcomes.append("too large for the memory")
    return outcomes


def _start_worker() -> None:
    """Leave signals to the parent, silence the decoders written in C, and end when it ends."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # libtiff and others print there, past Python
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        with contextlib.suppress(OSError):
            wait([parent.sentinel])
        os._exit(1)
