"""Command line: folders or zips of photos -> one LMDB of small square JPEGs, and a report.

Files are found by selection.py, chosen by tables.py, made square by photos.py in the
processes of workers.py, and stored by writer.py. Here they meet, and the user is told.
"""

from __future__ import annotations

import argparse
import io
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from common.cli import (
    MAX_SEED,
    Parser,
    UserError,
    ignore_signals,
    integer,
    open_standard_streams,
    resolution,
    run_script,
    say,
)
from data.lmdb_format import HOLDOUT, TRAINING, printable
from data.lmdb_writer import Writer
from data.photos import FORMATS, MIN_SIZE, QUALITY, Recipe
from data.selection import Photo, Report, find_photos, select, spread
from data.tables import Condition, read_list, read_table
from data.workers import Workers, usable_cores

EXAMPLES = """  python prepare_data.py photos faces.lmdb
  python prepare_data.py young old mix.lmdb --per_source 2500
  python prepare_data.py celeba old.lmdb --table list_attr_celeba.txt --where Young=-1
  python prepare_data.py faces.zip old.lmdb --table faces.zip/metadata.jsonl --where 'age>=40'

Sources are searched with their subfolders. Links to files are followed; links to folders, and
databases of earlier runs, are not searched; names that begin with a dot are passed over in silence.
Zips, such as those of NVIDIA's dataset tools, are read by the same rules, never unpacked to disk.
A table is used only where --table names it, also in a zip; labels in a dataset.json are not read.
The database also holds report.csv, with a line for each file left out, and contact_sheet.jpg, with
100 of its images."""
SHEET_SIDE = 10  # images a row and a column
SHEET_MARGIN = 2  # px


def store(
    photos: list[Photo], args: argparse.Namespace, writer: Writer, workers: Workers, report: Report
) -> Iterator[None]:
    """Store the good ones among the photos of one source, or --per_source of them.

    First --holdout of them are put apart. Yields after each photo. Where one is bad, another is
    taken in its stead.
    """
    unused = photos
    for part, flag in ((HOLDOUT, "holdout"), (TRAINING, "per_source")):
        wanted = getattr(args, flag)
        limit = wanted or (len(unused) if part == TRAINING else 0)
        kept = 0
        while unused and kept < limit:
            places = spread(len(unused), limit - kept, args.seed)
            chosen = [unused[place] for place in places]
            outcomes = workers.prepare([photo.place for photo in chosen])
            for photo, outcome in zip(chosen, outcomes, strict=True):
                if isinstance(outcome, str):
                    report.leave_out(photo.path, outcome)
                else:
                    writer.add(outcome, photo.relative, photo.source, part)
                    kept += 1
                yield
            taken = set(places)
            unused = [photo for place, photo in enumerate(unused) if place not in taken]
        if wanted and kept < wanted:
            name = printable(args.sources[photos[0].source]) if photos else "a source"
            report.notes.append(f"{name}: only {kept:,} good photos for --{flag} {wanted:,}")
    for photo in unused:
        report.leave_out(photo.path, "not needed for --per_source")


