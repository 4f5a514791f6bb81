"""The networks against identities of the papers and oracles written the plain way."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.images import shrink, upsample
from critic import Discriminator, with_minibatch_std
from model import (
    RGB_START,
    Conv,
    Dense,
    DownConv,
    Generator,
    Mapping,
    ModelConfig,
    Stage,
    UpConv,
    update_ema,
)
from ops.adain import activate
from ops.conv import blur

CONFIG = ModelConfig(32, 0.03, z_dim=32, w_dim=32, mapping_layers=3)
FULL = Stage(32, 1.0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def G() -> Generator:
    """A generator whose noise counts, unlike that of a new one."""
    G = Generator(CONFIG).requires_grad_(False)
    for layer in G.synthesis.layers:
        layer.noise_strength.normal_(0, 0.3 / layer.noise_scale)
    G.w_avg.normal_()
    return G


@pytest.fixture
def ws(G: Generator) -> Tensor:
    return G.broadcast(G.mapping(torch.randn(4, CONFIG.z_dim)))


@pytest.fixture
def noise(G: Generator) -> list[Tensor]:
    return G.draw_noise(4, 32, torch.Generator().manual_seed(1))


# Initialisation


def layers_with_gain(wide: ModelConfig) -> list[tuple[str, nn.Module, float]]:
    """Every layer with a weight, and the gain of what follows it by the papers' drawings."""
    found = []
    for network in (Generator(wide), Discriminator(wide)):
        for name, layer in network.named_modules():
            if isinstance(layer, Dense | Conv):
                is_linear = "to_rgb" in name or "style" in name or name == "logit"
                kind = "linear" if is_linear else "leaky_relu"
                found.append((name, layer, nn.init.calculate_gain(kind, 0.2)))
    return found


def test_the_weights_of_every_layer_start_with_the_variance_of_xavier():
    layers = layers_with_gain(ModelConfig.of(16, 0.06, w_dim=64, layers=8))
    assert len(layers) == 8 + 6 + 5 + 3 + 3 + 4 + 3  # mapping, style, G, ToRGB, FromRGB, D
    standardised = []
    for name, layer, gain in layers:
        effective = layer.effective_weight().detach()
        xavier = nn.init.xavier_normal_(torch.empty(effective.shape), gain)
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(effective)
        std = gain * math.sqrt(2 / (fan_in + fan_out))
        lr_mul = getattr(layer, "lr_mul", 1.0)
        assert layer.scale / lr_mul == pytest.approx(std, rel=1e-9), name
        effective = effective / (RGB_START if "to_rgb" in name else 1)
        tolerance = 5 / math.sqrt(effective.numel())  # five standard deviations of the ratio
        assert effective.std() / xavier.std() == pytest.approx(1, abs=tolerance), name
        assert effective.mean().abs() < 5 * std / math.sqrt(effective.numel()), name
        standardised.append(effective.flatten() / std)
    everything = torch.cat(standardised)
    assert everything.square().mean().item() == pytest.approx(1, abs=7 / everything.numel() ** 0.5)


def test_biases_and_noise_start_at_zero_and_the_constant_with_many_shapes():
    G, D = Generator(CONFIG), Discriminator(CONFIG)
    for name, parameter in [*G.named_parameters(), *D.named_parameters()]:
        if name.endswith(("bias", "noise_strength")):
            assert not parameter.any(), name
    shapes = G.synthesis.const.detach()[0].flatten(1)
    assert torch.linalg.matrix_rank(shapes) == min(shapes.shape)
    assert shapes.std().item() == pytest.approx(1, rel=0.2)


def test_noise_changes_nothing_at_first():
    G = Generator(CONFIG).requires_grad_(False)
    ws = G.broadcast(G.mapping(torch.randn(4, CONFIG.z_dim)))
    noise = G.draw_noise(4, 32, torch.Generator().manual_seed(1))
    assert torch.equal(G.synthesis(ws, FULL, noise), G.synthesis(ws, FULL))


def test_activations_keep_their_size_through_the_depth():
    x = torch.randn(64, 1024)
    mapping = Mapping(ModelConfig(4, 1, z_dim=1024, w_dim=1024, mapping_layers=8))
    for layer in mapping.layers:
        x = activate(layer(x))
        assert x.square().mean().item() == pytest.approx(1, abs=0.4)


