"""The work of prepare_data.py: photos are found, chosen, made square and stored in one LMDB."""

import argparse
import io
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from common.cli import UserError, ignore_signals
from data.choice import select
from data.lmdb_format import HOLDOUT, TRAINING, printable
from data.lmdb_writer import Writer
from data.photos import FORMATS, Recipe
from data.selection import Photo, Report, evenly_spaced, find_photos
from data.tables import read_list, read_table
from data.workers import Outcome, Workers

SHEET_SIDE = 10  # images a row and a column
SHEET_MARGIN = 2  # px


def prepare(args: argparse.Namespace) -> list[str]:
    """Make the database and return the lines of its summary.

    Raises UserError; no database is made then.
    """
    started = time.monotonic()
    report = Report()
    lists = [read_list(args.list)] if args.list else []
    tables = [read_table(args.table, args.key, args.where)] if args.table else []
    check_sources(args.sources)
    recipe = Recipe(args.sizes, args.quality, args.min_size)
    names = [printable(source.resolve().name) for source in args.sources]
    with Writer(args.dst, recipe.sizes, names, args.overwrite) as writer:
        writer.settings = settings(args, recipe)
        sources = [find_photos(i, source, report) for i, source in enumerate(args.sources)]
        total = sum(map(len, sources))
        sources = select(sources, lists + tables, report)
        planned = sum(
            min(len(photos), args.holdout + (args.per_source or len(photos))) for photos in sources
        )
        with (
            Workers(args.workers, recipe) as workers,
            # disable=None: there is no bar unless stderr is a terminal.
            tqdm(total=planned, unit=" images", leave=False, disable=None) as bar,
        ):
            for photos in sources:
                for _ in store(photos, args, writer, workers, report):
                    bar.update()
        check_result(args.sources, writer, report)
        try:
            report.save(writer.folder / "report.csv")
            contact_sheet(writer).save(writer.folder / "contact_sheet.jpg", quality=95)
        except OSError as error:
            raise writer.write_error(error) from None
        writer.flush()
        ignore_signals()  # the rest takes a moment, and must be done whole
    return summarize(args, total, writer, report, time.monotonic() - started)


def settings(args: argparse.Namespace, recipe: Recipe) -> dict[str, object]:
    """Return what the records depend on besides the photos: neither the workers nor any folder."""
    return {
        **recipe.settings(),
        "per_source": args.per_source,
        "seed": args.seed,
        "list": args.list and printable(args.list.name),
        "table": args.table and printable(args.table.name),
        "key": args.key,
        "where": [str(condition) for condition in args.where],
    }


def store(
    photos: list[Photo], args: argparse.Namespace, writer: Writer, workers: Workers, report: Report
) -> Iterator[None]:
    """Store the good photos of one source: --holdout of them apart, then --per_source, or all.

    Yields after each photo that was tried.
    """
    rest = photos
    for part, flag in ((HOLDOUT, "holdout"), (TRAINING, "per_source")):
        asked = getattr(args, flag)
        tried, kept = set(), 0
        for photo, outcome in prepare_some(rest, asked, args.seed, workers):
            tried.add(photo)
            if isinstance(outcome, str):
                report.leave_out(photo.path, outcome)
            else:
                writer.add(outcome, photo.relative, photo.source, part)
                kept += 1
            yield
        rest = [photo for photo in rest if photo not in tried]
        if asked and kept < asked:
            name = printable(args.sources[photos[0].source]) if photos else "a source"
            report.notes.append(f"{name}: only {kept:,} good photos for --{flag} {asked:,}")
    for photo in rest:
        report.leave_out(photo.path, "not needed for --per_source")


def prepare_some(
    photos: list[Photo], count: int | None, seed: int, workers: Workers
) -> Iterator[tuple[Photo, Outcome]]:
    """Yield evenly spaced photos with their outcomes until `count` are good; None means all.

    Where a photo is bad, another is tried in its place, as long as there are any.
    """
    limit = len(photos) if count is None else count
    good = 0
    while photos and good < limit:
        places = evenly_spaced(len(photos), limit - good, seed)
        chosen = [photos[place] for place in places]
        outcomes = workers.prepare([photo.place for photo in chosen])
        for photo, outcome in zip(chosen, outcomes, strict=True):
            good += not isinstance(outcome, str)
            yield photo, outcome
        taken = set(places)
        photos = [photo for place, photo in enumerate(photos) if place not in taken]


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


def check_sources(sources: Sequence[Path]) -> None:
    """Raise UserError unless each source is a folder or a regular file."""
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


def check_result(sources: Sequence[Path], writer: Writer, report: Report) -> None:
    """Raise UserError unless there is at least one image to train on."""
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
        f"{where}: no usable photo ({why}{notes}); expected at least one "
        f"({', '.join(FORMATS)}). Look into the folder"
    )


def summarize(
    args: argparse.Namespace, total: int, writer: Writer, report: Report, seconds: float
) -> list[str]:
    """Return the lines to print about a finished database; `total` is how many files were found."""
    kept = writer.count + writer.held_out
    megabytes = (args.dst / "data.mdb").stat().st_size / 1e6
    sizes = ", ".join(map(str, args.sizes))
    lines = [
        f"{printable(args.dst)}: {kept:,} of {total:,} files kept at {sizes} px, "
        f"{megabytes:,.1f} MB, {seconds:.1f} s ({kept / seconds:,.0f} images/s)"
    ]
    if writer.held_out:
        lines.append(f"{writer.held_out:,} of them are held out: training never sees them")
    if report.counts:
        lines.append(f"left out, see report.csv in it: {report.reasons()}")
    return lines + report.notes
