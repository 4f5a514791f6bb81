"""What a training step is: its settings, its state and the two updates. No files, no flags.

Everything random in a step comes from (seed, iteration) alone, so that a resumed run is the run
that was never stopped.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from checkpoints.checkpoint import CheckpointError, described, first_difference
from common.device import DTYPES
from common.images import fade, shrink, to_float
from dataset import ImageBank
from model import Discriminator, Generator, ModelConfig, Stage, update_ema
from training import distributed
from training.augment import SPEED, Ada, augment, draw
from training.growth import Growth
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
from training.restoring import read_clock, restore_adam, restore_plain

MORE_EMA = {"G_ema_short": 0.25, "G_ema_long": 4.0}  # further averages, and how long relative to it
EMA_RAMP = 0.05  # the half-life is at most this share of the images seen (Karras et al. 2020, ADA)
ADAM_BETAS = (0.0, 0.99)  # Karras et al. 2018, app. A.1

Stats = dict[str, Tensor]


@dataclass(frozen=True)
class TrainConfig:
    """Every setting that the numbers of a run depend on; train.py's flags hold the defaults.

    `phase` and `ema` are in images, `mixing` and `augment_p` are probabilities, `r1_every` is in
    iterations, `freeze_d` in resolutions.
    """

    init_size: int
    max_size: int
    iterations: int
    batch: int
    phase: int
    lr: float
    d_lr: float
    loss: str
    r1_gamma: float
    r1_every: int
    mixing: float
    ema: int
    more_ema: bool
    augment: str
    augment_p: float
    freeze_d: int
    mirror: bool
    precision: str
    seed: int

    @property
    def growth(self) -> Growth:
        """Return the resolution schedule."""
        return Growth(self.init_size, self.max_size, self.phase)

    @property
    def dtype(self) -> torch.dtype:
        """Return what convolutions compute in."""
        return DTYPES[self.precision]


class TrainState:
    """All that changes while training: networks, optimizers, scaler, augmentation, the clock."""

    def __init__(self, model: ModelConfig, config: TrainConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config = model
        self.device = device
        self.G, self.G_ema = Generator(model).to(device), Generator(model).to(device)
        self.D = Discriminator(model).to(device)
        for network in (self.G, self.D, self.G_ema):
            network.to(memory_format=torch.channels_last)
        self.G_ema.load_state_dict(self.G.state_dict())
        self.G_ema.eval().requires_grad_(False)
        more = MORE_EMA if config.more_ema else ()
        self.more_ema = {name: copy.deepcopy(self.G_ema) for name in more}
        self.opt_G = adam(self.G, config.lr)
        self.opt_D = adam(self.D, config.d_lr)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.ada = Ada(SPEED, config.augment_p if config.augment == "fixed" else 0.0, device)
        self.frozen = self.D.names_of_largest(config.freeze_d)
        self.let_d_learn(True)
        self.iteration = 0
        self.nimg = 0

    def compile(self, backend: Any = "inductor") -> None:
        """Let G and D be compiled at their first call in each stage (and once more for alpha)."""
        from torch import _dynamo  # takes a second to import

        _dynamo.config.recompile_limit = 64  # the default of 8 would give up at the third stage
        self.G.synthesis.compile(backend=backend)
        self.D.compile(backend=backend)

    def let_d_learn(self, learns: bool) -> None:
        """Let D's parameters have gradients or not; those that are frozen never have."""
        for name, parameter in self.D.named_parameters():
            parameter.requires_grad_(learns and name not in self.frozen)

    @property
    def lr(self) -> float:
        """Return G's learning rate, as it now is."""
        return float(self.opt_G.param_groups[0]["lr"])

    @property
    def parts(self) -> dict[str, Any]:
        """Return everything with a state_dict, by its name in the checkpoint."""
        names = ("G", "D", "G_ema", "opt_G", "opt_D", "scaler", "ada")
        return {name: getattr(self, name) for name in names} | self.more_ema

    def entries(self) -> dict[str, Any]:
        """Return the whole state for `checkpoint.save`."""
        states = {name: part.state_dict() for name, part in self.parts.items()}
        return {**states, "iteration": self.iteration, "nimg": self.nimg}

    def restore(self, entries: dict[str, Any]) -> None:
        """Take the whole state from `entries`, as it was at that iteration.

        That of augmentation stays as it is where the run is from before there was any.
        Raises CheckpointError that tells the first difference, if they are not of such a run, or
        ValueError, KeyError, TypeError or AttributeError.
        """
        for name in ("G", "D", "G_ema", *self.more_ema):
            difference = first_difference(self.parts[name], entries.get(name, {}))
            if difference:
                raise CheckpointError(f"{name}.{difference}")
        for name in ("G", "D", "G_ema", *self.more_ema):
            self.parts[name].load_state_dict(dict(entries[name]))
        for name in ("opt_G", "opt_D"):
            restore_adam(self.parts[name], entries[name])
        restore_plain(self.scaler, entries["scaler"])
        if "ada" in entries:
            restore_plain(self.ada, entries["ada"])
        self.iteration, self.nimg = (read_clock(entries, name) for name in ("iteration", "nimg"))

    def start_from(self, entries: dict[str, Any]) -> list[str]:
        """Take weights of another run, where it has them; return the networks that start anew.

        G starts from G_ema where the file is a snapshot. Resolutions only one of the two has
        are left as they are; CheckpointError if what both have differs in shape (another width),
        or if what is to stay frozen is not there.
        """
        sources = {"G": entries.get("G", entries["G_ema"]), "G_ema": entries["G_ema"]}
        sources |= {name: entries["G_ema"] for name in self.more_ema}
        sources["D"] = entries.get("D", {})
        for name, weights in sources.items():
            own = self.parts[name].state_dict()
            if not isinstance(weights, dict):
                raise CheckpointError(f"{name} is no dict of weights; expected one of train.py")
            for key in own.keys() & weights.keys():
                there, here = described(weights[key]), described(own[key])
                if there != here:
                    raise CheckpointError(
                        f"{name}.{key} is {there} there and {here} here; expected the same "
                        "--width, --w_dim and --mapping_layers"
                    )
                own[key].copy_(weights[key])
        missing = self.frozen - sources["D"].keys()
        if missing:
            raise CheckpointError(
                f"no D.{min(missing)} in it; expected what --freeze_d keeps. Give a full state "
                "(latest.pt) of a run to this --max_size, or leave out --freeze_d"
            )
        return [name for name, weights in sources.items() if not weights]


def adam(network: torch.nn.Module, lr: float) -> torch.optim.Adam:
    """Return the optimizer of one network."""
    return torch.optim.Adam(network.parameters(), lr, betas=ADAM_BETAS, eps=1e-8, fused=True)


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


def gradient_penalty(D: Discriminator, step: Step, both: Tensor) -> Tensor:
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
