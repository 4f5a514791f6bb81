"""Counts floating-point operations while they run."""

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """Counts the floating-point operations of convolutions and products in its block, in `total`.

    Uses the formulas of torch.utils.flop_counter, whose own counter fails on second derivatives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call func and count its operations."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func.overloadpacket)
        if formula:
            self.total += formula(*args, **kwargs, out_val=out)
        return out
