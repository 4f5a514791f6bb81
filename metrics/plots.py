"""The plots of an evaluation, by matplotlib: figures over a run, and distances of copies."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from common.images import write_image
from metrics.metrics import Figures

DPI = 100
BINS = 60  # of a histogram


def write_curves(
    path: Path, seen: Sequence[int], figures: Sequence[Figures], floor: Figures
) -> None:
    """Write each figure after `seen` images with its interval, and its floor as a band."""
    names = list(floor)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    thousands = [nimg / 1000 for nimg in seen]
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(
            rows, columns, place + 1, title=name, xlabel="thousand images seen"
        )
        values = [each[name] for each in figures]
        axes.errorbar(
            thousands, [v.value for v in values], [v.interval for v in values], marker="o"
        )
        low, high = floor[name].value - floor[name].interval, sum(floor[name])
        axes.axhspan(low, high, color="grey", alpha=0.4, label="photos held out")
        axes.legend()
    write_figure(figure, path)


def write_distances(path: Path, samples: Tensor, unseen: Tensor, limit: float) -> None:
    """Write how far samples [N] and unseen photos [M] are from their nearest training photo."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="distance to the nearest training photo", ylabel="share")
    most = max(samples.max().item(), unseen.max().item())
    for distances, label in ((unseen, "unseen photos"), (samples, "samples")):
        weights = [1 / len(distances)] * len(distances)
        axes.hist(
            distances.tolist(), BINS, range=(0, most), weights=weights, alpha=0.6, label=label
        )
    axes.axvline(limit, color="black", label="99 % of unseen photos are farther")
    axes.legend()
    write_figure(figure, path)


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, never half a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    with Image.open(buffer) as image:
        write_image(image, path)
