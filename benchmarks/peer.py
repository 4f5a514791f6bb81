"""Runs rosinality/style-based-gan-pytorch from a user's checkout, on the CPU.

Its own code runs, with these changes made in memory: "cuda" means the CPU; its `tqdm` is replaced
by one that times the steps and ends after a few; `save_image(range=)` becomes value_range, its name
in today's torchvision; processes are forked, the default when it was written; prepare_data makes
one size instead of eight; generate makes one mixing grid instead of 20. It has no width below 1:
narrower networks are built from its own blocks.

python -m benchmarks.peer DIR NAME ARGUMENTS... runs its prepare, generate or checkpoint.
"""

import argparse
import builtins
import importlib
import multiprocessing
import runpy
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn, optim
from torch.overrides import TorchFunctionMode

from benchmarks.flops import FlopCounter

CHANNELS = (512, 512, 512, 512, 256)  # of its networks, from 4 to 64 px
NAMES = ("train", "model", "dataset", "prepare_data", "generate")  # modules of both projects
GRIDS = 20  # style-mixing grids that its generate.py makes


class OnCpu(TorchFunctionMode):
    """Replaces "cuda" by the CPU in every call of torch."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call func with the CPU in place of "cuda"; `.cuda()` does nothing."""
        if func is torch.Tensor.cuda:
            return args[0]
        given = {key: _cpu(value) for key, value in (kwargs or {}).items()}
        return func(*map(_cpu, args), **given)


def _cpu(value: Any) -> Any:
    is_cuda = isinstance(value, str | torch.device) and str(value).startswith("cuda")
    return torch.device("cpu") if is_cuda else value


class TimedSteps:
    """Stands in for tqdm in its training loop: ends after `steps`, whose seconds it keeps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.seconds: list[float] = []

    def __iter__(self) -> Iterator[int]:
        time.sleep(1)  # until its loader has a batch ready, as it has in a running training
        for i in range(self.steps):
            start = time.perf_counter()
            yield i
            self.seconds.append(time.perf_counter() - start)

    def set_description(self, text: str) -> None:
        """Ignore the text."""


def load(folder: Path, name: str) -> ModuleType:
    """Return a module of the peer, keeping ours of the same names imported."""
    ours = {other: sys.modules.pop(other) for other in NAMES if other in sys.modules}
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        for other in NAMES:
            sys.modules.pop(other, None)
        sys.modules.update(ours)


class PeerTraining:
    """The peer's training with R1 and style mixing, at `resolution` px, fully faded in."""

    dtype = torch.float32

    def __init__(
        self, folder: Path, database: Path, width: float, batch: int, resolution: int
    ) -> None:
        multiprocessing.set_start_method("fork", force=True)
        self.code: Any = load(folder, "train")
        code: Any = self.code
        networks = [code.StyledGenerator(512) for _ in range(2)]
        discriminator = code.Discriminator(from_rgb_activate=True)
        if width != 1:
            channels = [max(1, round(c * width)) for c in CHANNELS]
            model = load(folder, "model")
            for network in networks:
                narrow(model, network.generator, discriminator, channels)
        self.G, self.D = nn.DataParallel(networks[0]), nn.DataParallel(discriminator)
        code.g_running = networks[1].train(False)
        code.code_size, code.n_critic = 512, 1
        synthesis, mapping = networks[0].generator.parameters(), networks[0].style.parameters()
        code.g_optimizer = optim.Adam(synthesis, lr=0.001, betas=(0.0, 0.99))
        code.g_optimizer.add_param_group({"params": mapping, "lr": 0.00001, "mult": 0.01})
        code.d_optimizer = optim.Adam(self.D.parameters(), lr=0.001, betas=(0.0, 0.99))
        transforms = code.transforms
        steps = [transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        steps.append(transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), inplace=True))
        # A process can open an LMDB only once, and may hold several of these trainings.
        own = shutil.copytree(database, tempfile.mkdtemp(dir=database.parent), dirs_exist_ok=True)
        self.data = code.MultiResolutionDataset(own, transforms.Compose(steps))
        self.args = argparse.Namespace(
            init_size=resolution,
            max_size=resolution,
            batch={},
            batch_default=batch,
            lr={},
            ckpt=None,
            phase=10**9,
            gen_sample={},
            mixing=True,
            loss="r1",
        )

    def seconds(self) -> float:
        """Return the seconds of a step."""
        steps = TimedSteps(1)
        self.code.tqdm = lambda _: steps
        with OnCpu(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls add_ with a deprecated signature
            self.code.train(self.args, self.data, self.G, self.D)
        return steps.seconds[0]

    def flops(self) -> float:
        """Return the floating-point operations of convolutions and products in a step."""
        with FlopCounter() as counter:
            self.seconds()
        return counter.total


def narrow(model: Any, generator: Any, discriminator: Any, channels: list[int]) -> None:
    """Rebuild its networks from blocks of its own classes with these channels, from 4 px up."""
    first, pairs = channels[0], list(pairwise(channels))
    blocks = [model.StyledConvBlock(first, first, 3, 1, initial=True)]
    blocks += [model.StyledConvBlock(a, b, 3, 1, upsample=True) for a, b in pairs]
    generator.progression = nn.ModuleList(blocks)
    generator.to_rgb = nn.ModuleList(model.EqualConv2d(c, 3, 1) for c in channels)
    blocks = [model.ConvBlock(b, a, 3, 1, downsample=True) for a, b in reversed(pairs)]
    blocks.append(model.ConvBlock(first + 1, first, 3, 1, 4, 0))
    discriminator.progression = nn.ModuleList(blocks)
    discriminator.from_rgb = nn.ModuleList(
        nn.Sequential(model.EqualConv2d(3, c, 1), nn.LeakyReLU(0.2)) for c in reversed(channels)
    )
    discriminator.n_layer = len(blocks)
    discriminator.linear = model.EqualLinear(first, 1)


def prepare(source: str, database: str, workers: str, size: str) -> None:
    """Do what its prepare_data.py does, for one size."""
    multiprocessing.set_start_method("fork")
    code: Any = importlib.import_module("prepare_data")
    photos = code.datasets.ImageFolder(source)
    with (
        code.lmdb.open(database, map_size=2**40, readahead=False) as env,
        env.begin(write=True) as txn,
    ):
        code.prepare(txn, photos, int(workers), sizes=(int(size),))


def checkpoint(path: str) -> None:
    """Write an untrained generator that its generate.py can load."""
    model: Any = importlib.import_module("model")
    torch.save({"g_running": model.StyledGenerator(512).state_dict()}, path)


def generate(*arguments: str) -> None:
    """Run its generate.py with these arguments, for one mixing grid only."""
    from torchvision import utils

    save = utils.save_image

    def save_image(*images: Any, range: tuple[int, int], **options: Any) -> None:
        save(*images, value_range=range, **options)

    utils.save_image = save_image
    shorter = {"range": lambda n: builtins.range(1 if n == GRIDS else n)}
    sys.argv[1:] = arguments
    with OnCpu():
        runpy.run_path(f"{sys.path[0]}/generate.py", shorter, "__main__")


def main() -> None:
    """Run DIR NAME ARGUMENTS..."""
    folder, name, *arguments = sys.argv[1:]
    sys.path.insert(0, folder)
    programs: dict[str, Any] = {f.__name__: f for f in (prepare, checkpoint, generate)}
    programs[name](*arguments)


if __name__ == "__main__":
    main()
