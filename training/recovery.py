"""The last good state of a run: saved, resumed, and returned to when numbers overflow."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from checkpoints import checkpoint
from checkpoints.checkpoint import CheckpointError, NotFiniteError
from checkpoints.run_folder import (
    CONFIG,
    LATEST,
    LOG,
    NEXT,
    PREVIOUS,
    SAMPLES,
    SNAPSHOTS,
    candidates,
    find,
    load_latest,
    read_config,
    save_latest,
    snapshot,
    snapshots,
)
from common.cli import UserError
from training.config import TrainConfig
from training.state import TrainState

HALVINGS = 3  # of the learning rates of a run whose numbers overflow, before it stops

Tell = Callable[[str], None]


def claim(folder: Path) -> IO[str]:
    """Make the run folder and lock it until the returned file is closed or the process ends.

    Raises UserError.
    """
    try:
        for part in (SAMPLES, SNAPSHOTS):
            (folder / part).mkdir(parents=True, exist_ok=True)
        # No link, which would be followed and emptied, and no FIFO, which would block.
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        lock = open(os.open(folder / ".lock", flags, 0o666), "w")  # noqa: SIM115 - until the end
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; expected a folder to write to. Give another --out"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise UserError(
            f"{folder}: another train.py is at work here; give another --out"
        ) from error
    for stale in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp"), folder / NEXT]:
        stale.unlink(missing_ok=True)
    check_state_is_there(folder)
    return lock


def check_state_is_there(folder: Path) -> None:
    """Raise UserError for a run that has snapshots or a log but no state to resume from.

    A new run in that folder would overwrite them.
    """
    states = [folder / name for name in (LATEST, PREVIOUS)]
    log = folder / LOG
    begun = bool(snapshots(folder)) or (log.is_file() and log.stat().st_size > 0)
    if begun and not any(map(os.path.lexists, states)):
        raise UserError(
            f"{folder}: a run with snapshots or a log, but without latest.pt or previous.pt to "
            f"resume from. Restore one, or start anew: another --out, --init_from {folder}"
        )


def differences(folder: Path, asked: dict[str, Any], free: set[str]) -> list[str]:
    """Return which settings differ from the run's config.json, as text.

    Raises UserError for one that is not in `free`.
    """
    before = read_config(folder)
    if "lmdb" in before:  # which earlier versions kept as it was typed
        before["lmdb"] = str(Path(str(before["lmdb"])).absolute())
    changed = [key for key in asked if before and before.get(key) != asked[key]]
    for key in changed:
        if key == "data":
            raise UserError(
                f"{asked['lmdb']}: other photos than the run in {folder} was started with. "
                "Give the same, or another --out"
            )
        if key not in free:
            raise UserError(
                f"--{key} {asked[key]}: the run in {folder} was started with {before.get(key)}. "
                "Give the same, or another --out"
            )
    return [f"{key} {asked[key]} (was {before.get(key)})" for key in changed]


def save(state: TrainState, config: TrainConfig, run: Path, is_snapshot: bool = False) -> None:
    """Write the full state and, if `is_snapshot`, a snapshot: G_ema alone, named by its iteration.

    With a snapshot, the further averages replace ema_short.pt and ema_long.pt. Raises UserError if
    it cannot be written, and NotFiniteError.
    """
    stage = config.growth.at(state.nimg)
    try:
        save_latest(run, state.model, {**state.entries(), "stage": list(stage)})
        if is_snapshot:
            checkpoint.save(snapshot(run, state.iteration), state.model, state.snapshot(stage))
            for name in state.more_ema:
                path = run / f"{name.removeprefix('G_')}.pt"
                checkpoint.save(path, state.model, state.snapshot(stage, name))
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; the state before is kept. Make it writable and "
            "give it room: the same command continues"
        ) from error


def resume(state: TrainState, run: Path, tell: Tell) -> bool:
    """Load the last good state in a run folder; return whether there is one.

    Raises CheckpointError, also for the state of a run with other networks.
    """
    entries = load_latest(run, tell)
    if entries is None:
        return False
    if not (run / CONFIG).exists():
        tell(f"{run}: no config.json; the flags it was started with are unknown")
    try:
        state.restore(entries)
    except (CheckpointError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{find(run)}: not a state of this run ({error}); expected the one it "
            "wrote. Put that back, or give another --out"
        ) from error
    return True


def start_from(state: TrainState, path: Path, tell: Tell) -> None:
    """Load the weights of another run or snapshot, and tell which networks it lacks."""
    choices = candidates(path)
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


def check_finite(state: TrainState, steps: int) -> None:
    """Raise NotFiniteError if any of the last steps had a loss, or G_ema a weight, of NaN or inf.

    `steps` is the number of such losses. A bad gradient of D spoils its weights, and those the next
    loss; a bad gradient of G spoils G_ema in the same step.
    """
    if steps:
        raise NotFiniteError(f"{steps:,} steps had losses that are not finite")
    broken = checkpoint.first_not_finite({"G_ema": state.G_ema.state_dict()})
    if broken:
        raise NotFiniteError(f"{broken} is not finite")


def go_back(
    state: TrainState, config: TrainConfig, run: Path, error: NotFiniteError, tell: Tell
) -> None:
    """Return to the last good state with half its learning rates.

    The rates are part of the state that is saved here, so a run killed afterwards resumes with
    them. Raises UserError after HALVINGS halvings.
    """
    failed = state.iteration
    resume(state, run, tell)
    lr = state.lr
    if lr <= config.lr / 2**HALVINGS:
        raise UserError(
            f"numbers overflowed by iteration {failed:,} ({error}), although --lr was halved "
            f"{HALVINGS} times, to {lr:g}; the state of iteration {state.iteration:,} is kept. "
            f"Start from it: --init_from {run}, another --out, and a lower --lr, more --r1_gamma "
            "or --precision fp32"
        )
    for optimizer in (state.opt_G, state.opt_D):
        for group in optimizer.param_groups:
            group["lr"] /= 2
    save(state, config, run)
    tell(
        f"numbers overflowed by iteration {failed:,} ({error}): back at iteration "
        f"{state.iteration:,} with half the learning rates, --lr {lr / 2:g}"
    )
