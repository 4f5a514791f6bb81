"""Checkpoints of rosinality's program: our pictures are those of its forward pass, written anew."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import generate
from checkpoints import checkpoint, rosinality
from checkpoints.checkpoint import CheckpointError, load_generator
from model import Generator, Stage
from tests.support.rosinality import CODE, FUSED, its_state, save

CPU = torch.device("cpu")


def its_w(state: dict[str, Tensor], z: Tensor) -> Tensor:
    """Its mapping: pixel norm, then eight equalized layers, in float64."""
    x = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(1, 17, 2):
        weight = state[f"style.{i}.linear.weight_orig"].double() * math.sqrt(2 / CODE)
        x = F.leaky_relu(x @ weight.T + state[f"style.{i}.linear.bias"].double(), 0.2)
    return x


def fused_kernel(weight: Tensor) -> Tensor:
    """The 4 x 4 kernel of its fused upsampling for [c_in, c_out, 3, 3]."""
    padded = F.pad(weight * math.sqrt(2 / (weight.shape[0] * 9)), [1, 1, 1, 1])
    rows = padded[:, :, 1:] + padded[:, :, :-1]
    return (rows[..., 1:] + rows[..., :-1]) / 4


def its_image(  # noqa: C901 (a forward pass, step by step)
    state: dict[str, Tensor], w: Tensor, noise: list[Tensor], last: int, alpha: float = 1.0
) -> Tensor:
    """Its synthesis, step by step in float64: one noise map for both layers of a block."""

    def get(name: str) -> Tensor:
        return state[f"generator.{name}"].double()

    def equal(name: str) -> Tensor:
        weight = get(name)
        return weight * math.sqrt(2 / (weight.shape[1] * weight[0][0].numel()))

    taps = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    kernel = (taps[:, None] * taps / 16)[None, None]

    def blurred(x: Tensor) -> Tensor:
        n, c, h, side = x.shape
        return F.conv2d(x.view(n * c, 1, h, side), kernel, padding=1).view(n, c, h, side)

    def rest_of_layer(x: Tensor, block: str, n: int, noise: Tensor) -> Tensor:
        x = F.leaky_relu(x + equal(f"{block}.noise{n}.weight_orig") * noise, 0.2)
        mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
        style = w @ equal(f"{block}.adain{n}.style.linear.weight_orig").T
        style = style + get(f"{block}.adain{n}.style.linear.bias")
        gamma, beta = style[:, :, None, None].chunk(2, 1)
        return gamma * (x - mean) / (var + 1e-5).sqrt() + beta

    def rgb(x: Tensor, k: int) -> Tensor:
        weight = equal(f"to_rgb.{k}.conv.weight_orig")
        return F.conv2d(x, weight, get(f"to_rgb.{k}.conv.bias"))

    x = get("progression.0.conv1.input").repeat(len(w), 1, 1, 1)
    below = x
    for k in range(last + 1):
        block = f"progression.{k}"
        below = x
        if 0 < k < FUSED:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            weight = equal(f"{block}.conv1.1.conv.weight_orig")
            x = blurred(F.conv2d(x, weight, get(f"{block}.conv1.1.conv.bias"), padding=1))
        elif k >= FUSED:
            weight = fused_kernel(get(f"{block}.conv1.0.weight"))
            bias = get(f"{block}.conv1.0.bias")
            x = blurred(F.conv_transpose2d(x, weight, bias, stride=2, padding=1))
        x = rest_of_layer(x, block, 1, noise[k])
        weight = equal(f"{block}.conv2.conv.weight_orig")
        x = F.conv2d(x, weight, get(f"{block}.conv2.conv.bias"), padding=1)
        x = rest_of_layer(x, block, 2, noise[k])
    if alpha == 1:
        return rgb(x, last)
    skip = rgb(below, last - 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return (1 - alpha) * skip + alpha * rgb(x, last)


@pytest.fixture(scope="module")
def its_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A periodic file of a run that reached 16 px."""
    return save(tmp_path_factory.mktemp("its") / "010000.model", "bare", its_state(2))


def open_g(path: Path) -> Generator:
    return load_generator(path, CPU)[0]


@pytest.mark.parametrize("layout", ["bare", "phase", "old"])
@pytest.mark.parametrize("last", [0, 4, 6])
def test_the_same_w_and_noise_give_the_same_picture(tmp_path, layout, last):
    state = its_state(last)
    G = open_g(save(tmp_path / "its.model", layout, state))
    assert G.config.resolution == 4 << last
    rng = torch.Generator().manual_seed(1)
    z = torch.randn(2, CODE, generator=rng)
    noise = [torch.randn(2, 1, 4 << k, 4 << k, generator=rng) for k in range(last + 1)]
    expected_w = its_w(state, z.double())
    w = G.mapping(z)
    assert (w - expected_w).abs().max() < 1e-4
    both = [each for each in noise for _ in range(2)]
    for alpha in (1.0, 0.25)[: last + 1]:
        ours = G.synthesis(G.broadcast(w), Stage(4 << last, alpha), both)
        theirs = its_image(state, expected_w, [each.double() for each in noise], last, alpha)
        assert theirs.std() > 0.3
        assert (ours - theirs).abs().max() < 3e-4  # float32 against float64, values up to 5


def test_the_epsilon_of_its_norm_counts_where_maps_are_faint(tmp_path):
    state = its_state(1)
    state["generator.progression.0.conv1.input"] *= 0.1  # variance 1e-6: below its epsilon
    state["generator.progression.0.noise1.weight_orig"] *= 0
    G = open_g(save(tmp_path / "its.model", "bare", state))
    w = its_w(state, torch.randn(1, CODE, generator=torch.Generator().manual_seed(1)).double())
    noise = [torch.zeros(1, 1, 4 << k, 4 << k) for k in range(2)]
    ours = G.synthesis(G.broadcast(w.float()), Stage(8, 1.0), None)
    theirs = its_image(state, w, [each.double() for each in noise], 1)
    assert (ours - theirs).abs().max() < 1e-4


def test_the_mean_style_is_the_mean_of_many(its_file):
    z = torch.randn(4000, CODE, generator=torch.Generator().manual_seed(5)).double()
    expected = its_w(its_state(2), z).mean(0)
    assert (open_g(its_file).w_avg - expected).abs().max() < 0.05


def test_such_files_open_in_generate(its_file, tmp_path):
    generate.main([str(its_file), "--seeds", "0-3", "--out", str(tmp_path)])
    assert (tmp_path / "sample.png").exists()
    assert (tmp_path / "mix_middle.png").exists()


@pytest.mark.parametrize(
    "missing", ["style.1.linear.weight_orig", "generator.progression.1.conv1.1.conv.bias"]
)
def test_half_a_generator_is_refused_in_one_line(tmp_path, missing):
    state = its_state(2)
    del state[missing]
    path = save(tmp_path / "its.model", "bare", state)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load(path)


def test_hostile_files_of_the_old_format_are_refused(tmp_path):
    path = save(tmp_path / "its.model", "old", its_state(1))
    whole = path.read_bytes()
    for content in (whole[:200], whole[: len(whole) // 2], checkpoint.LEGACY + b"junk"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            checkpoint.load(path)
    torch.save(print, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)
    shapes = its_state(1) | {"generator.progression.1.conv2.conv.weight_orig": torch.zeros(3, 3)}
    with pytest.raises(CheckpointError):
        load_generator(save(path, "bare", shapes), CPU)
    assert rosinality.find_state([1]) is None
    assert rosinality.find_state({"g_running": 3}) is None