@pytest.mark.parametrize("channels", [(32, 32), (16, 48), (48, 16)])
def test_activations_and_gradients_of_a_convolution_balance_around_one(channels):
    c_in, c_out = channels
    x = torch.randn(16, c_in, 24, 24, requires_grad=True)
    y = activate(Conv(c_in, c_out)(x))[..., 2:-2, 2:-2]
    forward = y.square().mean().item()
    (gradient,) = torch.autograd.grad(y, x, torch.randn_like(y))
    backward = gradient[..., 4:-4, 4:-4].square().mean().item()
    assert forward == pytest.approx(2 * c_in / (c_in + c_out), rel=0.15)
    assert (forward + backward) / 2 == pytest.approx(1, rel=0.15)  # what Xavier is for


def test_every_layer_of_a_new_generator_puts_out_maps_of_like_size():
    G = Generator(ModelConfig.of(64, 0.06, 512, 8)).requires_grad_(False)
    sizes: list[float] = []
    for layer in G.synthesis.layers:
        layer.register_forward_hook(lambda _, __, y: sizes.append(y.square().mean().item()))
    G.synthesis(G.broadcast(G.mapping(torch.randn(16, 512))), Stage(64, 1.0))
    assert len(sizes) == 10
    # The first normalises a constant and has its shift alone, every other a scale as well.
    assert max(sizes[1:]) / min(sizes[1:]) < 2
    assert 0.3 < sizes[0] / sizes[1] < 3


def relative_step(layer: nn.Module, before: Tensor) -> float:
    after = layer.effective_weight().detach()
    return ((after - before).abs().median() / before.std()).item()


def test_the_mapping_network_learns_a_hundred_times_slower():
    mapping = Mapping(CONFIG).double()
    others = [Dense(32, 24).double(), Conv(24, 16).double()]
    layers = [*mapping.layers, *others]
    before = [layer.effective_weight().detach() for layer in layers]
    optimizer = torch.optim.Adam([p for m in (mapping, *others) for p in m.parameters()], lr=0.001)
    w = mapping(torch.randn(8, CONFIG.z_dim, dtype=torch.float64))
    loss = others[1](others[0](w)[:, :, None, None].expand(-1, -1, 4, 4)).square().sum()
    (1e6 * loss).backward()
    optimizer.step()
    steps = [relative_step(layer, old) for layer, old in zip(layers, before, strict=True)]
    for step in steps[:-2]:
        assert step == pytest.approx(1e-5, rel=0.1)
    for step in steps[-2:]:
        assert step == pytest.approx(1e-3, rel=0.1)
    for layer in mapping.layers:
        shift = layer(torch.zeros(1, CONFIG.w_dim, dtype=torch.float64))
        assert shift.abs().max().item() == pytest.approx(1e-5, rel=0.01)


def test_channels_are_those_of_the_official_networks():
    config = ModelConfig.of(1024, 1)
    table = [config.channels(r) for r in config.resolutions]
    assert table == [512, 512, 512, 512, 256, 128, 64, 32, 16]
    assert [ModelConfig.of(64, 0.25).channels(r) for r in (4, 32, 64)] == [128, 128, 64]
    assert ModelConfig.of(64, 0.001).channels(64) == 1
    assert [ModelConfig.of(64, width).w_dim for width in (1, 0.125, 0.001)] == [512, 64, 1]
    assert ModelConfig.of(64, 0.25, 512, 8) == ModelConfig(64, 0.25, 512, 512, 8)
    assert [ModelConfig.of(r, 1).num_ws for r in (4, 8, 64, 1024)] == [2, 4, 10, 18]


# Convolutions


def plain_blur(x: Tensor) -> Tensor:
    taps = torch.tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=x.dtype) / 16
    n, c, h, w = x.shape
    return F.conv2d(x.reshape(n * c, 1, h, w), taps[None, None], padding=1).reshape(x.shape)


def plain_up(layer: UpConv, x: Tensor) -> Tensor:
    large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    y = plain_blur(F.conv2d(large, layer.effective_weight(), padding=1))
    return y + layer.bias[:, None, None]