def contact_sheet(writer: Writer) -> Image.Image:
    """Return up to 100 of the stored images, evenly spaced, on one white sheet."""
    size = min((size for size in writer.sizes if size >= 64), default=max(writer.sizes))
    shown = min(SHEET_SIDE**2, writer.count)
    rows = -(-shown // SHEET_SIDE)
    pitch = size + SHEET_MARGIN
    extent = (SHEET_SIDE * pitch + SHEET_MARGIN, rows * pitch + SHEET_MARGIN)
    sheet = Image.new("RGB", extent, "white")
    for place in range(shown):
        row, column = divmod(place, SHEET_SIDE)
        record = writer.read(size, place * writer.count // shown)
        with Image.open(io.BytesIO(record), formats=("JPEG",)) as image:
            sheet.paste(image, (SHEET_MARGIN + column * pitch, SHEET_MARGIN + row * pitch))
    return sheet


def prepare(args: argparse.Namespace) -> list[str]:
    """Make the database and return the lines of the summary.

    Raises UserError; there is no database then.
    """
    started = time.monotonic()
    report = Report()
    lists = [read_list(args.list)] if args.list else []
    tables = [read_table(args.table, args.key, args.where)] if args.table else []
    _refuse_missing(args.sources)
    recipe = Recipe(args.sizes, args.quality, args.min_size)
    Image.preinit()  # now: where memory is short, the map is refused in a line, not the last sheet
    names = [printable(source.resolve().name) for source in args.sources]
    with Writer(args.dst, args.sizes, names, args.overwrite) as writer:
        sources = [find_photos(i, s, report) for i, s in enumerate(args.sources)]
        total = sum(map(len, sources))
        for wanted in lists + tables:
            sources = select(sources, wanted, report)
        writer.settings = _settings(args)
        planned = sum(
            min(len(photos), args.holdout + (args.per_source or len(photos))) for photos in sources
        )
        # No bar where nobody looks: disable=None hides it unless stderr is a terminal.
        with (
            Workers(args.workers, recipe) as workers,
            tqdm(total=planned, unit=" images", leave=False, disable=None) as bar,
        ):
            for photos in sources:
                for _ in store(photos, args, writer, workers, report):
                    bar.update()
        _refuse_nothing(args.sources, writer, report)
        try:
            report.save(writer.folder / "report.csv")
            contact_sheet(writer).save(writer.folder / "contact_sheet.jpg", quality=95)
        except OSError as error:
            raise writer.unwritable(error) from None
        writer.flush()
        ignore_signals()
    return _summary(args, total, writer, report, time.monotonic() - started)


def _settings(args: argparse.Namespace) -> dict[str, object]:
    """Return what the records depend on besides the photos: not the workers, nor any folder."""
    return {
        "quality": args.quality,
        "min_size": args.min_size,
        "per_source": args.per_source,
        "seed": args.seed,
        "list": args.list and printable(args.list.name),
        "table": args.table and printable(args.table.name),
        "key": args.key,
        "where": [str(condition) for condition in args.where],
    }


def _refuse_missing(sources: Sequence[Path]) -> None:
    for source in sources:
        try:
            mode = source.stat().st_mode
        except OSError as error:
            raise UserError(
                f"{printable(source)}: cannot be read ({error.strerror}); expected a folder or "
                "zip of photos, or a photo. Check the name"
            ) from None
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise UserError(
                f"{printable(source)}: neither a folder nor a regular file; expected a folder or "
                "zip of photos, or a photo. Check the name"
            )


def _refuse_nothing(sources: Sequence[Path], writer: Writer, report: Report) -> None:
    if writer.count:
        return
    if writer.held_out:
        raise UserError(
            f"--holdout: takes all {writer.held_out:,} good photos; expected some to be left to "
            "train on. Give a lower number"
        )
    where = ", ".join(map(printable, sources))
    why = f"left out: {report.reasons()}" if report.counts else "there are no files"
    notes = "".join(f"; {note}" for note in report.notes)
    raise UserError(
        f"{where}: no photo that can be used ({why}{notes}); expected at least one "
        f"({', '.join(FORMATS)}). Look into the folder"
    )


def _summary(
    args: argparse.Namespace, total: int, writer: Writer, report: Report, seconds: float
) -> list[str]:
    kept = writer.count + writer.held_out
    left_out = sum(report.counts.values())
    megabytes = (args.dst / "data.mdb").stat().st_size / 1e6
    sizes = ", ".join(map(str, args.sizes))
    lines = [
        f"{printable(args.dst)}: {kept:,} of {total:,} files kept at {sizes} px, "
        f"{megabytes:,.1f} MB, {seconds:.1f} s ({kept / seconds:,.0f} images/s)"
    ]
    if writer.held_out:
        lines.append(f"{writer.held_out:,} of them are held out: training never sees them")
    if left_out:
        lines.append(f"left out, see report.csv in it: {report.reasons()}")
    return lines + report.notes


def read_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the checked arguments; exit with code 2 and one line if they are wrong."""
    parser = _parser()
    args = parser.parse_intermixed_args(arguments)
    *args.sources, args.dst = args.paths
    if not args.sources:
        parser.error("SRC DST: only one path is given; expected sources and a destination")
    if not args.table and (args.where or args.key):
        parser.error("--where, --key: there is no table; expected --table TABLE beside them")
    if not args.dst.name:
        parser.error(f"DST: {str(args.dst)!r} is no name for a new folder; expected one")
    return args


def _parser() -> Parser:
    parser = Parser("Make a database of square faces from folders or zips of photos.", EXAMPLES)
    parser.usage = "%(prog)s [options] SRC [SRC ...] DST"
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="SRC [SRC ...] DST",
        help="folders or zips of photos, or single photos; at the end the database to make",
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
        help="replace the database DST, once the new one is whole",
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
        help="take N good photos of each SRC, evenly spread",
    )
    group.add_argument(
        "--holdout",
        type=integer(0),
        default=0,
        metavar="N",
        help="keep N more good photos of each SRC apart, for evaluate.py: training never sees them",
    )
    group.add_argument(
        "--seed",
        type=integer(0, MAX_SEED),
        default=0,
        metavar="N",
        help="choose other photos for --per_source and --holdout",
    )
    group.add_argument(
        "--list", type=Path, metavar="TXT", help="take only the files named here, one a line"
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
        default=[],
        metavar="COLUMN=VALUE",
        help="take only such rows of the table; also != < > <= >=; if repeated, all must hold",
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
    """Run the command line."""
    open_standard_streams()
    args = read_arguments()
    tqdm.monitor_interval = 0  # a thread that only redraws bars that stand still
    run_script(
        "prepare_data.py",
        lambda: say(prepare(args)),
        interrupted="interrupted; nothing was made",
        out_of_memory="out of memory; try fewer --workers",
    )


if __name__ == "__main__":
    main()
