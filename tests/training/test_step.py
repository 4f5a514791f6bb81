"""Training steps: resumable bit for bit, each setting doing what it names, each network alone."""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoints import checkpoint
from checkpoints.checkpoint import CheckpointError
from common.images import fade, shrink, to_float
from dataset import ImageBank
from model import ModelConfig, Stage
from training.config import TrainConfig
from training.state import MORE_EMA, TrainState
from training.step import (
    Step,
    discriminator_step,
    ema_beta,
    generator_step,
    make_fakes,
    penalty_weight,
    prepare_reals,
    step_rng,
    train_step,
)

CPU = torch.device("cpu")
WHOLE = Stage(8, 1.0)
MODEL = ModelConfig(8, 0.03, z_dim=16, w_dim=16, mapping_layers=2)
SETTINGS = TrainConfig(
    init_size=4, max_size=8, iterations=100, batch=4, phase=8, lr=0.002, d_lr=0.003, loss="r1",
    r1_gamma=1.0, r1_every=2, mixing=0.9, ema=500, more_ema=False, augment="none", augment_p=0.3,
    freeze_d=0, mirror=True, precision="fp32", seed=3,
)  # fmt: skip
Banks = Callable[[int], ImageBank]


def changed(**settings: Any) -> TrainConfig:
    return dataclasses.replace(SETTINGS, **settings)


def new_state(config: TrainConfig = SETTINGS, model: ModelConfig = MODEL) -> TrainState:
    return TrainState(model, config, CPU)


def new_step(config: TrainConfig = SETTINGS, stage: Stage = WHOLE, n: int = 0) -> Step:
    return Step(config, stage, step_rng(config.seed, n, CPU))


def d_step(state: TrainState, step: Step, reals: Tensor) -> dict[str, Tensor]:
    return discriminator_step(state, step, reals, make_fakes(state.G, step)[0].detach())


def g_step(state: TrainState, step: Step) -> dict[str, Tensor]:
    fakes = make_fakes(state.G, step)[0]
    return generator_step(state, step, fakes, fakes.detach().flip(0))


def trained(config: TrainConfig, banks: Banks, steps: int, state: Any = None) -> TrainState:
    state = state or new_state(config)
    for _ in range(steps):
        train_step(state, config, banks(config.max_size))
    return state


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor and number under `value`, with the path to it."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from flat(value[key], f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for key, inner in enumerate(value):
            yield from flat(inner, f"{name}.{key}")
    else:
        yield name, value


def assert_same(a: Any, b: Any) -> None:
    ours, theirs = dict(flat(a)), dict(flat(b))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        other = theirs[name]
        is_tensor = isinstance(value, Tensor)
        assert torch.equal(value, other) if is_tensor else value == other, name


