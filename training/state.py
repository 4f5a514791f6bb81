"""Everything that changes during training, and how it is restored: only if all of it fits.

torch does not check what it loads: moments of another shape make the fused Adam read and write past
their ends, and a learning rate of NaN makes a run that never ends.
"""

import copy
import math
from reprlib import repr as brief
from typing import Any

import torch
from torch import Tensor

from checkpoints.checkpoint import CheckpointError, described, first_difference
from critic import make_critic
from model import Generator, ModelConfig, Stage
from training.augment import RAMP, Ada
from training.config import TrainConfig

MORE_EMA = {"G_ema_short": 0.25, "G_ema_long": 4.0}  # half-lives relative to G_ema's
ADAM_BETAS = (0.0, 0.99)  # Karras et al. 2018, app. A.1
MAX_COUNT = 2**48  # of iterations or images: larger numbers overflow elsewhere
MOMENTS = {"step", "exp_avg", "exp_avg_sq"}


class TrainState:
    """Networks, optimizers, loss scaler, augmentation, and the clock: what latest.pt holds."""

    def __init__(self, model: ModelConfig, config: TrainConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.model = model
        self.device = device
        self.G, self.G_ema = Generator(model).to(device), Generator(model).to(device)
        self.D = make_critic(model).to(device)
        for network in (self.G, self.D, self.G_ema):
            network.to(memory_format=torch.channels_last)
        self.G_ema.load_state_dict(self.G.state_dict())
        self.G_ema.eval().requires_grad_(False)
        more = MORE_EMA if config.more_ema else ()
        self.more_ema = {name: copy.deepcopy(self.G_ema) for name in more}
        self.opt_G = adam(self.G, config.lr)
        self.opt_D = adam(self.D, config.d_lr)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.ada = Ada(RAMP, config.augment_p if config.augment == "fixed" else 0.0, device)
        self.frozen = self.D.frozen(config.freeze_d)
        self.let_d_learn(True)
        self.iteration = 0
        self.nimg = 0

    def compile(self, backend: Any = "inductor") -> None:
        """Have G and D compiled at their first call at each resolution, faded in or not."""
        from torch import _dynamo  # takes a second to import

        _dynamo.config.recompile_limit = 64  # the default of 8 would give up at the third stage
        self.G.synthesis.compile(backend=backend)
        self.D.compile(backend=backend)

    def let_d_learn(self, learns: bool) -> None:
        """Turn gradients of D's parameters on or off; frozen ones stay off."""
        for name, parameter in self.D.named_parameters():
            parameter.requires_grad_(learns and name not in self.frozen)

    @property
    def lr(self) -> float:
        """Return G's current learning rate."""
        return float(self.opt_G.param_groups[0]["lr"])

    @property
    def parts(self) -> dict[str, Any]:
        """Return everything that has a state_dict, by its name in the checkpoint."""
        names = ("G", "D", "G_ema", "opt_G", "opt_D", "scaler", "ada")
        return {name: getattr(self, name) for name in names} | self.more_ema

    def entries(self) -> dict[str, Any]:
        """Return the whole state for `checkpoint.save`."""
        states = {name: part.state_dict() for name, part in self.parts.items()}
        return {**states, "iteration": self.iteration, "nimg": self.nimg}

    def snapshot(self, stage: Stage, average: str = "G_ema") -> dict[str, Any]:
        """Return what a snapshot holds: one averaged generator, the clock and the stage."""
        weights = self.parts[average].state_dict()
        clock = {"iteration": self.iteration, "nimg": self.nimg}
        return {"G_ema": weights, **clock, "stage": list(stage)}

    def restore(self, entries: dict[str, Any]) -> None:
        """Restore the whole state from `entries`.

        Checkpoints from before there was augmentation leave its state as it is. Raises
        CheckpointError naming the first weight that does not fit, or ValueError, KeyError,
        TypeError or AttributeError.
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
        """Load the weights of another run; return the names of networks it does not have.

        G starts from G_ema if the file is a snapshot. Resolutions that only one of the two has
        are left as they are. Raises CheckpointError if shapes differ (another width), or if a
        frozen parameter is missing.
        """
        sources = {"G": entries.get("G", entries["G_ema"]), "G_ema": entries["G_ema"]}
        sources |= {name: entries["G_ema"] for name in self.more_ema}
        sources["D"] = entries.get("D", {})
        for name, weights in sources.items():
            own = self.parts[name].state_dict()
            if not isinstance(weights, dict):
                raise CheckpointError(f"{name} is not a dict of weights; expected one of train.py")
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


def restore_adam(optimizer: torch.optim.Adam, stored: dict[str, Any]) -> None:
    """Restore moments and learning rate from `stored`; everything else stays.

    Raises ValueError, KeyError, TypeError or AttributeError if they do not fit.
    """
    (own,) = optimizer.state_dict()["param_groups"]
    (theirs,) = stored["param_groups"]
    rate = theirs["lr"]
    if type(rate) is not float or not 0 < rate <= 1:
        raise ValueError(f"a learning rate of {brief(rate)}")
    if theirs["params"] != own["params"]:
        raise ValueError("an optimizer of other networks")
    parameters = optimizer.param_groups[0]["params"]
    for index, moments in stored["state"].items():
        if type(index) is not int or not 0 <= index < len(parameters) or moments.keys() != MOMENTS:
            raise ValueError(f"moments of another optimizer, at {brief(index)}")
        like = torch.zeros(())
        for name, value in moments.items():
            check_alike(f"{name} {index}", value, like if name == "step" else parameters[index])
        if moments["step"] < 0:
            raise ValueError(f"step {index} below 0")
    optimizer.load_state_dict({"state": stored["state"], "param_groups": [{**own, "lr": rate}]})


def restore_plain(part: Any, stored: dict[str, Any]) -> None:
    """Load `stored` into `part`; ValueError unless names, types and shapes match its state."""
    own = part.state_dict()
    if stored.keys() != own.keys():
        raise ValueError(f"{brief(sorted(map(str, stored)))} in place of {sorted(own)}")
    for name, value in stored.items():
        check_alike(name, value, own[name])
    part.load_state_dict(dict(stored))


def check_alike(name: str, value: object, own: object) -> None:
    """Raise ValueError unless `value` is a tensor like `own`, or a finite number of its type."""
    if isinstance(value, Tensor) and isinstance(own, Tensor):
        same = value.shape == own.shape and value.dtype == own.dtype
    else:
        same = type(value) is type(own) and isinstance(value, int | float) and math.isfinite(value)
    if not same:
        raise ValueError(f"{name} is {brief(value)}, of another kind than here")


def read_clock(entries: dict[str, Any], name: str) -> int:
    """Return the number of iterations or images called `name`; ValueError if it is none."""
    value = entries[name]
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise ValueError(f"{name} is {brief(value)}")
    return value
