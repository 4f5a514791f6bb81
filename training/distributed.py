"""One run on several processes, started by torchrun: each computes its rows of every batch.

Every process draws the random numbers of the whole batch and keeps its own rows, so N processes
compute what one would. Without torchrun there is one process, and all of this does nothing.
"""

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
    """Return the device of this process: for `cuda`, the GPU of its local rank."""
    if size() > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return name


def check_batch(batch: int) -> None:
    """Raise UserError if a batch cannot be split without splitting minibatch-std groups."""
    if size() > 1 and batch % (STD_GROUP * size()):
        raise UserError(
            f"--batch {batch}: cannot be split over {size()} processes; expected a multiple of "
            f"{STD_GROUP * size()}, since D compares groups of {STD_GROUP} images"
        )


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the other processes (NCCL on GPUs, else gloo) for the length of the block."""
    if size() > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """Exit with `code` once all processes have got here.

    With several processes, Python's teardown is skipped: gloo's threads were seen to abort in it,
    after the run was finished and saved.
    """
    if dist.is_initialized():
        dist.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


def rank() -> int:
    """Return the rank of this process; only rank 0 writes files."""
    return int(os.environ.get("RANK", 0))


def size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rows(batch: int) -> slice:
    """Return the rows of the batch that this process computes."""
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
    """Average the gradients over processes: as losses are means, to those of the whole batch."""
    average(p.grad for p in network.parameters() if p.grad is not None)


def maximum(number: int, device: torch.device) -> int:
    """Return the maximum of the processes' numbers."""
    if size() == 1:
        return number
    value = torch.tensor(number, device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def from_first(thing: Any) -> Any:
    """Return what the first process passes."""
    if size() == 1:
        return thing
    things = [thing]
    dist.broadcast_object_list(things)
    return things[0]
