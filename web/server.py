"""Serves the page until the script is interrupted."""

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
MAX_UPLOAD_MB = 25  # photos from phones have up to about 15


def check_address(host: str, port: int) -> None:
    """Raise OSError, which says what to do, if the page cannot listen on `host` and `port`."""
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
            "and a free port. Choose another"
        ) from error


def confine_to(folder: str) -> None:
    """Let the page and its packages write to `folder` only, and report nothing to anyone."""
    tempfile.tempdir = folder
    for name in ("GRADIO_TEMP_DIR", "HF_HOME", "MPLCONFIGDIR"):
        os.environ[name] = folder
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    os.chdir(folder)


def serve(args: argparse.Namespace) -> None:
    """Serve the page until the script is interrupted, then erase what it wrote.

    Raises UserError or OSError.
    """
    with tempfile.TemporaryDirectory(prefix="retrato-", ignore_cleanup_errors=True) as name:
        check_address(args.host, args.port)
        checkpoint = args.checkpoint.absolute()
        confine_to(name)  # before Gradio is imported
        from web.backend import Backend
        from web.handlers import Handlers
        from web.layout import Page, theme

        faces, file, entries = load_faces(
            checkpoint, choose_device(args.device), partial(tell, PROGRAM)
        )
        backend = Backend(faces, file, entries, args.steps)
        blocks = Page(Handlers(backend, Path(name)), args.steps).blocks
        try:
            _, local, public = blocks.launch(
                server_name=args.host,
                server_port=args.port,
                share=args.share,
                max_file_size=MAX_UPLOAD_MB * 2**20,
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
