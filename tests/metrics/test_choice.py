"""choice.py: the best checkpoint by two networks, and by what there is."""

import pytest

from metrics.choice import best_of, criteria, sentences
from metrics.metrics import Estimate, Metrics


def measured(**values: float) -> Metrics:
    return {name.replace("_", " "): Estimate(value, 1) for name, value in values.items()}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["SWD", "FID", "KID (Inception)", "face distance"], ["FID", "face distance"]),
        (["SWD", "FID", "KID (Inception)", "KID (Lite0)"], ["FID"]),
        (["SWD", "face distance", "KID (Lite0)"], ["face distance"]),
        (["SWD", "KID (Lite0)"], ["KID (Lite0)"]),
        (["SWD", "SWD 64 px"], ["SWD"]),
    ],
)
def test_what_was_measured_decides(names: list[str], expected: list[str]) -> None:
    assert criteria({name: Estimate(1, 1) for name in names}) == expected


def test_the_lowest_sum_of_ranks_is_best_and_fid_decides_between_equal_ones() -> None:
    pairs = [(90, 30), (60, 40), (50, 60), (95, 70)]  # ranks 2 0, 1 1, 0 2, 3 3
    assert best_of([measured(FID=a, face_distance=b) for a, b in pairs]) == 2
    pairs = [(90, 30), (60, 31), (50, 60)]
    runs = [measured(FID=a, face_distance=b) for a, b in [*pairs, (55, 30.5)]]  # 3 0, 2 2, 0 3, 1 1
    assert best_of(runs) == 3
    assert sentences(["a", "b", "c", "d"], runs) == [
        "best, by FID and face distance, by the sum of ranks: d",
        "they disagree: by FID alone c, by face distance alone a",
    ]


def test_networks_that_agree_need_one_line() -> None:
    runs = [measured(FID=2, face_distance=1), measured(FID=1, face_distance=0.5)]
    assert sentences(["a", "b"], runs) == ["best, by FID and face distance, by the sum of ranks: b"]
    assert sentences(["a", "b"], [measured(SWD=1), measured(SWD=2)]) == ["best, by SWD: a"]