def weights(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def gradients(network: torch.nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


# Resuming


@pytest.mark.parametrize(
    ("loss", "precision", "augment"),
    [
        ("r1", "fp32", "none"),
        ("wgan-gp", "fp32", "ada"),
        ("rpgan", "bf16", "fixed"),
        ("r1", "bf16", "ada"),
        ("r1", "fp16", "none"),
    ],
)
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_equals_one_that_never_stopped(
    tiny_bank, tmp_path, monkeypatch, loss, precision, augment, stop
):
    """Four steps, the first two at 4 px and the others fading in 8 px; bit for bit."""
    monkeypatch.setattr("training.augment.WINDOW", 4)  # p moves at every step
    monkeypatch.setattr("training.augment.TARGET", -1.1)
    config = changed(loss=loss, precision=precision, augment=augment, more_ema=stop == 2)
    whole = trained(config, tiny_bank, 4)
    first = trained(config, tiny_bank, stop)
    checkpoint.save(tmp_path / "latest.pt", first.model, first.entries())
    torch.manual_seed(99)
    second = new_state(dataclasses.replace(config, seed=12345))  # what it draws is all replaced
    second.restore(checkpoint.load(tmp_path / "latest.pt"))
    assert_same(second.entries(), first.entries())
    trained(config, tiny_bank, 4 - stop, second)
    assert (whole.iteration, whole.nimg) == (4, 16)
    assert_same(second.entries(), whole.entries())


def test_a_step_reads_no_random_numbers_but_its_own(tiny_bank):
    states = []
    for seed in (1, 2):
        state = new_state()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        trained(SETTINGS, tiny_bank, 3, state)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(state)
    assert_same(states[0].entries(), states[1].entries())


def test_the_whole_state_is_in_its_entries(tiny_bank):
    state = trained(SETTINGS, tiny_bank, 1)
    assert state.entries().keys() == {*state.parts, "iteration", "nimg"}
    assert set(vars(state)) - state.entries().keys() == {"device", "frozen", "model", "more_ema"}


def test_step_random_numbers_follow_from_the_seed_and_the_iteration_alone():
    def draw(seed: int, iteration: int) -> tuple[float, ...]:
        return tuple(torch.randn(8, generator=step_rng(seed, iteration, CPU)).tolist())

    pairs = [(seed, n) for seed in (0, 1, 2**63 - 1) for n in (0, 1, 2, 10**6)]
    assert len({draw(*pair) for pair in pairs}) == len(pairs)
    assert draw(1, 2) != draw(2, 1)
    assert all(draw(*pair) == draw(*pair) for pair in pairs)


# Settings

OTHERS = {
    "init_size": 8, "max_size": 4, "iterations": 7, "batch": 8, "phase": 100, "lr": 0.001,
    "d_lr": 0.001, "loss": "wgan-gp", "r1_gamma": 0.1, "r1_every": 4, "mixing": 0.0, "ema": 0,
    "more_ema": True, "augment": "fixed", "augment_p": 0.8, "freeze_d": 1, "mirror": False,
    "precision": "bf16", "seed": 4,
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TrainConfig)])
def test_every_setting_changes_what_a_run_learns(tiny_bank, name):
    base = changed(augment="fixed") if name == "augment_p" else SETTINGS
    config = dataclasses.replace(base, **{name: OTHERS[name]})
    state = new_state(config, dataclasses.replace(MODEL, resolution=config.max_size))
    ours = dict(flat(trained(config, tiny_bank, 5, state).G_ema.state_dict()))
    theirs = dict(flat(trained(base, tiny_bank, 5).G_ema.state_dict()))
    same = all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert same == (name in ("iterations", "more_ema"))  # the loop's, and what stands beside


