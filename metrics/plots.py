"""Plots of an evaluation: metrics over a run, and distances to training photos.

matplotlib is optional. It is imported in `new_figure` only; ask `are_available` before.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from common.images import write_image
from metrics.memorisation import Memorisation
from metrics.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
BINS = 60  # of a histogram


def are_available() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, its size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def write_curves(
    path: Path, nimg: Sequence[int], metrics: Sequence[Metrics], floor: Metrics
) -> None:
    """Write each metric over images seen, with its interval, and its floor as a band."""
    names = list(floor)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    kimg = [n / 1000 for n in nimg]
    figure = new_figure(4 * columns, 3 * rows)
    for place, name in enumerate(names):
        axes = figure.add_subplot(
            rows, columns, place + 1, title=name, xlabel="thousand images seen"
        )
        values, intervals = zip(*(each[name] for each in metrics), strict=True)
        axes.errorbar(kimg, values, intervals, marker="o")
        value, interval = floor[name]
        axes.axhspan(
            value - interval, value + interval, color="grey", alpha=0.4, label="photos held out"
        )
        axes.legend()
    write_figure(figure, path)


def write_distances(path: Path, copies: Memorisation) -> None:
    """Write histograms of the distances of samples and unseen photos to training photos."""
    samples, unseen = copies.distances, copies.unseen_distances
    figure = new_figure(7, 4)
    axes = figure.add_subplot(xlabel="distance to the nearest training photo", ylabel="share")
    largest = max(samples.max().item(), unseen.max().item())
    for distances, label in ((unseen, "unseen photos"), (samples, "samples")):
        weights = [1 / len(distances)] * len(distances)
        axes.hist(
            distances.tolist(), BINS, range=(0, largest), weights=weights, alpha=0.6, label=label
        )
    axes.axvline(copies.threshold, color="black", label="99 % of unseen photos are farther")
    axes.legend()
    write_figure(figure, path)


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, never half a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    with Image.open(buffer) as image:
        write_image(image, path)
