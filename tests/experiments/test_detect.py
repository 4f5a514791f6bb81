"""experiments.detect: the detector, and rates with their intervals."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.cli import UserError
from experiments import face_detector
from tests.support.faces import draw_faces


def test_the_interval_of_a_rate_is_wilsons() -> None:
    found = face_detector.rate([True] * 8 + [False] * 2)
    assert found == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-3)
    share, low, high = face_detector.rate([True] * 50)
    assert (share, high) == pytest.approx((1, 1))
    assert low == pytest.approx(50 / (50 + 1.96**2))


def test_the_ratio_of_rates_has_the_interval_of_its_logarithm() -> None:
    photos, samples = [True] * 80 + [False] * 20, [True] * 60 + [False] * 40
    reach = math.exp(1.96 * math.sqrt(1 / 60 - 1 / 100 + 1 / 80 - 1 / 100))
    expected = f"0.750 ({0.75 / reach:.3f} to {0.75 * reach:.3f})"
    assert face_detector.ratio(photos, samples) == expected
    assert face_detector.ratio(photos, [False] * 9) == "0 of 9 to 80 of 100"


def test_the_detector_finds_drawn_faces_and_none_in_noise(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "CascadeClassifier"):
        pytest.skip("OpenCV 5 has no cascades")
    files = sorted((draw_faces(tmp_path / "faces", 20) / "young").glob("*.jpg"))
    drawn = [torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files]
    assert sum(face_detector.Detector()(torch.stack(drawn))) >= 10
    rng = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (8, 3, 64, 64), generator=rng, dtype=torch.uint8)
    assert sum(face_detector.Detector()(noise)) == 0


def test_a_missing_detector_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="pip install"):
        face_detector.Detector()