@pytest.mark.parametrize(("lr", "d_lr"), [(0.002, 0.003), (0.0005, 0.004)])
def test_each_network_learns_at_the_rate_given_for_it(tiny_bank, lr, d_lr):
    config = changed(lr=lr, d_lr=d_lr, init_size=8)
    state = new_state(config)
    before = {"G": weights(state.G), "D": weights(state.D)}
    trained(config, tiny_bank, 1, state)
    for name, rate in (("G", lr), ("D", d_lr)):
        network = state.parts[name]
        moves = [(p - before[name][key]).abs().max() for key, p in network.named_parameters()]
        # Adam's first step is as long as the learning rate, whatever the gradient.
        assert max(moves).item() == pytest.approx(rate, rel=0.02)
        assert sorted(moves)[len(moves) // 2].item() == pytest.approx(rate, rel=0.05)


def test_the_stage_follows_the_images_shown(tiny_bank):
    config = changed(init_size=4, max_size=16, phase=4)
    state = new_state(config, dataclasses.replace(MODEL, resolution=16))
    seen: list[int] = []
    for block in [*state.D.from_rgb.values()]:
        block.register_forward_hook(lambda _, x, __: seen.append(x[0].shape[-1]))
    sizes = []
    for _ in range(6):
        seen.clear()
        train_step(state, config, tiny_bank(16))
        sizes.append(max(seen))
    assert sizes == [4, 8, 8, 16, 16, 16]
    assert (state.iteration, state.nimg) == (6, 24)


@pytest.mark.parametrize("mixing", [0.0, 1.0])
def test_mixing_is_the_share_of_images_with_two_styles(mixing):
    config = changed(mixing=mixing, batch=64, max_size=64)
    state = new_state(config, dataclasses.replace(MODEL, resolution=64))
    given: list[Tensor] = []
    state.G.synthesis.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    with torch.no_grad():
        images, w = make_fakes(state.G, new_step(config, Stage(16, 1.0)))
    assert images.shape == (64, 3, 16, 16)
    ws = given[0]
    assert torch.equal(ws[:, 0], w)
    differs = (ws[:, 1:] != ws[:, :-1]).any(dim=2)  # at which layers the style changes
    assert differs.sum(dim=1).tolist() == [int(mixing)] * 64
    borders = {row.nonzero().item() + 1 for row in differs if row.any()}
    assert borders == (set(range(1, 6)) if mixing else set())  # among the six layers in use


def test_photos_are_shown_as_they_are_without_mirroring(tiny_bank):
    photos = tiny_bank(8).batch(0, 0, 24)
    config = changed(mirror=False, batch=24)
    assert torch.equal(prepare_reals(photos, new_step(config)), to_float(photos))
    for stage in (Stage(4, 1.0), Stage(8, 0.25)):
        expected = fade(shrink(to_float(photos), stage.resolution), stage.alpha)
        assert torch.equal(prepare_reals(photos, new_step(config, stage)), expected)


def test_mirroring_turns_about_half_of_the_photos_and_nothing_else(tiny_bank):
    photos = tiny_bank(8).batch(0, 0, 24)
    plain = to_float(photos)
    turned = []
    for n in range(20):
        for image, photo in zip(
            prepare_reals(photos, new_step(changed(batch=24), n=n)), plain, strict=True
        ):
            turned.append(torch.equal(image, photo.flip(2)) and not torch.equal(image, photo))
            assert turned[-1] or torch.equal(image, photo)
    assert 0.4 < sum(turned) / len(turned) < 0.6


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_precision_is_that_of_convolutions_but_penalties_are_never_in_float16(tiny_bank, precision):
    config = changed(precision=precision, init_size=8)
    state = new_state(config)
    inner: dict[str, list[torch.dtype]] = {"G": [], "D": []}
    state.G.synthesis.layers[-1].register_forward_hook(lambda *a: inner["G"].append(a[2].dtype))
    state.D.conv.register_forward_hook(lambda *a: inner["D"].append(a[2].dtype))
    stats = train_step(state, config, tiny_bank(8))
    low, full = config.dtype, torch.float32
    assert low == {"fp32": full, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    penalty = full if precision == "fp16" else low
    assert inner == {"G": [low], "D": [low, low, penalty]}
    assert state.scaler.is_enabled() == (precision == "fp16")
    assert {value.dtype for value in stats.values()} == {full}
    assert {p.dtype for p in [*state.G.parameters(), *state.D.parameters()]} == {full}


def test_the_stats_of_a_step_are_tensors_without_a_graph(tiny_bank):
    stats = train_step(new_state(), SETTINGS, tiny_bank(8))
    assert stats.keys() == {"D_loss", "G_loss", "penalty", "real_logit", "fake_logit", "r_t"}
    assert all(value.dim() == 0 and not value.requires_grad for value in stats.values())


# The average of G


def test_the_half_life_of_the_average_is_in_images_and_grows_with_the_run():
    config = changed(batch=10, ema=1000)
    assert ema_beta(config, 10**6) ** (1000 / 10) == pytest.approx(0.5)
    assert ema_beta(config, 20_000) == ema_beta(config, 10**9)
    assert ema_beta(config, 10_000) ** (500 / 10) == pytest.approx(0.5)  # 5 % of the images
    assert ema_beta(config, 10**6, 4) ** (4000 / 10) == pytest.approx(0.5)  # --more_ema's long one
    assert ema_beta(config, 10_000, 4) ** (2000 / 10) == pytest.approx(0.5)
    betas = [ema_beta(config, nimg) for nimg in range(10, 20_000, 10)]
    assert betas == sorted(betas)
    assert ema_beta(config, 10) < 1e-5


def test_without_an_average_g_ema_is_g(tiny_bank):
    state = trained(changed(ema=0), tiny_bank, 3)
    assert_same(state.G.state_dict(), state.G_ema.state_dict())


def test_the_average_moves_by_its_share_at_each_step(tiny_bank):
    state = trained(SETTINGS, tiny_bank, 3)
    before = weights(state.G_ema)
    trained(SETTINGS, tiny_bank, 1, state)
    beta = ema_beta(SETTINGS, state.nimg)
    assert 0.001 < beta < 0.999
    for name, parameter in state.G.named_parameters():
        expected = beta * before[name] + (1 - beta) * parameter
        torch.testing.assert_close(dict(state.G_ema.named_parameters())[name], expected)
    assert torch.equal(state.G_ema.w_avg, state.G.w_avg)
    assert not any(p.requires_grad for p in state.G_ema.parameters())


def test_further_averages_are_those_of_runs_with_shorter_and_longer_ones(tiny_bank):
    config = changed(more_ema=True)
    state = trained(config, tiny_bank, 3)
    before = {name: weights(average) for name, average in state.more_ema.items()}
    trained(config, tiny_bank, 1, state)
    betas = {name: ema_beta(config, state.nimg, times) for name, times in MORE_EMA.items()}
    assert betas["G_ema_short"] < ema_beta(config, state.nimg) < betas["G_ema_long"] < 1
    for name, average in state.more_ema.items():
        for key, parameter in average.named_parameters():
            expected = torch.lerp(state.G.get_parameter(key), before[name][key], betas[name])
            torch.testing.assert_close(parameter, expected)
        assert torch.equal(average.w_avg, state.G.w_avg)


# Penalties


@pytest.mark.parametrize("every", [1, 3])
def test_r1_is_due_every_so_many_iterations_and_as_many_times_stronger(tiny_bank, every):
    config = changed(r1_every=every, r1_gamma=0.8)
    state = new_state(config)
    has_penalty = ["penalty" in train_step(state, config, tiny_bank(8)) for _ in range(7)]
    assert has_penalty == [n % every == 0 for n in range(7)]
    for n, is_due in enumerate(has_penalty):
        assert penalty_weight(config, n) == pytest.approx(0.4 * every if is_due else 0)


def test_the_wasserstein_penalty_is_due_always_and_r1_never_without_gamma():
    for n in range(5):
        assert penalty_weight(changed(loss="wgan-gp"), n) == 10
        assert penalty_weight(changed(r1_gamma=0.0), n) == 0


def d_gradients(gamma: float, reals: Tensor) -> list[Tensor]:
    config = changed(r1_gamma=gamma, r1_every=5)
    state = new_state(config)
    d_step(state, new_step(config), reals)
    return gradients(state.D)


def test_r1_enters_the_gradient_of_d_with_its_weight(tiny_bank):
    reals = to_float(tiny_bank(8).batch(0, 0, 4))
    D = new_state().D
    x = reals.clone().requires_grad_()
    (slope,) = torch.autograd.grad(D(x, WHOLE).sum(), x, create_graph=True)
    penalty = slope.square().sum() / len(x)
    used = [p for name, p in D.named_parameters() if not name.startswith("from_rgb.4")]
    expected = torch.autograd.grad(0.8 / 2 * 5 * penalty, used, allow_unused=True)
    for with_it, without, own in zip(
        d_gradients(0.8, reals), d_gradients(0.0, reals), expected, strict=True
    ):
        own = torch.zeros_like(without) if own is None else own
        torch.testing.assert_close(with_it - without, own, rtol=1e-3, atol=1e-5)


# Two networks


def test_each_step_moves_its_own_network_alone(tiny_bank):
    state = trained(SETTINGS, tiny_bank, 1)
    reals = to_float(tiny_bank(8).batch(0, 0, 4))
    before = copy.deepcopy(state.entries())
    old = gradients(state.G)
    d_step(state, new_step(), reals)
    assert_same(gradients(state.G), old)
    between = copy.deepcopy(state.entries())
    for name in ("G", "G_ema", "opt_G"):
        assert_same(before[name], between[name])
    assert not torch.equal(before["D"]["conv.weight"], between["D"]["conv.weight"])
    old = gradients(state.D)
    g_step(state, new_step())
    after = state.entries()
    for name in ("D", "opt_D", "G_ema"):
        assert_same(between[name], after[name])
    assert not torch.equal(before["G"]["synthesis.const"], after["G"]["synthesis.const"])
    assert_same(gradients(state.D), old)
    assert all(p.requires_grad for p in [*state.G.parameters(), *state.D.parameters()])


def test_g_learns_from_a_d_that_has_not_yet_seen_its_fakes(tiny_bank):
    after = {}
    for d_lr in (1e-6, 0.05):
        state = new_state(changed(d_lr=d_lr, init_size=8))
        train_step(state, changed(d_lr=d_lr, init_size=8), tiny_bank(8))
        after[d_lr] = state.entries()
    assert_same(after[1e-6]["G"], after[0.05]["G"])
    assert not torch.equal(after[1e-6]["D"]["conv.weight"], after[0.05]["D"]["conv.weight"])


@pytest.mark.parametrize("loss", ["r1", "wgan-gp", "rpgan"])
def test_d_learns_to_tell_plain_photos_from_fakes(red_bank, loss):
    config = changed(loss=loss, init_size=8, d_lr=0.003)
    state = new_state(config)
    for n in range(25):
        reals = prepare_reals(red_bank.batch(0, n, 4), new_step(config, n=n))
        stats = d_step(state, new_step(config, n=n), reals)
        state.iteration += 1
    assert stats["real_logit"] > stats["fake_logit"] + 1
    assert stats["D_loss"] < 0.7


def test_g_learns_to_please_a_d_that_stands_still(red_bank):
    config = changed(init_size=8, lr=0.005)
    state = new_state(config)
    for n in range(10):
        d_step(state, new_step(config, n=n), to_float(red_bank.batch(0, n, 4)))
    losses = [g_step(state, new_step(config, n=n))["G_loss"].item() for n in range(25)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


# What D sees


def seen_by(state: TrainState) -> list[Tensor]:
    """Collect what D is shown from now on."""
    seen: list[Tensor] = []
    state.D.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    return seen


@pytest.mark.parametrize("loss", ["r1", "rpgan"])
def test_d_is_shown_reals_and_fakes_augmented_by_other_numbers_at_each_of_its_steps(
    tiny_bank, loss
):
    config = changed(augment="fixed", augment_p=0.8, batch=24, loss=loss)
    state, step = new_state(config), new_step(config)
    reals = to_float(tiny_bank(8).batch(0, 0, 24))
    seen = seen_by(state)
    discriminator_step(state, step, reals, reals)
    generator_step(state, step, reals.clone().requires_grad_(), reals)
    shown = [lot for batch in seen for lot in batch.split(24)]
    assert len(shown) == (3 if loss == "r1" else 4)
    for index, lot in enumerate(shown):
        alike = [(a - b).abs().max() < 1e-6 for a, b in zip(lot, reals, strict=True)]
        assert sum(alike) < 4  # all six changes are left out once in 15,625
        for other in shown[:index]:
            assert not any(torch.equal(a, b) for a, b in zip(lot, other, strict=True))


def test_r1_is_taken_at_what_d_sees(tiny_bank):
    config = changed(augment="fixed", augment_p=0.8)
    state, step = new_state(config), new_step(config)
    seen = seen_by(state)
    at: list[Tensor] = []
    forward = state.D.forward
    state.D.forward = lambda x, *a, **b: (at.append(x), forward(x, *a, **b))[1]
    d_step(state, step, to_float(tiny_bank(8).batch(0, 0, 4)))
    assert torch.equal(at[-1], seen[0][:4])


def test_g_learns_through_the_augmentation(tiny_bank):
    config = changed(augment="fixed", augment_p=0.8)
    state, step = new_state(config), new_step(config)
    fakes = to_float(tiny_bank(8).batch(0, 0, 4)).requires_grad_()
    generator_step(state, step, fakes, fakes.detach())
    plain = to_float(tiny_bank(8).batch(0, 0, 4)).requires_grad_()
    state.D(plain, WHOLE).neg().exp().log1p().mean().backward()
    assert fakes.grad is not None
    assert (fakes.grad.flatten(1).norm(dim=1) > 0).all()
    assert not torch.allclose(fakes.grad, plain.grad)


def test_p_rises_in_a_run_whose_d_is_sure_and_is_logged_with_r_t(red_bank, monkeypatch):
    monkeypatch.setattr("training.augment.WINDOW", 8)
    config = changed(augment="ada", init_size=8, d_lr=0.003, batch=8, lr=1e-6)
    state = new_state(config)
    state.ada.images = 200
    figures = [train_step(state, config, red_bank) for _ in range(30)]
    p = [stats["p"].item() for stats in figures]
    assert p[0] <= 8 / 200
    assert max(p) == pytest.approx(0.8)
    moves = [b - a for a, b in itertools.pairwise(p)]
    for move, stats, before in zip(moves, figures[1:], p, strict=False):
        up = stats["r_t"] > 0.6
        bound = before == pytest.approx(0.8) if up else before == 0
        assert bound or move == pytest.approx(0.04 if up else -0.04, abs=1e-6)


@pytest.mark.parametrize(("augment", "p"), [("none", 0.0), ("fixed", 0.3)])
def test_p_stays_where_nothing_adapts_it(tiny_bank, augment, p):
    state = trained(changed(augment=augment, r1_gamma=0.0), tiny_bank, 3)
    assert state.ada.p.item() == pytest.approx(p)
    assert state.ada.seen == 0


@pytest.mark.parametrize("n", [0, 1])
def test_frozen_resolutions_of_d_stay_as_they_are_and_others_learn(tiny_bank, n):
    old = trained(SETTINGS, tiny_bank, 4)
    config = changed(freeze_d=n, init_size=8)
    state = new_state(config)
    state.start_from(old.entries())
    trained(config, tiny_bank, 3, state)
    before = old.entries()["D"]
    frozen = {name for name, p in state.D.named_parameters() if torch.equal(p, before[name])}
    largest = {name for name in before if ".8." in name}
    assert len(largest) == 6
    assert frozen == (largest if n else set()) | {"from_rgb.4.weight", "from_rgb.4.bias"}
    assert {name for name, p in state.D.named_parameters() if not p.requires_grad} == state.frozen


def test_a_d_that_never_learned_is_not_frozen(tiny_bank):
    old = trained(SETTINGS, tiny_bank, 1).entries()
    state = new_state(changed(freeze_d=1))
    smaller = {name: value for name, value in old["D"].items() if ".8." not in name}
    for entries in ({"G_ema": old["G_ema"]}, {**old, "D": smaller}):
        with pytest.raises(CheckpointError, match=r"no D\.\S+ in it; .*--freeze_d"):
            state.start_from(entries)


# Starting from another run


def test_a_run_starts_from_a_smaller_one_with_the_layers_both_have(tiny_bank):
    small = trained(changed(max_size=8), tiny_bank, 3)
    model = dataclasses.replace(MODEL, resolution=16)
    large, untouched = (new_state(changed(max_size=16, seed=8), model) for _ in range(2))
    assert large.start_from(small.entries()) == []
    for name in ("G", "G_ema", "D"):
        own, old = large.parts[name].state_dict(), small.parts[name].state_dict()
        new = untouched.parts[name].state_dict()
        assert own.keys() > old.keys()
        for key, value in own.items():
            assert torch.equal(value, old[key] if key in old else new[key]), (name, key)
    assert (large.iteration, large.nimg) == (0, 0)
    trained(changed(max_size=16, init_size=16), tiny_bank, 1, large)


def test_a_run_starts_from_a_larger_one_with_the_layers_it_needs(tiny_bank):
    model = dataclasses.replace(MODEL, resolution=16)
    large = trained(changed(max_size=16), tiny_bank, 2, new_state(changed(max_size=16), model))
    small = new_state(changed(seed=8))
    small.start_from(large.entries())
    for key, value in small.G.state_dict().items():
        assert torch.equal(value, large.G.state_dict()[key])


def test_a_run_starts_from_a_snapshot_and_reports_that_d_is_new(tiny_bank):
    old = trained(SETTINGS, tiny_bank, 3)
    state, untouched = new_state(changed(seed=8)), new_state(changed(seed=8))
    assert state.start_from({"G_ema": old.entries()["G_ema"]}) == ["D"]
    assert_same(state.G.state_dict(), old.G_ema.state_dict())
    assert_same(state.G_ema.state_dict(), old.G_ema.state_dict())
    assert_same(state.D.state_dict(), untouched.D.state_dict())


def test_a_new_state_follows_from_the_seed_and_starts_with_g_as_its_average(tmp_path):
    first, again, other = new_state(), new_state(), new_state(changed(seed=4))
    assert_same(first.entries(), again.entries())
    assert not torch.equal(first.D.conv.weight, other.D.conv.weight)
    assert_same(first.G.state_dict(), first.G_ema.state_dict())
