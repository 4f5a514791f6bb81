"""One run on several processes, started by torchrun: each computes its part of every batch.

All of them draw the whole batch's random numbers and keep their own rows, so that N processes
with batch / N images do what one does with the whole batch. Without torchrun there is one
process, and nothing here has anything to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from common.cli import UserError
from critic import STD_GROUP


def device_of_rank(name: str) -> str:
    """Return the device that this process of torchrun's takes: `cuda` is its own card."""
    if size() > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return name


def check_batch(batch: int) -> None:
    """Raise UserError if the parts of a batch would tear groups of minibatch std apart."""
    if size() > 1 and batch % (STD_GROUP * size()):
        raise UserError(
            f"--batch {batch}: cannot be split over {size()} processes; expected a multiple of "
            f"{STD_GROUP * size()}, since D compares groups of {STD_GROUP} images"
        )


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Meet the other processes (over NCCL on cards, else gloo), and part from them at the end."""
    if size() > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process with `code`, when all of them are done.

    One of several skips the teardown of Python and C++, in which gloo's threads were seen to
    abort a run that was finished and saved.
    """
    if dist.is_initialized():
        dist.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def rank() -> int:
    """Return which of the processes this is; 0 alone writes."""
    return int(os.environ.get("RANK", 0))


def size() -> int:
    """Return how many processes work on the run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rows(batch: int) -> slice:
    """Return the rows of a batch that this process computes."""
    each = batch // size()
    return slice(rank() * each, (rank() + 1) * each)


def average(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over all processes, in one message."""
    tensors = list(tensors)
    if size() == 1 or not tensors:
        return
    flat = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat)
    flat /= size()
    for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def average_gradients(network: torch.nn.Module) -> None:
    """Make the gradients of the parts those of the whole batch, losses being means."""
    average(p.grad for p in network.parameters() if p.grad is not None)


def highest(number: int, device: torch.device) -> int:
    """Return the highest of the processes' numbers."""
    if size() == 1:
        return number
    value = torch.tensor(number, device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def from_first(thing: Any) -> Any:
    """Return what the first process holds."""
    if size() == 1:
        return thing
    things = [thing]
    dist.broadcast_object_list(things)
    return things[0]
