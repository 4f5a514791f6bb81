"""What all command lines share: types of flags, errors as one line, signals, output."""

import argparse
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TextIO

MAX_SEED = 2**63 - 1
EXIT_CODES: dict[int, int] = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}
FIRST_SIZE = 8  # px, where growth begins; a plan begins short runs higher
STEPS = 100  # of a projection: with more, mixes look less like faces
OUT_OF_MEMORY = "out of memory; try --device cpu"
PSI = 0.7  # truncation of samples unless told otherwise (Karras et al. 2019, sec. 2, fig. 2)


class UserError(Exception):
    """What a user can fix: one line that says what is wrong, what was expected, what to do.

    `exit_code` is 2 for a flag that does not suit, 1 for data, a model or the machine.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help that shows defaults, where there are any, and keeps the layout of the examples."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        absent = action.default is None or action.default is False
        return action.help if absent else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose usage errors are one line, with exit code 2."""

    def __init__(self, description: str, examples: str) -> None:
        super().__init__(
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and end with 2."""
        fail(self.prog, message, 2)


def fail(program: str, error: object, code: int = 1) -> NoReturn:
    """Print an error as one line on stderr and end with `code`; 2 points to --help."""
    text = " ".join(str(error).split()) or type(error).__name__
    tell(program, f"error: {text}{f' (see {program} --help)' if code == 2 else ''}")
    raise SystemExit(code)


def run_script(
    program: str, work: Callable[[], object], interrupted: str, out_of_memory: str = OUT_OF_MEMORY
) -> None:
    """Do a script's work; a UserError, OSError or signal ends it with one line on stderr.

    `interrupted` is printed at SIGINT or SIGTERM, `out_of_memory` when memory runs out.
    """
    stop_on_signals()
    try:
        work()
    except UserError as error:
        fail(program, error, error.exit_code)
    except OSError as error:
        fail(program, error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fail(program, out_of_memory)
    except Interrupted as interruption:
        tell(program, interrupted)
        raise SystemExit(interruption.args[0]) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` is one of the several ways in which torch runs out of memory."""
    ways = r"(out of|not enough|allocate) memory|bad_alloc"
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and re.search(ways, str(error), re.IGNORECASE) is not None
    )


def tell(program: str, line: str) -> None:
    """Print a line on stderr."""
    _print(f"{program}: {line}", sys.stderr)


def say(lines: list[str]) -> None:
    """Print lines on stdout."""
    _print("\n".join(lines), sys.stdout)


def _print(text: str, file: TextIO | None) -> None:
    """Print what the terminal can show; it is no error if nobody reads it."""
    if file is None:  # closed before the script began
        return
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    encoding = getattr(file, "encoding", None) or "utf-8"
    with silenced(file):
        print(shown.encode(encoding, "backslashreplace").decode(encoding), file=file, flush=True)


@contextmanager
def silenced(file: TextIO) -> Iterator[None]:
    """Send `file` to nowhere from the first OSError on, which only ends the block."""
    try:
        yield
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


class Forgiving:
    """A stream that drops what it cannot write: a progress bar must not end a run."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, text: str) -> None:
        """Write `text` if possible."""
        with silenced(self.file):
            self.file.write(text)

    def flush(self) -> None:
        """Flush if possible."""
        with silenced(self.file):
            self.file.flush()


def open_standard_streams() -> None:
    """Keep files from taking the number of a standard stream that the caller has closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            os.set_inheritable(nothing, True)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 - until the end


class Interrupted(BaseException):
    """The script was asked to stop; the argument is the exit code."""


def stop_on_signals() -> None:
    """Let the first SIGHUP, SIGINT or SIGTERM raise Interrupted."""
    for number in heeded_signals():
        signal.signal(number, _interrupt)


def ignore_signals() -> None:
    """Ignore these signals: what is left takes a moment and must not stop half-way."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)


def heeded_signals() -> list[int]:
    """Return the signals that end a script, without those already ignored, as under nohup."""
    return [number for number in EXIT_CODES if signal.getsignal(number) != signal.SIG_IGN]


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    ignore_signals()
    raise Interrupted(EXIT_CODES[number])


class Signals:
    """Keeps the first signal in `received`, 0 until then; a second one ends the process."""

    def __init__(self) -> None:
        self.received = 0
        self._heeded = heeded_signals()
        for number in self._heeded:
            signal.signal(number, self._remember)

    @property
    def exit_code(self) -> int:
        """Return the exit code for the signal received; 0 if none was."""
        return EXIT_CODES[self.received] if self.received else 0

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.received = number
        for each in self._heeded:
            signal.signal(each, signal.SIG_DFL)


def integer(low: int, high: int = 2**31) -> Callable[[str], int]:
    """Return the argparse type of whole numbers in low..high."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number in {low}..{high}")
        return value

    return parse


def number(low: float, high: float = math.inf, above: bool = False) -> Callable[[str], float]:
    """Return the argparse type of finite numbers in low..high; `above` leaves `low` itself out."""
    allowed = f"{'above' if above else 'from'} {low:g}"
    allowed += f" to {high:g}" if high < math.inf else ""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        inside = low <= value <= high and not (above and value == low)
        if not (inside and math.isfinite(value)):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {allowed}")
        return value

    return parse


def device(text: str) -> str:
    """Parse the name of a device, whether or not this machine has it."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not auto, cpu, cuda, cuda:N or mps")
    return text


def resolution(text: str) -> int:
    """Parse a size in px: a power of two from 4 to 1024."""
    sizes = [2**n for n in range(2, 11)]
    if text not in map(str, sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(map(str, sizes))}")
    return int(text)
