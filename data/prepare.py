"""Photos are found, chosen, made square and stored: prepare_data.py's work."""

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
    UserError,
    ignore_signals,
)
from data.lmdb_format import HOLDOUT, TRAINING, printable
from data.lmdb_writer import Writer
from data.photos import FORMATS, Recipe
from data.selection import Photo, Report, find_photos, select, spread
from data.tables import read_list, read_table
from data.workers import Workers

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
        writer.settings = _settings(args, recipe)
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


def _settings(args: argparse.Namespace, recipe: Recipe) -> dict[str, object]:
    """Return what the records depend on besides the photos: not the workers, nor any folder."""
    return {
        **recipe.settings(),
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
