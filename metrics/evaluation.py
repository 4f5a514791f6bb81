"""Measures checkpoints against photos: samples, features, metrics and their floors.

A metric compares samples with as many training photos. Its floor compares unseen photos with the
same training photos. The formulas are in metrics.py; report.py prints and writes the results.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from checkpoints import checkpoint
from checkpoints.checkpoint import CheckpointError
from checkpoints.run_folder import (
    AVERAGES,
    BEST,
    PREVIOUS,
    SNAPSHOTS,
    average_of,
    candidates,
    read_config,
)
from common.cli import UserError, tell
from data.lmdb_format import HOLDOUT, printable
from dataset import ImageBank
from metrics.features import Network
from metrics.metrics import (
    Metrics,
    Values,
    estimate,
    frechet_distance,
    kid,
    precision_recall,
    require,
    swd,
)
from sampling.sampler import Faces, load_faces

COPY_SAMPLES = 1000  # at most, whose nearest training photos are looked for
CACHE_FORMAT = 1
BATCH = 256  # images rendered or sent through a network between two steps of the progress bar

Progress = Callable[[int], object]  # called with the number of images just finished


def warn(line: str) -> None:
    """Print a line on stderr."""
    tell("evaluate.py", line)


@dataclass(frozen=True)
class Reals:
    """The photos of a database, uint8 [N, 3, R, R]."""

    training: Tensor
    unseen: Tensor  # held out of training; without a holdout, every second training photo
    has_holdout: bool
    training_digest: str  # as in the config.json of a run
    digest: str  # of both parts at this resolution

    @property
    def resolution(self) -> int:
        """Return R, px."""
        return self.training.shape[-1]

    def evenly_spaced(self, count: int) -> Tensor:
        """Return the indices of `count` training photos, evenly spaced."""
        return torch.from_numpy(np.linspace(0, len(self.training) - 1, count).round().astype(int))


def read_reals(lmdb: Path, resolution: int) -> Reals:
    """Return the photos of a database; raise UserError if there are too few."""
    bank = ImageBank(lmdb, resolution)
    training = bank.take(np.arange(bank.count))
    if bank.held_out:
        holdout = ImageBank(lmdb, resolution, part=HOLDOUT)
        unseen, digest = holdout.take(np.arange(holdout.count)), f"{bank.digest}+{holdout.digest}"
    else:
        training, unseen, digest = training[::2], training[1::2], f"{bank.digest} halved"
    require(len(training), f"training photos in {printable(lmdb)}")
    require(len(unseen), f"unseen photos in {printable(lmdb)}")
    digest += f" {resolution} px"
    return Reals(training, unseen, bool(bank.held_out), bank.digest, digest)


def check_same_photos(run: Path, reals: Reals, lmdb: Path) -> None:
    """Raise UserError if a run is known to have been trained on other photos."""
    trained_on = read_config(run).get("data")
    if trained_on is None:
        warn(f"{run}: no config.json; what it was trained on is unknown")
    elif trained_on != reals.training_digest:
        raise UserError(
            f"{printable(lmdb)}: other photos than those of {run} (digest {reals.training_digest});"
            f" expected the database it was trained on (digest {trained_on}). Give that one"
        )


class Evaluator:
    """Computes the metrics of `count` images, compared with as many training photos.

    The features of the photos are computed once and kept in `folder`.
    """

    def __init__(self, reals: Reals, networks: Sequence[Network], folder: Path, count: int) -> None:
        self.reals = reals
        self.networks = networks
        self.folder = folder
        self.count = count
        self.features: dict[str, dict[str, Tensor]] = {}  # of photos, by the network's label

    def prepare(self, progress: Progress) -> None:
        """Compute the features of the photos, or read them from `folder`, where each part is kept.

        Raises UserError for a file with features of other photos.
        """
        images = {
            "training": self.reals.training,
            "unseen": self.reals.unseen,
            "mirrored": self.reals.unseen[:COPY_SAMPLES].flip(3),
        }
        for network in self.networks:
            path = self.folder / f"features-{network.label.lower()}.pt"
            found = read_features(path, network, self.reals) if path.exists() else {}
            for part in [part for part in images if part not in found]:
                found[part] = extract(network, images[part], progress)
                checkpoint.write(path, {**cache_key(network, self.reals), **found})
            self.features[network.label] = found

    def floor(self) -> Metrics:
        """Return the metrics of unseen photos."""
        features = [self.features[network.label]["unseen"] for network in self.networks]
        return self._compare(self.reals.unseen[: self.count], [f[: self.count] for f in features])

    def measure(self, images: Tensor, progress: Progress) -> tuple[Metrics, dict[str, Tensor]]:
        """Return the metrics of uint8 images [N, 3, R, R], and features by the network's label."""
        features = [extract(network, images, progress) for network in self.networks]
        labels = [network.label for network in self.networks]
        return self._compare(images, features), dict(zip(labels, features, strict=True))

    def _compare(self, images: Tensor, features: Sequence[Tensor]) -> Metrics:
        """Return the metrics of images with the features [N, F] of each network."""
        rows = self.reals.evenly_spaced(len(images))
        found = swd(self.reals.training[rows], images)
        for network, fakes in zip(self.networks, features, strict=True):
            reals = self.features[network.label]["training"][rows]
            found |= estimate(feature_metrics(network), reals, fakes)
        return found


