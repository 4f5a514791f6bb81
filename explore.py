"""Command line: a checkpoint -> a page in the browser, where two faces are mixed into a third.

By default the page is reachable from this machine only.
"""

import argparse
import importlib.util
from functools import partial
from importlib.metadata import version
from pathlib import Path

from common.cli import STEPS, Parser, device, integer, run_script

PROGRAM = "explore.py"
INSTALL = "pip install -r requirements-explore.txt; pip install -r requirements.txt"
EXAMPLES = """\
  python explore.py runs/faces
  python explore.py runs/faces/snapshots/010000.pt --port 8000

Draw faces A and B by seed or upload your own (a photo, or an .npz file from project.py), and choose
which of them gives which layers to the third face. The page is in English or Spanish. Ctrl-C ends
it and erases what was uploaded or made. With --share the page goes through a server of Gradio, and
anyone who has the link can use it."""


def parser() -> Parser:
    """Return the parser, with every default."""
    made = Parser("Explore a generator in the browser.", EXAMPLES)
    made.prog = PROGRAM
    ckpt = "checkpoint or run folder of train.py"
    made.add_argument("checkpoint", type=Path, metavar="CKPT", help=ckpt)
    add = made.add_argument
    host = "address to listen on; 0.0.0.0: reachable from the whole network"
    add("--host", default="127.0.0.1", metavar="ADDRESS", help=host)
    add("--port", type=integer(1, 65535), default=7860, metavar="N", help="port to listen on")
    add("--share", action="store_true", help="also make a public link, as in Colab")
    add(
        "--steps", type=integer(1, 10_000), default=STEPS, metavar="N", help="of projecting a photo"
    )
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    return made


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the checked flags; if they are wrong, exit with code 2 and one line."""
    made = parser()
    args = made.parse_args(argv)
    if not importlib.util.find_spec("gradio"):
        made.error(f"needs the package gradio; {INSTALL}")
    pillow = version("pillow")
    if int(pillow.split(".")[0]) < 13:  # CVE-2026-112403: a JPEG may overflow its decoder
        made.error(f"Pillow {pillow} is not safe with uploads; expected 13. {INSTALL}")
    return args


def work(args: argparse.Namespace) -> None:
    """Serve the page until the script is interrupted."""
    from web.server import serve  # not before the flags are checked: importing torch takes seconds

    serve(args)


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    args = parse_args(argv)
    run_script(
        PROGRAM, partial(work, args), interrupted="ended; what was uploaded or made is erased"
    )


if __name__ == "__main__":
    main()
