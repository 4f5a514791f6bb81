"""The networks that judge images: what is asked of any, and the progressive discriminator."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from common.images import shrink
from model import GAIN, Conv, Dense, DownConv, ModelConfig, Stage
from ops.adain import activate

STD_GROUP = 4  # images over which minibatch standard deviation is taken


class Critic(nn.Module, ABC):
    """What training, checkpoints and projection need of a network that judges images.

    A checkpoint holds its parameters and buffers.
    """

    @abstractmethod
    def forward(self, images: Tensor, stage: Stage, sets: int = 1) -> Tensor:
        """Return float32 logits [N] for images [N, 3, R, R], R being the stage's resolution.

        Computes in the dtype of the images. They may be several `sets` of equal size, one after
        the other, such as reals and fakes: no logit depends on an image of another set.
        """

    @abstractmethod
    def features(self, images: Tensor, stage: Stage) -> list[Tensor]:
        """Return maps [N, C, r, r], finest first, that are similar for images that look alike."""

    @abstractmethod
    def frozen(self, n: int) -> set[str]:
        """Return the names of the parameters that do not learn with `--freeze_d n`."""


class DiscriminatorBlock(nn.Module):
    """Two convolutions, the second of which halves the resolution."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = Conv(c_in, c_in)
        self.down = DownConv(c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, c_out, H / 2, W / 2]."""
        return activate(self.down(activate(self.conv(x))))


class Discriminator(Critic):
    """Images -> logits: the mirror image of Synthesis (Karras et al. 2018, table 2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.from_rgb = nn.ModuleDict()
        self.blocks = nn.ModuleDict()
        for resolution in config.resolutions:
            channels = config.channels(resolution)
            self.from_rgb[str(resolution)] = Conv(3, channels, kernel=1)
            if resolution > 4:
                block = DiscriminatorBlock(channels, config.channels(resolution // 2))
                self.blocks[str(resolution)] = block
        channels = config.channels(4)
        self.conv = Conv(channels + 1, channels)
        self.dense = Dense(16 * channels, channels, GAIN)
        self.logit = Dense(channels, 1)

    def frozen(self, n: int) -> set[str]:
        """Return the names of the parameters that belong to the n largest resolutions alone."""
        largest = sorted(self.from_rgb, key=int)[len(self.from_rgb) - n :]
        own = tuple(f"{part}.{r}." for part in ("from_rgb", "blocks") for r in largest)
        return {name for name, _ in self.named_parameters() if name.startswith(own)}

    def forward(self, images: Tensor, stage: Stage, sets: int = 1) -> Tensor:
        """Return float32 logits [N]: see Critic."""
        x, _ = self.descend(images, stage)
        x = activate(self.conv(with_minibatch_std(x, len(x) // sets)))
        return self.logit(activate(self.dense(x.flatten(1)))).squeeze(1).float()

    def features(self, images: Tensor, stage: Stage) -> list[Tensor]:
        """Return the outputs of the blocks, each half as large as the one before, down to 4 px."""
        return self.descend(images, stage)[1]

    def descend(self, images: Tensor, stage: Stage) -> tuple[Tensor, list[Tensor]]:
        """Return the maps [N, C, 4, 4] from which logits follow, and the outputs of all blocks."""
        resolution = stage.resolution
        images = images.contiguous(memory_format=torch.channels_last)
        x = activate(self.from_rgb[str(resolution)](images))
        outputs = []
        while resolution > 4:
            x = self.blocks[str(resolution)](x)
            outputs.append(x)
            resolution //= 2
            if stage.alpha < 1 and len(outputs) == 1:
                coarse = self.from_rgb[str(resolution)](shrink(images, resolution))
                x = torch.lerp(activate(coarse), x, stage.alpha)
        return x, outputs


def with_minibatch_std(x: Tensor, set_size: int) -> Tensor:
    """Return x [N, C, H, W] with one more map: the mean standard deviation within a group.

    Groups are (at most) four neighbours of one set, as in the official code. It shows D a lack of
    variety (Karras et al. 2018, sec. 3). Computed in float32.
    """
    n, c, h, w = x.shape
    size = math.gcd(set_size, STD_GROUP)
    groups = x.float().view(n // size, size, c, h, w)
    deviation = groups - groups.mean(dim=1, keepdim=True)
    std = (deviation.square().mean(dim=1) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # [N / size]
    std = std.repeat_interleave(size).view(n, 1, 1, 1).expand(-1, 1, h, w)
    return torch.cat([x, std.to(x.dtype)], dim=1)


def make_critic(config: ModelConfig) -> Critic:
    """Return the critic that is trained against a generator of `config`."""
    return Discriminator(config)
