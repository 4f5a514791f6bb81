"""Which checkpoint of a run is the best, by the metrics of several networks."""

from collections.abc import Sequence

from metrics.metrics import Metrics

DECIDING = ("FID", "face distance")  # by both: a G may please ImageNet's features with one face


def criteria(metrics: Metrics) -> list[str]:
    """Return the metrics to choose by: what was measured of FID and face distance, or fall-backs.

    Without either it is the kernel distance on any network (Lite0), without a network SWD.
    """
    kernel = [name for name in metrics if name.startswith("KID")]
    return [name for name in DECIDING if name in metrics] or kernel[:1] or ["SWD"]


def best_of(checkpoints: Sequence[Metrics]) -> int:
    """Return the index of the checkpoint with the lowest sum of ranks; of equal sums, by FID.

    Ranks, not values: a thousandth of face distance and a point of FID have no common unit.
    """
    names = criteria(checkpoints[0])
    ranked = [ranks([each[name].value for each in checkpoints]) for name in names]
    totals = [(sum(places), places[0]) for places in zip(*ranked, strict=True)]
    return totals.index(min(totals))


def ranks(values: Sequence[float]) -> list[int]:
    """Return the rank of each value, 0 for the lowest; equal values have equal ranks."""
    ordered = sorted(values)
    return [ordered.index(value) for value in values]


def sentences(names: Sequence[str], checkpoints: Sequence[Metrics]) -> list[str]:
    """Return lines that say which of the checkpoints called `names` is best, and by what.

    Where the criteria disagree, the best by each is named as well.
    """
    by = criteria(checkpoints[0])
    rule = f"{' and '.join(by)}{', by the sum of ranks' if len(by) > 1 else ''}"
    lines = [f"best, by {rule}: {names[best_of(checkpoints)]}"]
    alone = {name: names[ranks([c[name].value for c in checkpoints]).index(0)] for name in by}
    if len(set(alone.values())) > 1:
        lines.append("they disagree: " + ", ".join(f"by {k} alone {v}" for k, v in alone.items()))
    return lines
