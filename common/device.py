"""The device to compute on, its precision and its memory."""

import os
import resource
import sys
from pathlib import Path

import torch

from common.cli import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
KINDS = ("cpu", "cuda", "mps")


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` is the first of cuda, mps, cpu that is available.

    Raises UserError.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if not is_available(name):
        raise UserError(f"--device {name}: not on this machine; expected cpu, cuda, cuda:N or mps")
    return torch.device(name)


def is_available(name: str) -> bool:
    """Return whether this machine can compute on the device called `name`."""
    if name.partition(":")[0] not in KINDS:
        return False
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError):  # torch built without the device asserts
        return False
    return True


def tune(device: torch.device) -> None:
    """Allow TF32 on a GPU, and let cuDNN choose the fastest convolutions by trying them.

    Shapes change only with the resolution, so trying pays off. What stays in float32 (mapping,
    styles) needs no more than TF32's 10 bits, three more than bfloat16 has.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True


def can_compile(device: torch.device) -> bool:
    """Return whether torch.compile works here: it needs a C++ compiler, on a GPU also Triton."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except Exception:  # whatever is missing; each version of torch raises its own
        return False
    return True


def choose_precision(name: str, device: torch.device) -> str:
    """Return `name`, or for `auto` the fastest precision that the device computes natively."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if native else "fp16"
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "fp32"
    return "fp32"


def dtype_of_pictures(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype for making pictures; a GPU is fast enough in float32."""
    if precision == "auto":
        precision = choose_precision("auto", device) if device.type == "cpu" else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def free_bytes(device: torch.device) -> int:
    """Return the free memory of `device` in bytes; for a CPU, of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration):  # not Linux: half of what the machine has
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def memory_gb(device: torch.device) -> float:
    """Return the peak memory so far in GiB: of the device, or on a CPU of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, else in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