def plain_down(layer: DownConv, x: Tensor) -> Tensor:
    y = F.conv2d(plain_blur(x), layer.effective_weight(), layer.bias, padding=1)
    return shrink(y, y.shape[-1] // 2)


@pytest.mark.parametrize(("kind", "plain"), [(UpConv, plain_up), (DownConv, plain_down)])
@pytest.mark.parametrize("size", [4, 8, 10])
def test_fused_convolutions_equal_the_plain_form_in_values_and_gradients(kind, plain, size):
    layer = kind(5, 3).double()
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, size, size, dtype=torch.float64, requires_grad=True)
    fused, expected = layer(x), plain(layer, x)
    torch.testing.assert_close(fused, expected)
    assert fused.shape[-1] == (2 * size if kind is UpConv else size // 2)
    direction = torch.randn_like(expected)
    sources = [x, layer.weight, layer.bias]
    gradients = torch.autograd.grad(fused, sources, direction)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, sources, direction))


def test_the_blur_is_the_binomial_filter_on_each_map_alone():
    x = torch.zeros(1, 2, 5, 5)
    x[0, 0, 2, 2] = 16
    expected = torch.zeros(1, 2, 5, 5)
    expected[0, 0, 1:4, 1:4] = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
    torch.testing.assert_close(blur(x), expected)
    x = torch.randn(2, 3, 7, 6)
    torch.testing.assert_close(blur(x), plain_blur(x))


def test_the_blur_keeps_constants_inside_and_adds_its_bias():
    bias = torch.tensor([1.0, -2.0])
    y = blur(torch.full((1, 2, 6, 6), 3.0), bias)
    torch.testing.assert_close(
        y[0, :, 1:-1, 1:-1], torch.tensor([4.0, 1.0]).view(2, 1, 1) + 0 * y[0, :, 1:-1, 1:-1]
    )


# Styles


def test_only_the_direction_of_z_counts():
    mapping, z = Mapping(CONFIG), torch.randn(8, CONFIG.z_dim)
    torch.testing.assert_close(mapping(z * 7), mapping(z))
    assert not torch.allclose(mapping(-z), mapping(z))


def test_mixing_at_0_gives_b_and_at_the_last_layer_a(G):
    a, b = torch.randn(2, 4, CONFIG.num_ws, CONFIG.w_dim)
    assert torch.equal(G.mix(a, b, 0), b)
    assert torch.equal(G.mix(a, b, CONFIG.num_ws), a)
    for cutoff in range(CONFIG.num_ws):
        mixed = G.mix(a, b, cutoff)
        assert torch.equal(mixed[:, :cutoff], a[:, :cutoff])
        assert torch.equal(mixed[:, cutoff:], b[:, cutoff:])


def test_each_image_may_be_mixed_at_a_layer_of_its_own(G):
    a, b = torch.randn(2, 4, CONFIG.num_ws, CONFIG.w_dim)
    cutoffs = [0, 3, 5, CONFIG.num_ws]
    mixed = G.mix(a, b, torch.tensor(cutoffs))
    for image, cutoff in enumerate(cutoffs):
        assert torch.equal(mixed[image], G.mix(a, b, cutoff)[image])


def test_psi_0_with_fixed_noise_gives_one_image_for_all_z(G, ws, noise):
    one = [n[:1].expand_as(n) for n in noise]
    images = G.synthesis(G.truncate(ws, 0.0), FULL, one)
    torch.testing.assert_close(images, images[:1].expand_as(images), rtol=1e-5, atol=1e-5)
    spread = G.synthesis(G.truncate(ws, 0.5), FULL, one)
    assert (spread - spread[:1]).abs().max() > 0.1


def test_psi_1_leaves_the_styles_and_others_lie_on_the_line(G, ws):
    assert torch.equal(G.truncate(ws, 1.0), ws)
    assert torch.equal(G.truncate(ws, 0.0), G.w_avg.expand_as(ws))
    torch.testing.assert_close(G.truncate(ws, 0.7), 0.3 * G.w_avg + 0.7 * ws)
    torch.testing.assert_close(G.truncate(ws, -1.0), 2 * G.w_avg - ws)


def test_w_avg_moves_to_the_mean_of_w_with_the_papers_decay(G):
    before, w_mean = G.w_avg.clone(), torch.randn(CONFIG.w_dim)
    G.track_w_avg(w_mean)
    torch.testing.assert_close(G.w_avg, 0.995 * before + 0.005 * w_mean)
    for _ in range(3000):
        G.track_w_avg(w_mean)
    torch.testing.assert_close(G.w_avg, w_mean, rtol=1e-4, atol=1e-4)


