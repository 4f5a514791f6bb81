"""Command line: a checkpoint of train.py -> files for other programs, each with a model card.

The flags are defined here; the work is done in outputs/exports.py.
"""

import argparse
import importlib.util
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common.cli import MAX_SEED, Parser, device, integer, number, run_script

PROGRAM = "export.py"
MAX_IMAGES = 10_000_000
LONGEST_NAME = 255 - len("..md.tmp")  # bytes of an export's name; its card's is longer
NEEDED = {"onnx": ("onnx", "onnxscript"), "safetensors": ("safetensors",)}  # packages by flag
INSTALL = "pip install -r requirements-export.txt"
EXAMPLES = """\
  python export.py runs/faces --onnx faces.onnx
  python export.py runs/faces --safetensors faces.safetensors --license cc-by-nc-4.0
  python export.py runs/faces --images 5000 samples
  python export.py runs/faces --images 5000 samples.zip

The ONNX file takes z [batch, z_dim] and psi (1 for full variety) and gives images [batch, 3, R, R],
in about [-1, 1], and ws; it is compared with PyTorch before it is written. With --noise input it
also takes noise00, noise01, ..., normal numbers for each layer. generate.py and the other scripts
read the safetensors file like a checkpoint. Pictures go flat into a new folder, as torch-fidelity
expects, or into a zip like those of NVIDIA's dataset_tool.py. Beside each export NAME is its model
card, NAME.md: data, licence, cost, metrics, use and limits."""


def parser() -> Parser:
    """Return the parser, which holds every default."""
    made = Parser("Write a generator, or samples of it, for other programs.", EXAMPLES)
    made.prog = PROGRAM
    ckpt = "file or run folder that train.py made"
    made.add_argument("checkpoint", type=Path, metavar="CKPT", help=ckpt)
    add = made.add_argument
    given = "licence for the card, such as cc-by-nc-4.0"
    add("--license", type=licence, default="unknown", metavar="NAME", help=given)
    add(
        "--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps: for --images"
    )
    add = made.add_argument_group("the generator").add_argument
    graph = "mapping, truncation and synthesis as an ONNX file, for any batch"
    add("--onnx", type=ending(".onnx"), metavar="FILE", help=graph)
    noise = "of --onnx: the same in all pictures, or an input"
    add("--noise", default="constant", choices=["constant", "input"], help=noise)
    safe = "its weights as a safetensors file, with the config in the header"
    add("--safetensors", type=ending(".safetensors"), metavar="FILE", help=safe)
    add = made.add_argument_group("samples").add_argument
    add("--images", nargs=2, metavar=("N", "DIR|ZIP"), help="N pictures as PNG")
    psi = "truncation of --images; 1: none, as papers report metrics"
    add("--psi", type=number(-2, 2), default=1.0, metavar="X", help=psi)
    precision = "of the convolutions of --images, as in generate.py"
    add("--precision", default="auto", choices=["auto", "fp32", "bf16"], help=precision)
    seed = "first seed of --images; also that of the constant noise of --onnx"
    add("--seed", type=integer(0, MAX_SEED - MAX_IMAGES), default=0, metavar="N", help=seed)
    return made


def licence(text: str) -> str:
    """Parse the name of a licence: one plain word, for the card's YAML."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,99}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name such as mit or cc-by-nc-4.0")
    return text


def ending(suffix: str) -> Callable[[str], Path]:
    """Return the argparse type of file names with this suffix."""

    def parse(text: str) -> Path:
        if not text.lower().endswith(suffix) or Path(text).name == suffix:
            raise argparse.ArgumentTypeError(f"{text!r} does not end with {suffix}")
        return Path(text)

    return parse


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the flags, checked as far as possible without the model."""
    made = parser()
    args = made.parse_args(argv)
    if not (args.onnx or args.safetensors or args.images):
        made.error("nothing to write; expected --onnx, --safetensors or --images")
    if args.images:
        count, path = args.images
        try:
            args.count, args.images = integer(1, MAX_IMAGES)(count), Path(path)
        except argparse.ArgumentTypeError as error:
            made.error(f"--images: {error}")
        if not args.images.name:
            made.error(f"--images: {path!r} cannot name a new folder; expected a name")
    check_places(made, args)
    check_unoccupied(made, args.images)
    return args


def check_places(made: Parser, args: argparse.Namespace) -> None:
    """End with a usage error if an export cannot be written there, or a package is missing."""
    for flag in ("onnx", "safetensors", "images"):
        path = getattr(args, flag)
        if path and not path.parent.is_dir():
            made.error(f"--{flag} {path}: there is no folder {path.parent}; create it first")
        if path and len(os.fsencode(path.name)) > LONGEST_NAME:
            made.error(f"--{flag}: the name is too long; expected at most {LONGEST_NAME} bytes")
        missing = [name for name in NEEDED.get(flag, ()) if not importlib.util.find_spec(name)]
        if path and missing:
            made.error(f"--{flag}: needs the package {' and '.join(missing)} ({INSTALL})")


def check_unoccupied(made: Parser, path: Path | None) -> None:
    """End with a usage error if other files would mix with the pictures of --images."""
    if path is None or not path.exists():
        return
    if path.suffix.lower() != ".zip" and not (path.is_dir() and not any(path.iterdir())):
        made.error(f"--images {path}: exists already; expected a new or empty folder, or a zip")
    if path.suffix.lower() == ".zip" and not path.is_file():
        made.error(f"--images {path}: is not a file; expected the name of a zip")


def work(args: argparse.Namespace) -> None:
    """Write all exports."""
    from outputs.exports import export_all  # importing torch takes seconds

    export_all(args)


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    args = parse_args(argv)
    run_script(PROGRAM, partial(work, args), interrupted="interrupted; finished exports stay")


if __name__ == "__main__":
    main()
