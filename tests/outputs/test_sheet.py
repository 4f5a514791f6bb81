"""Sheets with labels and heat maps: what a reader takes from them is so."""

import numpy as np
import pytest
import torch

from outputs.sheet import CELL, HEAT, Row, beside, difference, heat, sheet


def lightness(colour: tuple[int, ...]) -> float:
    """CIE 1976 L* of an sRGB colour, 0 to 100."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(colour) / 255
    ]
    y = float(np.dot([0.2126, 0.7152, 0.0722], linear))
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_the_heat_map_grows_lighter_at_even_steps() -> None:
    steps = np.diff([lightness(colour) for colour in HEAT])
    assert (abs(steps - steps.mean()) < 0.3 * steps.mean()).all(), steps


def test_heat_runs_from_black_to_the_brightest_and_no_further() -> None:
    seen = heat(torch.tensor([[0.0, 10.0, 20.0, 500.0]]), 20.0)
    assert seen.shape == (3, 1, 4)
    assert seen[:, 0].T.tolist()[0] == list(HEAT[0])
    assert seen[:, 0].T.tolist()[2:] == [list(HEAT[-1])] * 2
    assert (seen[:, 0, 1].float() - torch.tensor(HEAT[3:5]).float().mean(0)).abs().max() <= 0.5


def test_the_difference_is_the_mean_over_colours() -> None:
    a = torch.zeros(3, 2, 2, dtype=torch.uint8)
    b = torch.tensor([30, 60, 255]).view(3, 1, 1).expand(3, 2, 2).to(torch.uint8)
    assert torch.equal(difference(a, b), torch.full((2, 2), 115.0))
    assert torch.equal(difference(b, a), torch.full((2, 2), 115.0))


def plain(level: int, side: int = 16) -> torch.Tensor:
    """A picture of one colour that no letter has."""
    return torch.tensor([level, 199, 0], dtype=torch.uint8).view(3, 1, 1).expand(3, side, side)


def test_every_picture_is_on_the_sheet_once_and_labels_do_not_touch_them() -> None:
    rows = [Row("a long label", [plain(10), plain(20)]), Row("two\nlines", [None, plain(40)])]
    pixels = np.asarray(sheet(rows, ("left", "right"), "title", 64.0))
    for level in (10, 20, 40):
        ys, xs = np.nonzero((pixels == (level, 199, 0)).all(axis=2))
        assert len(ys) == CELL**2, level
        assert (np.ptp(ys) + 1, np.ptp(xs) + 1) == (CELL, CELL)
    assert (pixels[:, -6:] == 255).all()


@pytest.mark.parametrize("text", ["me", "a" * 60])
def test_long_titles_and_labels_widen_the_sheet(text: str) -> None:
    pixels = np.asarray(sheet([Row(text, [plain(9)])], ("x",), text))
    assert (pixels[:, -6:] == 255).all()
    assert ((pixels == (9, 199, 0)).all(axis=2)).sum() == CELL**2


def test_panels_stand_side_by_side() -> None:
    panel = sheet([Row("", [plain(9)])])
    assert beside([panel, panel]).size == (2 * panel.width, panel.height)
