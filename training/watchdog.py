"""What goes wrong in a run, in plain words: what the records show, what it means, what to try.

Each finding is told once; a run is never stopped. The thresholds come from runs that were made to
fail in each way, and from good runs (doc/decisions.md).
"""

from collections.abc import Callable, Iterable
from statistics import mean, median, median_low
from typing import NamedTuple

from checkpoints.records import Record
from training.augment import P_MAX
from training.losses import LOSSES

WINDOW = 10  # records that must agree, all of one resolution that is faded in
# Thresholds, and the values of good runs:
WON_LOSS = 0.1  # D's loss at most, if D has won; good runs on drawn faces begin at 0.2
FLAT_GAP = 0.5  # logits of photos minus those of samples, if R1 keeps D flat; good runs: 1 to 6
BLIND_GAP = 0.05  # the same, if D sees nothing; good runs at 8 px keep 0.13
BLIND_GAP_AT_ODD_LR = 0.25  # the same, at a learning rate that never worked
STEEP_GAP = 9.0  # the same, in every record; good runs begin with up to 11 and come down
LR_FROM, LR_TO = 3e-4, 6e-3  # learning rates that worked
SURE = 0.8  # r_t: D knows nine photos of ten
STEEP = 20.0  # squared gradient of D at the photos (R1 before its weight); in good runs below 1
ALIKE = 0.4  # variety of samples; in good runs 0.8 to 1.6
AT_BOUND = 0.95  # share of its bound that p has on average
GAINED = 0.02  # share by which a distance must fall to count as a gain
MEASURED = 4  # distances that the half without a gain must have


class Finding(NamedTuple):
    """A name for the bar and the log, and the sentence that is printed once."""

    name: str
    sentence: str


def findings_of(records: list[Record]) -> list[str]:
    """Return the names of all findings so far."""
    return [name for record in records for name in record.findings]


def diagnose(records: list[Record], loss: str) -> list[Finding]:
    """Return what the latest records show and no earlier record has named.

    Logits without a scale, as of a Wasserstein critic, are not judged.
    """
    steps = [r for r in records[-4 * WINDOW :] if None not in (r.D_loss, r.logit_gap)][-WINDOW:]
    steady = len(steps) == WINDOW and all(
        record.alpha == 1 and record.resolution == steps[0].resolution for record in steps
    )
    rules = [*OF_ANY_LOSS, *(OF_LOGITS if LOSSES[loss].has_scale else [])] if steady else []
    found = [rule(steps) for rule in rules] + [nothing_gained(records)]
    before = findings_of(records)
    new = {finding.name: finding for finding in found if finding and finding.name not in before}
    return list(new.values())


def d_has_won(steps: list[Record]) -> Finding | None:
    """Find a D that is sure of every image."""
    loss = mean_of(r.D_loss for r in steps)
    if loss > WON_LOSS:
        return None
    return Finding(
        "D has won",
        f"D has won: its loss is {loss:.2g}, it is sure of every image, and G learns nothing from "
        "it. Try more --r1_gamma (four times as much), a lower --d_lr, or with few photos "
        "--augment ada",
    )


def gamma_is_high(steps: list[Record]) -> Finding | None:
    """Find a D that knows the photos and yet is flat."""
    apart = apart_by(steps)
    if not 0 <= apart <= FLAT_GAP or mean_of(r.r_t for r in steps) < SURE:
        return None
    return Finding(
        "gamma too high",
        f"D knows nearly all photos, and yet its logits of photos and samples are only {apart:.2g} "
        "apart: R1 keeps it flat, so G learns little from it. Try a tenth of --r1_gamma",
    )


def d_is_blind(steps: list[Record]) -> Finding | None:
    """Find a D that can hardly tell photos from samples."""
    apart, lr = apart_by(steps), steps[-1].lr or LR_FROM
    bound = BLIND_GAP if LR_FROM <= lr <= LR_TO else BLIND_GAP_AT_ODD_LR
    if apart > bound or gamma_is_high(steps):
        return None
    remedy = "a tenth of --r1_gamma"
    if lr < LR_FROM:
        remedy = "ten times as much --lr"
    if lr > LR_TO:
        remedy = "a tenth of --lr"
    return Finding(
        "D sees nothing",
        f"D can hardly tell photos from samples (its logits are {apart:.2g} apart), so G has "
        f"little to learn from. Try {remedy}",
    )


