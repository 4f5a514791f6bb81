"""Command line: what each of two faces gives to a third, layer by layer; see doc/two_faces.md."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from common.cli import PSI, Parser, device, integer, number, run_script

PROGRAM = "two_faces"
SETS = ("young", "old")
EXAMPLES = """\
  python demo/draw_faces.py faces
  python prepare_data.py faces/young young.lmdb
  python prepare_data.py faces/young faces/old mix.lmdb --per_source 2500
  python train.py mix.lmdb --init_size 8 --max_size 64 --width 0.125
  python train.py young.lmdb --init_size 8 --max_size 64 --width 0.125
  python -m experiments.two_faces faces young=runs/young runs/mix"""


@dataclass(frozen=True)
class Run:
    """A run to measure: its name, its path, and the sets that it was trained on."""

    name: str
    path: Path
    sets: tuple[str, ...]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the flags."""
    parser = Parser("Measure what each of two drawn faces gives to a third.", EXAMPLES)
    parser.prog = f"python -m experiments.{PROGRAM}"
    add = parser.add_argument
    add("faces", type=Path, metavar="FACES", help="folder that demo/draw_faces.py filled")
    path = "run folder or checkpoint; young=RUN or old=RUN if trained on that set alone"
    add("runs", type=run, nargs="+", metavar="RUN", help=path)
    add("--out", type=Path, default=Path(PROGRAM), metavar="DIR", help="folder to write to")
    add("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    add("--pairs", type=integer(10), default=1000, metavar="N", help="pairs of faces to mix")
    add("--psi", type=number(-2, 2), default=PSI, metavar="X", help="truncation of the faces")
    add("--epochs", type=integer(1), default=8, metavar="N", help="of training the readers")
    add("--seed", type=integer(0), default=0, metavar="N", help="of the first reader")
    return parser.parse_args(argv)


def run(text: str) -> Run:
    """Parse RUN, young=RUN or old=RUN."""
    name, equals, rest = text.partition("=")
    alone = bool(equals) and name in SETS
    path = Path(rest if alone else text)
    return Run(path.name, path, (name,) if alone else SETS)


def main() -> None:
    """Run the experiment."""
    args = parse_args()

    def work() -> None:
        from experiments.third_faces import compare  # not above: torch is slow to import

        compare(args)

    run_script(PROGRAM, work, "interrupted; nothing was made")


if __name__ == "__main__":
    main()
