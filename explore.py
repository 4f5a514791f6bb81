"""Command line: a checkpoint -> a page in the browser, where two faces make a third.

The page runs on this machine and is reachable from this machine alone, unless told otherwise.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import tempfile
import threading
from functools import partial
from importlib.metadata import version
from pathlib import Path

from common.cli import STEPS, Parser, device, integer, run_script, say, tell

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


def check_address(host: str, port: int) -> None:
    """Raise OSError, with what to do, where nothing can listen at `host` and `port`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise OSError(
            f"--host {host} --port {port}: {error.strerror}; expected an address of this machine "
            "and a free port. Give another"
        ) from error


def stay_inside(folder: Path) -> None:
    """Let whatever the page and its packages write go to `folder`, and nothing be reported."""
    tempfile.tempdir = str(folder)
    for name in ("GRADIO_TEMP_DIR", "HF_HOME", "MPLCONFIGDIR"):
        os.environ[name] = str(folder)
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    os.chdir(folder)


def serve(args: argparse.Namespace) -> None:
    """Show the page until the script is interrupted; what it wrote is erased then."""
    with tempfile.TemporaryDirectory(prefix="retrato-", ignore_cleanup_errors=True) as folder:
        serve_from(Path(folder), args)


def serve_from(folder: Path, args: argparse.Namespace) -> None:
    """Show the page, whose files go to `folder`, until the script is interrupted.

    Raises UserError or OSError.
    """
    check_address(args.host, args.port)
    checkpoint = args.checkpoint.absolute()
    stay_inside(folder)
    from common.device import choose_device
    from sampling.sampler import load_faces
    from web.backend import Studio
    from web.handlers import MAX_MB, Answers
    from web.layout import Page, theme

    faces, file, entries = load_faces(
        checkpoint, choose_device(args.device), partial(tell, PROGRAM)
    )
    studio = Studio(faces, file, entries, args.steps)
    blocks = Page(Answers(studio, folder), args.steps).blocks
    try:
        _, local, public = blocks.launch(
            server_name=args.host,
            server_port=args.port,
            share=args.share,
            max_file_size=MAX_MB * 2**20,
            theme=theme(),
            css_paths=Path(__file__).with_name("web") / "page.css",
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
        )
        lines = [f"{file}: {local} until Ctrl-C"]
        say([*lines, f"public: {public}"] if public else lines)
        threading.Event().wait()
    finally:
        blocks.close(verbose=False)


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    args = parse_args(argv)
    run_script(
        PROGRAM,
        partial(serve, args),
        interrupted="ended; what was uploaded or made is erased",
    )


if __name__ == "__main__":
    main()
