"""One training step: G's update, D's update and the averages.

All randomness in a step comes from (seed, iteration), so a resumed run equals an uninterrupted one
bit for bit.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.images import fade, shrink, to_float
from critic import Critic
from dataset import ImageBank
from model import Generator, Stage, update_ema
from training import distributed
from training.augment import augment, draw
from training.config import TrainConfig
from training.losses import LOSSES
from training.state import MORE_EMA, TrainState

EMA_RAMP = 0.05  # the half-life is at most this share of the images seen (Karras et al. 2020, ADA)

Stats = dict[str, Tensor]


def step_rng(seed: int, iteration: int, device: torch.device) -> torch.Generator:
    """Return the random generator of one iteration, independent of all others."""
    (state,) = np.random.SeedSequence([seed, iteration]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state >> 1))


class Step(NamedTuple):
    """What one iteration depends on; `rows` are those of the batch that this process computes."""

    config: TrainConfig
    stage: Stage
    rng: torch.Generator
    rows: slice = slice(None)


def train_step(state: TrainState, config: TrainConfig, bank: ImageBank) -> Stats:
    """Update G, D and G_ema, advance the clock, and return detached stats.

    Both updates use the same fakes, which saves a forward pass of G. G goes first: a D that has
    just learned from these fakes would teach G how they were caught, not what faces look like.
    """
    rng = step_rng(config.seed, state.iteration, state.device)
    step = Step(config, config.growth.at(state.nimg), rng, distributed.rows(config.batch))
    photos = bank.batch(config.seed, state.iteration, config.batch, step.rows)
    reals = prepare_reals(photos, step)
    fakes, w = make_fakes(state.G, step)
    stats = generator_step(state, step, fakes, reals)
    stats |= discriminator_step(state, step, reals, fakes.detach())
    w_mean = w.detach().mean(dim=0)
    distributed.average([w_mean, *stats.values()])
    state.G.track_w_avg(w_mean)
    if config.augment == "ada":
        state.ada.observe(stats["r_t"], config.batch)
    if config.augment != "none":
        stats["p"] = state.ada.p
    state.scaler.update()
    state.iteration += 1
    state.nimg += config.batch
    update_ema(state.G_ema, state.G, ema_beta(config, state.nimg))
    for name, average in state.more_ema.items():
        update_ema(average, state.G, ema_beta(config, state.nimg, MORE_EMA[name]))
    return stats


def prepare_reals(photos: Tensor, step: Step) -> Tensor:
    """Return uint8 photos [N, 3, R, R] in [-1, 1] at the stage, faded, half of them mirrored."""
    config, stage, rng, rows = step
    images = shrink(to_float(photos), stage.resolution)
    if config.mirror:
        flip = torch.rand(config.batch, 1, 1, 1, generator=rng, device=rng.device) < 0.5
        images = torch.where(flip[rows], images.flip(3), images)
    return fade(images, stage.alpha)


def make_fakes(G: Generator, step: Step) -> tuple[Tensor, Tensor]:
    """Return images of new z, and their w, with style mixing of probability `mixing`.

    Each image switches to another w at a random layer (Karras et al. 2019, sec. 3.1).
    """
    config, stage, rng, rows = step
    n = config.batch
    z = torch.randn(2, n, G.config.z_dim, generator=rng, device=rng.device)
    w, w_other = G.mapping(z[:, rows].flatten(0, 1)).chunk(2)
    layers = len(G.config.layers_up_to(stage.resolution))
    cutoff = torch.randint(1, layers, (n,), generator=rng, device=rng.device)
    mixed = torch.rand(n, generator=rng, device=rng.device) < config.mixing
    cutoff = torch.where(mixed, cutoff, G.config.num_ws)
    ws = G.mix(G.broadcast(w), G.broadcast(w_other), cutoff[rows])
    noise = [each[rows] for each in G.draw_noise(n, stage.resolution, rng)]
    return G.synthesis(ws, stage, noise, config.dtype), w


def augment_for_d(state: TrainState, step: Step, *sets: Tensor) -> Tensor:
    """Return sets [N, 3, R, R] of images as D gets them: one batch, each image augmented anew."""
    images = torch.cat(sets)
    if step.config.augment == "none":
        return images
    return augment(images, draw(step.config.batch, state.ada.p, step.rng, len(sets), step.rows))


def generator_step(state: TrainState, step: Step, fakes: Tensor, reals: Tensor) -> Stats:
    """Update G through its fakes against D as it is; reals are there for losses that compare.

    Both are [N, 3, R, R].
    """
    config, stage = step.config, step.stage

    def logits_of(images: Tensor) -> Tensor:
        return state.D(augment_for_d(state, step, images).to(config.dtype), stage)

    def real_logits() -> Tensor:
        with torch.no_grad():
            return logits_of(reals)

    state.let_d_learn(False)
    loss = LOSSES[config.loss].g_loss(logits_of(fakes), real_logits)
    state.opt_G.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    distributed.average_gradients(state.G)
    state.scaler.step(state.opt_G)
    state.let_d_learn(True)
    return {"G_loss": loss.detach()}


def discriminator_step(state: TrainState, step: Step, reals: Tensor, fakes: Tensor) -> Stats:
    """Update D on reals and fakes, both [N, 3, R, R] and without gradient."""
    config, stage = step.config, step.stage
    loss = LOSSES[config.loss]
    images = augment_for_d(state, step, reals, fakes)
    real_logits, fake_logits = state.D(images.to(config.dtype), stage, sets=2).chunk(2)
    d_loss = loss.d_loss(real_logits, fake_logits)
    stats = {"D_loss": d_loss, "real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
    stats["r_t"] = loss.confidence(real_logits, fake_logits)
    weight = penalty_weight(config, state.iteration)
    if weight:
        stats["penalty"] = gradient_penalty(state.D, step, images)
        d_loss = d_loss + weight * stats["penalty"]
    state.opt_D.zero_grad(set_to_none=True)
    state.scaler.scale(d_loss).backward()
    distributed.average_gradients(state.D)
    state.scaler.step(state.opt_D)
    return {name: value.detach() for name, value in stats.items()}


def penalty_weight(config: TrainConfig, iteration: int) -> float:
    """Return the weight of D's gradient penalty at an iteration; 0 where none is due.

    A lazy penalty is taken every `r1_every` iterations and weighs that much more (Karras et al.
    2020, StyleGAN2, sec. 3.1).
    """
    loss = LOSSES[config.loss]
    every = config.r1_every if loss.is_lazy else 1
    return 0.0 if iteration % every else loss.penalty_weight(config.r1_gamma) * every


def gradient_penalty(D: Critic, step: Step, images: Tensor) -> Tensor:
    """Return the loss's penalty at N reals and N fakes [2N, 3, R, R] as D gets them.

    In float32 instead of fp16, whose range is too small for it. `D.forward` is never compiled:
    compiled code cannot be differentiated twice.
    """
    config, stage, rng, rows = step
    dtype = torch.float32 if config.precision == "fp16" else config.dtype

    def logits_of(points: Tensor, sets: int) -> Tensor:
        return D.forward(points.to(dtype), stage, sets)

    def uniform() -> Tensor:
        return torch.rand(config.batch, generator=rng, device=rng.device)[rows]

    return LOSSES[config.loss].penalty(logits_of, images, uniform)


def ema_beta(config: TrainConfig, nimg: int, times: float = 1) -> float:
    """Return the decay of G_ema for one step, from a half-life in images that ramps up at first.

    `times` makes an average that is so many times as long, ramp included.
    """
    half_life = times * min(config.ema, EMA_RAMP * nimg)
    return 0.5 ** (config.batch / half_life) if config.ema else 0.0
