"""Command line: folders or zips of photos -> one LMDB of small square JPEGs, and a report."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.cli import MAX_SEED, Parser, integer, open_standard_streams, resolution, run_script, say
from data.conditions import Condition
from data.photos import MIN_SIZE, QUALITY
from data.prepare import prepare
from data.workers import usable_cores

EXAMPLES = """  python prepare_data.py photos faces.lmdb
  python prepare_data.py young old mix.lmdb --per_source 2500
  python prepare_data.py celeba old.lmdb --table list_attr_celeba.txt --where Young=-1
  python prepare_data.py faces.zip old.lmdb --table faces.zip/metadata.jsonl --where 'age>=40'

Sources are searched with their subfolders. Links to files are followed; links to folders and
databases of earlier runs are not searched; names that begin with a dot are skipped silently.
Zips, such as those of NVIDIA's dataset tools, are read by the same rules, never unpacked to disk.
A table, in a zip or not, is only used if --table names it; labels in a dataset.json are not read.
Names in lists and tables are paths within SRC or the last parts of such paths. Folders of any
machine may stand before the whole path if the last of them has SRC's name; / and \\ are the same.
< > <= >= compare numbers (40,5 is one): a row whose cell is none is left out, and so is a file that
is named twice if --where decides both ways. The summary counts what became of every row.
The database's folder also gets report.csv, with a line for each file left out, and
contact_sheet.jpg, with 100 of the images."""


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the checked arguments; exit with code 2 and one line if they are wrong."""
    parser = _parser()
    args = parser.parse_intermixed_args(arguments)
    *args.sources, args.dst = args.paths
    if not args.sources:
        parser.error("SRC DST: only one path given; expected sources and a destination")
    args.where = args.where or []
    if not args.table and (args.where or args.key):
        parser.error("--where, --key: no table given; expected --table TABLE too")
    if not args.dst.name:
        parser.error(f"DST: {str(args.dst)!r} is not a name for a new folder; expected one")
    return args


def _parser() -> Parser:
    parser = Parser("Make a database of square faces from folders or zips of photos.", EXAMPLES)
    parser.usage = "%(prog)s [options] SRC [SRC ...] DST"
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="SRC [SRC ...] DST",
        help="folders or zips of photos, or single photos; last, the database to make",
    )
    _add_image_flags(parser.add_argument_group("images"))
    _add_choice_flags(parser.add_argument_group("choice of photos"))
    running = parser.add_argument_group("running")
    running.add_argument(
        "--workers",
        type=integer(1, 1024),
        default=usable_cores(),
        metavar="N",
        help="processes that prepare photos",
    )
    running.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the database DST once the new one is complete",
    )
    return parser


def _add_image_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--sizes",
        type=_sizes,
        default="64",
        metavar="PX[,PX...]",
        help="sizes to store, powers of two",
    )
    group.add_argument(
        "--quality",
        type=integer(1, 100),
        default=QUALITY,
        metavar="1-100",
        help="quality of the stored JPEGs",
    )
    group.add_argument(
        "--min_size",
        type=integer(1),
        default=MIN_SIZE,
        metavar="PX",
        help="leave out photos with a side shorter than this",
    )


def _add_choice_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--per_source",
        type=integer(1),
        metavar="N",
        help="take N good photos of each SRC, evenly spaced",
    )
    group.add_argument(
        "--holdout",
        type=integer(0),
        default=0,
        metavar="N",
        help="hold out N more good photos of each SRC for evaluate.py: training never sees them",
    )
    group.add_argument(
        "--seed",
        type=integer(0, MAX_SEED),
        default=0,
        metavar="N",
        help="seed of the choice for --per_source and --holdout",
    )
    group.add_argument(
        "--list",
        type=Path,
        metavar="TXT",
        help="take only the files named in this file, one per line",
    )
    group.add_argument(
        "--table",
        type=Path,
        metavar="TABLE",
        help="take only the files named in a CSV with a header, JSON lines or list_attr_celeba.txt",
    )
    group.add_argument(
        "--where",
        type=_condition,
        action="append",
        metavar="COLUMN=VALUE",
        help="take only these rows of the table; also != < > <= >=; if repeated, all must hold",
    )
    group.add_argument(
        "--key",
        metavar="COLUMN",
        help="column of the table that names the files (default: file_name, else the first)",
    )


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(sorted({resolution(part) for part in text.split(",")}))


def _condition(text: str) -> Condition:
    try:
        return Condition.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main() -> None:
    """Run the script."""
    open_standard_streams()
    args = read_arguments()
    run_script(
        "prepare_data.py",
        lambda: say(prepare(args)),
        interrupted="interrupted; nothing was made",
        out_of_memory="out of memory; try fewer --workers",
    )


if __name__ == "__main__":
    main()
