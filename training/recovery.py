"""The last good state of a run: written, taken up again, gone back to when numbers overflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from checkpoints import checkpoint
from checkpoints.checkpoint import CheckpointError, NotFiniteError
from common.cli import UserError
from training.step import TrainConfig, TrainState

HALVINGS = 3  # of the learning rates of a run whose numbers overflow, before it stops

Tell = Callable[[str], None]


def save(state: TrainState, config: TrainConfig, run: Path, snapshot: bool = False) -> None:
    """Write the full state and, for a snapshot, G_ema alone under its iteration.

    Further averages are written beside it as ema_short.pt and ema_long.pt, in place of the last.
    Raises UserError where the disk does not take it, and NotFiniteError.
    """
    entries = {**state.entries(), "stage": list(config.growth.at(state.nimg))}
    try:
        checkpoint.save_latest(run, state.config, entries)
        if snapshot:
            few = {key: entries[key] for key in ("G_ema", "iteration", "nimg", "stage")}
            checkpoint.save(run / "snapshots" / f"{state.iteration:06d}.pt", state.config, few)
            for name in state.more_ema:
                other = {**few, "G_ema": entries[name]}
                checkpoint.save(run / f"{name.removeprefix('G_')}.pt", state.config, other)
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; the state before is kept. Make it writable and "
            "give it room: the same command continues"
        ) from error


def resume(state: TrainState, run: Path, tell: Tell) -> bool:
    """Take the last good state in a run folder; return whether there is one.

    Raises CheckpointError, also for the state of a run with other networks.
    """
    entries = checkpoint.load_latest(run, tell)
    if entries is None:
        return False
    if not (run / "config.json").exists():
        tell(f"{run}: no config.json; with which flags it was started is not known")
    try:
        state.restore(entries)
    except (CheckpointError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.find(run)}: not a state of this run ({error}); expected the one it "
            "wrote. Put that back, or give another --out"
        ) from error
    return True


def start_from(state: TrainState, path: Path, tell: Tell) -> None:
    """Take the weights of another run or snapshot, and tell what could not be taken."""
    choices = checkpoint.candidates(path)
    for found in choices:
        try:
            entries = checkpoint.load(found)
            break
        except CheckpointError as error:
            if found == choices[-1]:
                raise CheckpointError(f"--init_from {error}") from error
            tell(f"{error}; trying the next")
    try:
        missing = state.start_from(entries)
    except CheckpointError as error:
        raise CheckpointError(f"--init_from {found}: {error}") from error
    anew = [f"; {name} is not in it and starts anew" for name in missing]
    tell(f"weights from {found}{''.join(anew)}")


def refuse_not_finite(state: TrainState, steps: int) -> None:
    """Raise NotFiniteError if `steps`, whose losses were not finite, are any, or if G_ema is not.

    A gradient that is not finite makes weights so, and these the next losses; G's at once G_ema.
    """
    if steps:
        raise NotFiniteError(f"{steps:,} steps had losses that are not finite")
    broken = checkpoint.first_not_finite({"G_ema": state.G_ema.state_dict()})
    if broken:
        raise NotFiniteError(f"{broken} is not finite")


def go_back(
    state: TrainState, config: TrainConfig, run: Path, error: NotFiniteError, tell: Tell
) -> None:
    """Return to the last good state with half its learning rates; UserError if that was in vain.

    The rates are in the optimizers' state, hence in the checkpoint that is written here: a run
    killed afterwards goes on with them.
    """
    failed = state.iteration
    resume(state, run, tell)
    lr = state.lr
    if lr <= config.lr / 2**HALVINGS:
        raise UserError(
            f"by iteration {failed:,} {error}, although --lr was halved {HALVINGS} times, to "
            f"{lr:g}; the state of iteration {state.iteration:,} is kept. Start from it: "
            f"--init_from {run}, another --out, and a lower --lr, more --r1_gamma or "
            "--precision fp32"
        )
    for optimizer in (state.opt_G, state.opt_D):
        for group in optimizer.param_groups:
            group["lr"] /= 2
    save(state, config, run)
    tell(
        f"by iteration {failed:,} {error}; back at iteration {state.iteration:,} with half the "
        f"learning rates, --lr {lr / 2:g}"
    )
