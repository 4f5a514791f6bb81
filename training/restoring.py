"""Takes the state of an optimizer, a scaler or a clock from a file, only where it fits to the bit.

torch does not compare what it loads with what it has: moments of another shape make the fused Adam
read and write past their ends, and a rate of NaN makes a run that never ends.
"""

from __future__ import annotations

import math
from reprlib import repr as brief
from typing import Any

import torch
from torch import Tensor

MOST = 2**48  # iterations or images that a clock may show: numbers beyond overflow elsewhere
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}


def restore_adam(optimizer: torch.optim.Adam, stored: dict[str, Any]) -> None:
    """Take moments and learning rate from `stored`; all else is as the program has it.

    Raises ValueError, KeyError, TypeError or AttributeError where they do not fit.
    """
    (own,) = optimizer.state_dict()["param_groups"]
    (theirs,) = stored["param_groups"]
    rate = theirs["lr"]
    if type(rate) is not float or not 0 < rate <= 1:
        raise ValueError(f"a learning rate of {brief(rate)}")
    if theirs["params"] != own["params"]:
        raise ValueError("an optimizer of other networks")
    parameters = optimizer.param_groups[0]["params"]
    for index, moments in stored["state"].items():
        if type(index) is not int or not 0 <= index < len(parameters) or moments.keys() != MOMENTS:
            raise ValueError(f"moments of another optimizer, at {brief(index)}")
        like = torch.zeros(())
        for name, value in moments.items():
            refuse_unlike(f"{name} {index}", value, like if name == "step" else parameters[index])
        if moments["step"] < 0:
            raise ValueError(f"step {index} below 0")
    optimizer.load_state_dict({"state": stored["state"], "param_groups": [{**own, "lr": rate}]})


def restore_plain(part: Any, stored: dict[str, Any]) -> None:
    """Let `part` load what has the names, types and shapes of its own state; else ValueError."""
    own = part.state_dict()
    if stored.keys() != own.keys():
        raise ValueError(f"{brief(sorted(map(str, stored)))} in place of {sorted(own)}")
    for name, value in stored.items():
        refuse_unlike(name, value, own[name])
    part.load_state_dict(dict(stored))


def refuse_unlike(name: str, value: object, own: object) -> None:
    """Raise ValueError unless `value` is a tensor or a number of `own`'s kind."""
    if isinstance(value, Tensor) and isinstance(own, Tensor):
        same = value.shape == own.shape and value.dtype == own.dtype
    else:
        same = type(value) is type(own) and isinstance(value, int | float) and math.isfinite(value)
    if not same:
        raise ValueError(f"{name} is {brief(value)}, of another kind than here")


def read_clock(entries: dict[str, Any], name: str) -> int:
    """Return the count of iterations or images called `name`; ValueError if it is none."""
    value = entries[name]
    if type(value) is not int or not 0 <= value <= MOST:
        raise ValueError(f"{name} is {brief(value)}")
    return value
