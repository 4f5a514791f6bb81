"""Labelled sheets: rows of pictures under headings, heat maps and their scale.

Pictures are uint8 tensors [3, R, R]; what a sheet shows is decided elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CELL = 96  # px, minimum side of a picture on a sheet
GAP = 4  # px between pictures
TEXT = 14  # px, height of labels
LINE = 18  # px between the lines of a label
MARGIN = 12  # px around a sheet
INK = (30, 30, 30)
SCALE = "difference: 0 "
# Dark to bright in even steps of lightness, so that twice the change looks twice as bright.
HEAT = (
    (0, 0, 4),
    (40, 11, 84),
    (101, 21, 110),
    (159, 42, 99),
    (212, 72, 66),
    (245, 125, 21),
    (250, 193, 39),
    (252, 255, 164),
)


@dataclass(frozen=True)
class Row:
    """The label at the left of a row, and its pictures; None leaves a cell blank."""

    label: str
    pictures: Sequence[Tensor | None]


def heat(change: Tensor, brightest: float) -> Tensor:
    """Return a change [..., H, W] as colours, uint8 [..., 3, H, W]: black at 0 to `brightest`."""
    table = torch.tensor(HEAT, dtype=torch.float32)
    place = (change.float() / brightest).clamp(0, 1) * (len(HEAT) - 1)
    below = place.floor().long().clamp(max=len(HEAT) - 2)
    colours = torch.lerp(table[below], table[below + 1], (place - below)[..., None])
    return colours.round().to(torch.uint8).movedim(-1, -3)


def difference(a: Tensor, b: Tensor) -> Tensor:
    """Return the absolute difference of uint8 images, mean over colours: [..., H, W], 0 to 255."""
    return (a.float() - b.float()).abs().mean(dim=-3)


@cache
def font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return Pillow's own font, for labels."""
    return ImageFont.load_default(TEXT)


def sheet(
    rows: Sequence[Row],
    heads: Sequence[str] = (),
    title: str = "",
    brightest: float | None = None,
    apart: int = 0,
) -> Image.Image:
    """Return the rows under a title and a heading for each column; any text may have newlines.

    With `brightest`, the scale of heat maps is below: differences of 0 to `brightest` of 255. If
    `apart` is not 0, a wider gap follows every `apart` columns.
    """
    sides = [picture.shape[-1] for row in rows for picture in row.pictures if picture is not None]
    cell = max(CELL, *sides)
    columns = max(len(row.pictures) for row in rows)
    left = MARGIN + max(_width(row.label) for row in rows)
    left += MARGIN if left > MARGIN else 0
    top = MARGIN + LINE * (title.count("\n") + 1 if title else 0)
    top += LINE * max((head.count("\n") + 1 for head in heads), default=0) + GAP
    xs = [left + i * (cell + GAP) + (i // apart * MARGIN if apart else 0) for i in range(columns)]
    scale = left + _width(SCALE) + CELL + 2 * GAP + _width(_end(brightest)) if brightest else 0
    width = max(xs[-1] + cell, MARGIN + _width(title), scale) + MARGIN
    height = top + len(rows) * (cell + GAP) + MARGIN + (2 * LINE if brightest else 0)
    made = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(made)
    _write(draw, (MARGIN, MARGIN), title)
    for x, head in zip(xs, heads, strict=False):
        y = top - GAP - LINE * (head.count("\n") + 1)
        _write(draw, (x + cell / 2, y), head, centred=True)
    for number, row in enumerate(rows):
        y = top + number * (cell + GAP)
        middle = y + cell / 2 - LINE * (row.label.count("\n") + 1) / 2
        _write(draw, (MARGIN, middle), row.label)
        for x, picture in zip(xs, row.pictures, strict=False):
            if picture is not None:
                made.paste(_enlarged(picture, cell), (x, y))
    if brightest:
        _draw_scale(made, (left, height - MARGIN - LINE), brightest)
    return made


def beside(panels: Sequence[Image.Image]) -> Image.Image:
    """Return the panels side by side on white, aligned at the top."""
    size = (sum(panel.width for panel in panels), max(panel.height for panel in panels))
    made = Image.new("RGB", size, "white")
    x = 0
    for panel in panels:
        made.paste(panel, (x, 0))
        x += panel.width
    return made


def _draw_scale(made: Image.Image, place: tuple[int, int], brightest: float) -> None:
    """Draw the colours of 0 to `brightest` with labels at `place`."""
    bar = heat(torch.linspace(0, 1, CELL).expand(LINE, -1), 1)
    draw = ImageDraw.Draw(made)
    draw.text(place, SCALE, INK, font())
    x = place[0] + _width(SCALE) + GAP
    made.paste(Image.fromarray(bar.permute(1, 2, 0).contiguous().numpy()), (x, place[1]))
    draw.text((x + CELL + GAP, place[1]), _end(brightest), INK, font())


def _end(brightest: float) -> str:
    return f" {brightest:.0f} of 255"


def _enlarged(picture: Tensor, cell: int) -> Image.Image:
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    return image.resize((cell, cell), Image.Resampling.BICUBIC)


def _width(text: str) -> int:
    return max(int(font().getlength(line)) + 1 for line in text.split("\n")) if text else 0


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, centred: bool = False
) -> None:
    """Draw lines of text downwards from `place`, to its right or centred on it."""
    for number, line in enumerate(text.split("\n")):
        x = place[0] - font().getlength(line) / 2 if centred else place[0]
        draw.text((x, place[1] + number * LINE), line, INK, font())
