"""What a training step is: its settings, its state and the two updates. No files, no flags.

Everything random in a step comes from (seed, iteration) alone, so that a resumed run is the run
that was never stopped.
"""

from __future__ import annotations

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
from training.losses import (
    D_LOSS,
    G_LOSS,
    WGAN_GP_WEIGHT,
    between,
    g_relativistic,
    r1_penalty,
    r1_r2_penalty,
    wgan_gradient_penalty,
)
from training.state import MORE_EMA, TrainState

EMA_RAMP = 0.05  # the half-life is at most this share of the images seen (Karras et al. 2020, ADA)

Stats = dict[str, Tensor]


def step_rng(seed: int, iteration: int, device: torch.device) -> torch.Generator:
    """Return the random numbers of one iteration, independent of every other iteration's."""
    (state,) = np.random.SeedSequence([seed, iteration]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state >> 1))


class Step(NamedTuple):
    """What one iteration is made under; `part` are the rows of the batch computed here."""

    config: TrainConfig
    stage: Stage
    rng: torch.Generator
    part: slice = slice(None)


def train_step(state: TrainState, config: TrainConfig, bank: ImageBank) -> Stats:
    """Update G, then D, then G_ema, and move the clock on; return detached figures.

    One set of fakes serves both updates, which saves G's forward pass. G is first: a D that has
    learned from these very fakes would teach how they were caught, not what faces look like.
    """
    rng = step_rng(config.seed, state.iteration, state.device)
    step = Step(config, config.growth.at(state.nimg), rng, distributed.part(config.batch))
    photos = bank.batch(config.seed, state.iteration, config.batch, step.part)
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
    """Return uint8 photos [N, 3, R, R] as D sees them: [-1, 1], half of them mirrored, faded."""
    config, stage, rng, part = step
    images = shrink(to_float(photos), stage.resolution)
    if config.mirror:
        flip = torch.rand(config.batch, 1, 1, 1, generator=rng, device=rng.device) < 0.5
        images = torch.where(flip[part], images.flip(3), images)
    return fade(images, stage.alpha)


def make_fakes(G: Generator, step: Step) -> tuple[Tensor, Tensor]:
    """Return images of new z and their w, styles mixed at a random layer with chance `mixing`.

    The border is drawn for each image among those of the layers in use (Karras et al. 2019,
    sec. 3.1).
    """
    config, stage, rng, part = step
    n = config.batch
    z = torch.randn(2, n, G.config.z_dim, generator=rng, device=rng.device)
    w, w_other = G.mapping(z[:, part].flatten(0, 1)).chunk(2)
    layers = 2 * stage.resolution.bit_length() - 4
    cutoff = torch.randint(1, layers, (n,), generator=rng, device=rng.device)
    mixed = torch.rand(n, generator=rng, device=rng.device) < config.mixing
    cutoff = torch.where(mixed, cutoff, G.config.num_ws)
    ws = G.mix(G.broadcast(w), G.broadcast(w_other), cutoff[part])
    noise = [each[part] for each in G.draw_noise(n, stage.resolution, rng)]
    return G.synthesis(ws, stage, noise, config.dtype), w


def as_seen(state: TrainState, step: Step, *lots: Tensor) -> Tensor:
    """Return lots [N, 3, R, R] of images as D sees them, in one batch, each augmented anew."""
    images = torch.cat(lots)
    if step.config.augment == "none":
        return images
    drawn = draw(step.config.batch, state.ada.p, step.rng, len(lots), step.part)
    return augment(images, drawn)


def discriminator_step(state: TrainState, step: Step, reals: Tensor, fakes: Tensor) -> Stats:
    """Update D on reals and fakes, both [N, 3, R, R] and without gradient.

    `r_t` is how sure D is of reals: the mean sign of their logits (ADA, eq. 1), or where only
    differences of logits count, of that to the fake's of the pair.
    """
    config, stage = step.config, step.stage
    both = as_seen(state, step, reals, fakes)
    real_logits, fake_logits = state.D(both.to(config.dtype), stage, lots=2).chunk(2)
    loss = D_LOSS[config.loss](real_logits, fake_logits)
    sure = real_logits if config.loss == "r1" else real_logits - fake_logits
    stats = {"D_loss": loss, "real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
    stats["r_t"] = sure.sign().mean()
    weight = penalty_weight(config, state.iteration)
    if weight:
        stats["penalty"] = gradient_penalty(state.D, step, both)
        loss = loss + weight * stats["penalty"]
    state.opt_D.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    distributed.average_gradients(state.D)
    state.scaler.step(state.opt_D)
    return {name: value.detach() for name, value in stats.items()}


def penalty_weight(config: TrainConfig, iteration: int) -> float:
    """Return the weight of D's gradient penalty at an iteration; 0 where none is due.

    R1 (and R2) is lazy: every `r1_every` iterations, as many times stronger (Karras et al. 2020,
    StyleGAN2, sec. 3.1).
    """
    if config.loss == "wgan-gp":
        return WGAN_GP_WEIGHT
    return 0.0 if iteration % config.r1_every else config.r1_gamma / 2 * config.r1_every


def gradient_penalty(D: Critic, step: Step, both: Tensor) -> Tensor:
    """Return the loss's penalty at reals and fakes [2N, 3, R, R] as D sees them.

    In float32 instead of fp16, whose range is too small for it. `D.forward` is D as it was
    written: compiled code cannot be differentiated twice.
    """
    config, stage, rng, part = step
    dtype = torch.float32 if config.precision == "fp16" else config.dtype
    reals, fakes = both.chunk(2)
    if config.loss == "wgan-gp":
        t = torch.rand(config.batch, generator=rng, device=rng.device)
        points = between(reals, fakes, t[part])
        return wgan_gradient_penalty(points, D.forward(points.to(dtype), stage))
    if config.loss == "rpgan":
        points = both.detach().requires_grad_()
        return r1_r2_penalty(points, D.forward(points.to(dtype), stage, lots=2))
    points = reals.detach().requires_grad_()
    return r1_penalty(points, D.forward(points.to(dtype), stage))


def generator_step(state: TrainState, step: Step, fakes: Tensor, reals: Tensor) -> Stats:
    """Update G through its fakes [N, 3, R, R] against D as it now is.

    The reals are what fakes are compared with, if the loss does that.
    """
    config, stage = step.config, step.stage
    state.let_d_learn(False)
    fake_logits = state.D(as_seen(state, step, fakes).to(config.dtype), stage)
    if config.loss == "rpgan":
        with torch.no_grad():
            real_logits = state.D(as_seen(state, step, reals).to(config.dtype), stage)
        loss = g_relativistic(real_logits, fake_logits)
    else:
        loss = G_LOSS[config.loss](fake_logits)
    state.opt_G.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    distributed.average_gradients(state.G)
    state.scaler.step(state.opt_G)
    state.let_d_learn(True)
    return {"G_loss": loss.detach()}


def ema_beta(config: TrainConfig, nimg: int, times: float = 1) -> float:
    """Return the share of G_ema kept at a step, for a half-life in images, ramped up at first.

    For an average that is so many times as long, ramp and all.
    """
    half_life = times * min(config.ema, EMA_RAMP * nimg)
    return 0.5 ** (config.batch / half_life) if config.ema else 0.0
