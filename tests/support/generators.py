"""Small untrained generators as files, for the tests of all that is made with one."""

import importlib.util
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints import checkpoint
from common import cli
from model import Generator, ModelConfig

CPU = torch.device("cpu")
SMALL = ModelConfig(16, 0.03, z_dim=16, w_dim=16, mapping_layers=2)

Change = Callable[[Generator], None]


def untrained(config: ModelConfig = SMALL, seed: int = 0) -> Generator:
    """Return a generator that uses its noise and has a mean style."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        G = Generator(config)
        G.w_avg.normal_()
        for layer in G.synthesis.layers:
            layer.noise_strength.normal_(0, 1 / layer.noise_scale)
    return G


def save_generator(
    path: Path,
    config: ModelConfig = SMALL,
    seed: int = 0,
    change: Change | None = None,
    **entries: object,
) -> Path:
    """Save an untrained generator, after `change` of it, with more `entries`; return its path."""
    G = untrained(config, seed)
    if change:
        with torch.no_grad():
            change(G)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, config, {"G_ema": G.state_dict(), **entries})
    return path


def make_blank(G: Generator) -> None:
    """Let every image have a single colour."""
    for to_rgb in G.synthesis.to_rgb.values():
        to_rgb.weight.zero_()


def make_deaf(G: Generator) -> None:
    """Let all seeds give one image: nothing depends on styles or noise."""
    for name, parameter in G.synthesis.named_parameters():
        if "noise" in name or "style" in name:
            parameter.zero_()
    G.synthesis.const.normal_(generator=torch.Generator().manual_seed(0))


def call(main: Callable[[list[str]], None], *args: object) -> None:
    """Run a script's main() in this process, and put back the signal handlers that it sets."""
    before = {number: signal.getsignal(number) for number in cli.EXIT_CODES}
    try:
        main([str(arg) for arg in args])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def error_of(
    main: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str], code: int, *args: object
) -> str:
    """Run a script's main(), which must end with `code` and a line on stderr; return the line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        call(main, *args)
    said = capsys.readouterr().err
    assert end.value.code == code, said
    assert said.startswith(f"{main.__module__}.py: error: ")
    assert said.count("\n") == 1
    return said


def needs(*packages: str) -> pytest.MarkDecorator:
    """Return the mark of a test that is skipped unless all these packages are installed."""
    missing = [name for name in packages if not importlib.util.find_spec(name)]
    return pytest.mark.skipif(bool(missing), reason=f"{missing}: see requirements-export.txt")


def pixels(path: Path) -> np.ndarray:
    """Return a picture as uint8 [H, W, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (60, 40)) -> Path:
    """Write a few coloured patches, smoothly enlarged, as a JPEG of any name; return its path."""
    patches = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(patches).resize(size).save(path, "JPEG")
    return path