def test_every_layer_listens_to_its_own_style_and_its_own_noise(G, ws, noise):
    image = G.synthesis(ws, FULL, noise)
    for layer in range(CONFIG.num_ws):
        other = ws.clone()
        other[:, layer] = torch.randn(CONFIG.w_dim)
        assert not torch.allclose(G.synthesis(other, FULL, noise), image, atol=1e-3), layer
        quiet = [0 * n if i == layer else n for i, n in enumerate(noise)]
        assert not torch.allclose(G.synthesis(ws, FULL, quiet), image, atol=1e-3), layer


def test_noise_is_drawn_for_each_layer_in_use_and_follows_from_its_source(G):
    def draw(seed: int) -> list[Tensor]:
        return G.draw_noise(2, 16, torch.Generator().manual_seed(seed))

    assert [tuple(n.shape) for n in draw(0)] == [(2, 1, r, r) for r in (4, 4, 8, 8, 16, 16)]
    assert all(map(torch.equal, draw(0), draw(0)))
    assert not any(map(torch.equal, draw(0), draw(1)))
    assert not torch.equal(draw(0)[0], draw(0)[1])


def test_an_image_does_not_depend_on_its_company(G, ws, noise):
    together = G.synthesis(ws, Stage(16, 0.5), noise)
    alone = G.synthesis(ws[2:3], Stage(16, 0.5), [n[2:3] for n in noise])
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-4)


# Growth


