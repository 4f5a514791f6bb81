"""Command line: a checkpoint -> a page in the browser, where two faces make a third.

The page runs on this machine and is reachable from this machine alone, unless told otherwise.
"""

from __future__ import annotations

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

Draw faces A and B by seed or bring your own (a photo, or an .npz file of project.py), and move who
gives which layers to the third face. The page is English or Spanish. It lives until Ctrl-C; what
was uploaded or made is then erased. --share sends the page through a server of Gradio's, where
whoever has the link can use it."""


def parser() -> Parser:
    """Return the parser; here stands every default."""
    made = Parser("Explore a generator in the browser.", EXAMPLES)
    made.prog = PROGRAM
    ckpt = "file or run folder that train.py made"
    made.add_argument("checkpoint", type=Path, metavar="CKPT", help=ckpt)
    add = made.add_argument
    host = "address to listen on; 0.0.0.0 lets every machine of the network in"
    add("--host", default="127.0.0.1", metavar="ADDRESS", help=host)
    add("--port", type=integer(1, 65535), default=7860, metavar="N", help="port to listen on")
    add("--share", action="store_true", help="also make a public link, as in Colab")
    add("--steps", type=integer(1, 10_000), default=STEPS, metavar="N", help="of a projection")
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    return made


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the checked flags; exit with code 2 and one line if they are wrong."""
    made = parser()
    args = made.parse_args(argv)
    if not importlib.util.find_spec("gradio"):
        made.error(f"needs the package gradio; {INSTALL}")
    if (
        int(version("pillow").split(".")[0]) < 13
    ):  # CVE-2026-112403: a JPEG may overflow its decoder
        made.error(f"Pillow {version('pillow')} is not safe with uploads; expected 13. {INSTALL}")
    return args


def work(args: argparse.Namespace) -> None:
    """Show the page until the script is interrupted."""
    from web.server import serve  # here, for torch takes seconds to import

    serve(args)


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    args = parse_args(argv)
    run_script(
        PROGRAM, partial(work, args), interrupted="ended; what was uploaded or made is erased"
    )


if __name__ == "__main__":
    main()
