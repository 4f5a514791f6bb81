"""Shows the page until the script is interrupted: explore.py's work."""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import threading
from functools import partial
from pathlib import Path

from common.cli import say, tell
from common.device import choose_device
from sampling.sampler import load_faces

PROGRAM = "explore.py"


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
    stay_inside(folder)  # before Gradio is imported
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
            css_paths=Path(__file__).with_name("page.css"),
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
        )
        lines = [f"{file}: {local} until Ctrl-C"]
        say([*lines, f"public: {public}"] if public else lines)
        threading.Event().wait()
    finally:
        blocks.close(verbose=False)