def feature_metrics(network: Network) -> Callable[[Tensor, Tensor], Values]:
    """Return the function from features of reals and fakes to metrics by name; KID times 1,000."""

    def statistic(reals: Tensor, fakes: Tensor) -> Values:
        values = {}
        if network.frechet:
            name, scale = network.frechet
            values[name] = scale * frechet_distance(reals, fakes)
        if network.has_kid:
            values[f"KID ({network.label})"] = 1000 * kid(reals, fakes)
        precision, recall = precision_recall(reals, fakes)
        values[f"precision ({network.label})"] = precision
        values[f"recall ({network.label})"] = recall
        return values

    return statistic


@dataclass(frozen=True)
class CheckpointMetrics:
    """The metrics of a checkpoint, and the samples to search for copies."""

    file: Path
    iteration: int
    nimg: int
    metrics: Metrics
    samples: Tensor  # uint8 [N, 3, R, R], at most COPY_SAMPLES
    features: dict[str, Tensor]  # of the samples [N, F], by the network's label


def measure_all(
    path: Path, psi: float, evaluator: Evaluator, device: torch.device, progress: Progress
) -> list[CheckpointMetrics]:
    """Return the metrics of a checkpoint, or of all different ones in a run, by iteration.

    Damaged checkpoints of a run are skipped. Raises CheckpointError if none is left.
    """
    measured: dict[tuple[int, str], CheckpointMetrics] = {}
    files = files_to_measure(path)
    for file in files:
        try:
            faces, _, entries = load_faces(file, device, warn)
        except CheckpointError as error:
            if file == files[-1] and not measured:
                raise
            warn(f"{error}; skipped")
            continue
        iteration, nimg = (entries.get(name, 0) for name in ("iteration", "nimg"))
        key = iteration, average_of(file)
        if key not in measured:
            samples = draw_samples(faces, evaluator.count, psi, evaluator.reals, progress)
            values, features = evaluator.measure(samples, progress)
            samples = samples[:COPY_SAMPLES]
            features = {label: found[:COPY_SAMPLES] for label, found in features.items()}
            measured[key] = CheckpointMetrics(file, iteration, nimg, values, samples, features)
    return [measured[key] for key in sorted(measured)]


def files_to_measure(path: Path) -> list[Path]:
    """Return `path`, or the checkpoints of a run folder, of which several may be of one iteration.

    Snapshots come first, since latest.pt is soon replaced.
    """
    files = [file for file in candidates(path) if file.name != PREVIOUS]
    files += [path / name for name in (BEST, *AVERAGES.values()) if (path / name).exists()]
    return sorted(files, key=lambda file: file.parent.name != SNAPSHOTS)


def draw_samples(faces: Faces, count: int, psi: float, reals: Reals, progress: Progress) -> Tensor:
    """Return the samples of seeds 0 to count - 1, as large as the photos: uint8 [N, 3, R, R].

    Below full resolution, pixels are repeated, as in a run's sample sheets. Raises UserError.
    """
    parts = []
    for start in range(0, count, BATCH):
        seeds = range(start, min(start + BATCH, count))
        parts.append(faces.render(faces.ws(seeds, psi), faces.noise(seeds)))
        progress(len(seeds))
    times = reals.resolution // faces.stage.resolution
    return torch.cat(parts).repeat_interleave(times, 2).repeat_interleave(times, 3)


def extract(network: Network, images: Tensor, progress: Progress) -> Tensor:
    """Return a network's features [N, F] of uint8 images."""
    parts = []
    for batch in images.split(BATCH):
        parts.append(network(batch))
        progress(len(batch))
    return torch.cat(parts)


def read_features(path: Path, network: Network, reals: Reals) -> dict[str, Tensor]:
    """Return the features of photos in a file; raise UserError if it has others or is damaged."""
    try:
        stored = checkpoint.read(path)
    except CheckpointError as error:
        raise UserError(f"{printable(path)}: damaged features; remove the file") from error
    key = cache_key(network, reals)
    if {name: stored.pop(name, None) for name in key} != key:
        raise UserError(
            f"{printable(path)}: features of other photos or of another version; expected those "
            f"of {reals.digest} by {network.name}. Remove the file, or give another --out"
        )
    return stored


def cache_key(network: Network, reals: Reals) -> dict[str, object]:
    """Return what features in a file must have been computed with to be used again."""
    return {"format": CACHE_FORMAT, "network": network.name, "photos": reals.digest}