@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_a_new_resolution_enters_g_without_a_jump(G, ws, noise, resolution):
    before = G.synthesis(ws, Stage(resolution // 2, 1.0), noise)
    torch.testing.assert_close(G.synthesis(ws, Stage(resolution, 0.0), noise), upsample(before))


@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_a_fade_of_g_ends_without_a_jump_and_runs_straight(G, ws, noise, resolution):
    first, half, end = (G.synthesis(ws, Stage(resolution, a), noise) for a in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, (first + end) / 2)
    nearly = G.synthesis(ws, Stage(resolution, 1 - 1e-6), noise)
    torch.testing.assert_close(nearly, end, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(first, end, atol=0.1)


@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_a_new_resolution_enters_d_without_a_jump(resolution):
    D = Discriminator(CONFIG).requires_grad_(False)
    images = torch.randn(4, 3, resolution, resolution)
    half = resolution // 2
    before = D(shrink(images, half), Stage(half, 1.0))
    torch.testing.assert_close(D(images, Stage(resolution, 0.0)), before, rtol=1e-4, atol=1e-5)
    end = D(images, Stage(resolution, 1.0))
    nearly = D(images, Stage(resolution, 1 - 1e-6))
    torch.testing.assert_close(nearly, end, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(before, end, rtol=1e-2)


@pytest.mark.parametrize("stage", [Stage(4, 1.0), Stage(8, 0.5), Stage(16, 1.0), Stage(32, 0.5)])
def test_a_stage_trains_all_its_layers_and_no_others(stage):
    G, D = Generator(CONFIG), Discriminator(CONFIG)
    noise = G.draw_noise(4, stage.resolution, torch.Generator().manual_seed(1))
    ws = G.broadcast(G.mapping(torch.randn(4, CONFIG.z_dim)))
    images = G.synthesis(ws, stage, noise)
    assert images.shape == (4, 3, stage.resolution, stage.resolution)
    D(images, stage).sum().backward()
    rgb = {stage.resolution} | ({stage.resolution // 2} if stage.alpha < 1 else set())
    depth = 2 * stage.resolution.bit_length() - 4
    for name, parameter in [*G.named_parameters(), *D.named_parameters()]:
        kind, number = [*name.split("."), "", ""][:2]
        if name.startswith("synthesis"):
            kind, number = name.split(".")[1:3] if name != "synthesis.const" else ("const", "")
        in_use = {
            "to_rgb": lambda n: int(n) in rgb,
            "from_rgb": lambda n: int(n) in rgb,
            "layers": lambda n: int(n) < depth,
            "blocks": lambda n: int(n) <= stage.resolution,
        }.get(kind, lambda _: True)(number)
        in_use = in_use or name.startswith("mapping")
        assert (parameter.grad is not None) == in_use, name
        assert parameter.grad is None or parameter.grad.any() or name == "synthesis.const", name


# Discriminator


def plain_minibatch_std(x: Tensor) -> Tensor:
    """Groups are (at most) four neighbours; one number for each group."""
    n = len(x)
    size = max(s for s in (1, 2, 4) if n % s == 0)
    extra = torch.empty(n, 1, *x.shape[2:], dtype=x.dtype)
    for first in range(0, n, size):
        members = list(range(first, first + size))
        total, count = 0.0, 0
        for values in x[members].flatten(1).T.tolist():  # one pixel of one map, over the group
            mean = sum(values) / size
            total += math.sqrt(sum((v - mean) ** 2 for v in values) / size + 1e-8)
            count += 1
        extra[members] = total / count
    return torch.cat([x, extra], dim=1)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 8, 12, 16])
def test_the_minibatch_deviation_is_that_of_loops_over_groups(n):
    x = torch.randn(n, 3, 4, 4) * torch.arange(1.0, n + 1).view(-1, 1, 1, 1)
    torch.testing.assert_close(with_minibatch_std(x, n), plain_minibatch_std(x))


def test_the_minibatch_deviation_of_equal_images_is_nothing():
    x = torch.randn(1, 3, 4, 4).expand(4, -1, -1, -1)
    assert with_minibatch_std(x, 4)[:, 3].abs().max() < 2e-4
    assert with_minibatch_std(torch.randn(4, 3, 4, 4), 4)[:, 3].min() > 0.3


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 8])
def test_no_logit_depends_on_the_other_set_of_a_batch(n):
    D = Discriminator(CONFIG).requires_grad_(False)
    with torch.no_grad():
        one, other = torch.randn(2, n, 3, 32, 32)
        both = D(torch.cat([one, other]), FULL, sets=2)
        torch.testing.assert_close(both, torch.cat([D(one, FULL), D(other, FULL)]))


def test_d_sees_whether_fakes_lack_variety():
    D = Discriminator(CONFIG).requires_grad_(False)
    image = torch.randn(1, 3, 32, 32)
    others = torch.cat([image, torch.randn(3, 3, 32, 32)])
    assert not torch.isclose(D(image.expand(4, -1, -1, -1), FULL)[0], D(others, FULL)[0])


# Precision and averaging


@pytest.mark.parametrize("stage", [Stage(4, 1.0), Stage(16, 0.5), FULL])
@pytest.mark.parametrize("is_new", [True, False])
def test_half_precision_gives_nearly_the_images_of_float32(G, ws, noise, stage, is_new):
    if is_new:
        for layer in G.synthesis.layers:
            layer.noise_strength.zero_()
    exact = G.synthesis(ws, stage, noise)
    for dtype, tolerance in ((torch.bfloat16, 0.05), (torch.float16, 0.01)):
        images = G.synthesis(ws, stage, noise, dtype)
        assert images.dtype == torch.float32
        assert ((images - exact).norm() / exact.norm()).item() < tolerance
        assert not torch.equal(images, exact)


def test_half_precision_gives_nearly_the_logits_of_float32():
    D = Discriminator(CONFIG).requires_grad_(False)
    images = torch.randn(8, 3, 32, 32)
    exact = D(images, FULL)
    for dtype in (torch.bfloat16, torch.float16):
        logits = D(images.to(dtype), FULL)
        assert logits.dtype == torch.float32
        assert (logits - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("batch", [8, 40, 500])
def test_the_average_forgets_half_in_its_half_life_whatever_the_batch(batch):
    half_life = 1000
    G, G_ema = Generator(CONFIG), Generator(CONFIG)
    with torch.no_grad():
        for old, new in zip(G_ema.parameters(), G.parameters(), strict=True):
            old.fill_(1)
            new.fill_(3)
    G.w_avg.fill_(5)
    for _ in range(half_life // batch):
        update_ema(G_ema, G, 0.5 ** (batch / half_life))
    for parameter in G_ema.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, 2))
    assert torch.equal(G_ema.w_avg, G.w_avg)
    assert not any((p - 3).any() for p in G.parameters())