def gamma_is_low(steps: list[Record]) -> Finding | None:
    """Find logits that lie far apart though D is not always right."""
    apart = min(known(r.logit_gap for r in steps))
    if (
        apart < STEEP_GAP or mean_of(r.D_loss for r in steps) < WON_LOSS
    ):  # that is told as D's winning
        return None
    return Finding(
        "gamma too low",
        f"D's logits of photos and samples are {apart:.2g} apart or more, and it is wrong at "
        "times: it is too steep to teach G. Try ten times as much --r1_gamma",
    )


def d_is_steep(steps: list[Record]) -> Finding | None:
    """Find a D with large gradients at the photos."""
    penalty = median_low(known(r.penalty for r in steps) or [0.0])
    if penalty < STEEP:
        return None
    return Finding(
        "gamma too low",
        f"D is steep around the photos (penalty {penalty:.3g}), so G is thrown about rather than "
        "taught. Try ten times as much --r1_gamma",
    )


def samples_are_alike(steps: list[Record]) -> Finding | None:
    """Find a G that makes the same picture of all z."""
    varieties = known(r.variety for r in steps)
    if not varieties or max(varieties) > ALIKE:
        return None
    return Finding(
        "collapse",
        f"samples are alike: they differ by {varieties[-1]:.0%} of what photos differ by. G has "
        "collapsed, and hardly ever recovers. Go back to an earlier snapshot (--init_from), "
        "with a lower --lr, more --r1_gamma or, with few photos, --augment ada",
    )


def p_is_at_its_bound(steps: list[Record]) -> Finding | None:
    """Find augmentation at its limit while D still knows the photos by heart."""
    if mean_of(r.p for r in steps) < AT_BOUND * P_MAX:
        return None
    sure = mean_of(r.r_t for r in steps)
    return Finding(
        "p at its bound",
        f"augmentation is at its bound (p {P_MAX:g}) and D is still sure of the photos (r_t "
        f"{sure:.2f}): they are too few. Add photos, start from a run on more of them "
        "(--init_from), or stop early: what comes now are copies",
    )


def nothing_gained(records: list[Record]) -> Finding | None:
    """Find a measured distance that has not fallen in the second half of the run so far."""
    measured = [(r.nimg, r.swd) for r in records if r.nimg is not None and r.swd is not None]
    if not measured:
        return None
    half = measured[-1][0] / 2
    first = [distance for nimg, distance in measured if nimg <= half]
    second = [distance for nimg, distance in measured if nimg > half]
    if not first or len(second) < MEASURED or min(second) < (1 - GAINED) * min(first):
        return None
    return Finding(
        "nothing gained",
        f"nothing gained for half of the run: the distance was {min(first):.3g} at best before, "
        f"and is {second[-1]:.3g} now. best.pt keeps the best; going on will hardly help. Try "
        "less --lr, more photos, or a larger --width",
    )


def apart_by(steps: list[Record]) -> float:
    """Return the median of how far D's logits of photos are above those of samples."""
    return median(known(record.logit_gap for record in steps))


def known(figures: Iterable[float | None]) -> list[float]:
    """Return those of the figures that were told."""
    return [figure for figure in figures if figure is not None]


def mean_of(figures: Iterable[float | None]) -> float:
    """Return the mean of the figures, one that was not told counting as 0."""
    return mean(figure or 0.0 for figure in figures)


Rule = Callable[[list[Record]], Finding | None]
OF_ANY_LOSS: list[Rule] = [d_is_steep, samples_are_alike, p_is_at_its_bound]
OF_LOGITS: list[Rule] = [d_has_won, gamma_is_low, gamma_is_high, d_is_blind]
