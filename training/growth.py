"""Progressive growing: which resolution, faded in how far, after how many images.

Karras et al. 2018, "Progressive Growing of GANs", sec. 2.
"""

from dataclasses import dataclass

from model import Stage


@dataclass(frozen=True)
class Growth:
    """The schedule: hold `init_size` for a phase, then fade in and hold each doubling of it.

    `phase` is in images. With init_size == max_size nothing grows.
    """

    init_size: int
    max_size: int
    phase: int

    def at(self, nimg: int) -> Stage:
        """Return the stage after `nimg` real images (Karras et al. 2018, sec. 2 and app. A)."""
        if self.init_size == self.max_size:
            return Stage(self.max_size, 1.0)
        doublings, within = divmod(nimg, 2 * self.phase)
        held = self.init_size << doublings
        if held >= self.max_size:
            return Stage(self.max_size, 1.0)
        if within < self.phase:
            return Stage(held, 1.0)
        return Stage(2 * held, (within - self.phase) / self.phase)

    @property
    def resolutions(self) -> list[int]:
        """Return every resolution of the run, smallest first."""
        doublings = (self.max_size // self.init_size).bit_length()
        return [self.init_size << n for n in range(doublings)]

    def images_at(self, begin: int, end: int) -> dict[int, int]:
        """Return how many of the images from `begin` to `end` are shown at each resolution."""
        starts = [0, *(n * 2 * self.phase - self.phase for n in range(1, len(self.resolutions)))]
        stops = [*starts[1:], max(begin, end)]
        return {
            size: max(0, min(stop, end) - max(start, begin))
            for size, start, stop in zip(self.resolutions, starts, stops, strict=True)
        }

    @property
    def images(self) -> int:
        """Return the images shown until `max_size` is fully faded in."""
        return 2 * self.phase * (len(self.resolutions) - 1)
