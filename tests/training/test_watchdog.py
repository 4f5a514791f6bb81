"""Runs that fail are diagnosed, and runs that do not are left alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from checkpoints.records import Record
from model import Generator, ModelConfig, Stage
from tests.support.training import digest, log_of, train
from training import loop, watchdog
from training.augment import P_MAX
from training.probes import Variety, mean_distance
from training.watchdog import diagnose, findings_of

# A good run's figures, as its records have them: 5,000 photos, 32 px, gamma 0.5.
GOOD: dict[str, Any] = {
    "D_loss": 0.75, "G_loss": 1.9, "real_logit": 1.4, "fake_logit": -1.3, "penalty": 0.35,
    "r_t": 0.6, "variety": 0.9, "alpha": 1.0, "resolution": 32,
}  # fmt: skip


def records(count: int = 40, **figures: Any) -> list[Record]:
    told = {**GOOD, **figures}
    return [Record(50 * n, 400 * n, **told) for n in range(1, count + 1)]


def names(log: list[Record], loss: str = "r1") -> list[str]:
    return [finding.name for finding in diagnose(log, loss)]


ILL: dict[str, dict[str, Any]] = {
    "D has won": {"D_loss": 0.03, "real_logit": 5.0, "fake_logit": -5.0},
    "D sees nothing": {"D_loss": 1.386, "real_logit": 0.01, "fake_logit": 0.0},
    "gamma too high": {"D_loss": 1.3, "real_logit": 0.1, "fake_logit": -0.1, "r_t": 0.95},
    "gamma too low": {"D_loss": 0.2, "real_logit": 5.0, "fake_logit": -7.0, "penalty": 90.0},
    "collapse": {"variety": 0.08},
    "p at its bound": {"p": P_MAX, "r_t": 0.9},
}


def test_a_good_run_has_no_findings():
    assert names(records()) == []
    assert names(records(p=0.3)) == []
    assert names([]) == []
    assert names([Record(1), *measured(3, 2), Record(2, D_loss=1.0)]) == []


@pytest.mark.parametrize("name", ILL)
def test_each_failure_is_found_once_and_comes_with_a_remedy(name):
    log = records(**ILL[name])
    (finding,) = diagnose(log, "r1")
    assert finding.name == name
    assert any(word in finding.sentence for word in ("--r1_gamma", "--lr", "photos"))
    assert "\n" not in finding.sentence
    log[-1] = replace(log[-1], findings=(name,))
    log += records(**ILL[name])
    assert names(log) == []
    assert findings_of(log) == [name]


@pytest.mark.parametrize("name", ILL)
def test_what_is_over_soon_is_no_finding(name):
    ill, good = records(**ILL[name]), records()
    assert names(ill[: watchdog.WINDOW - 1]) == []  # too early
    assert names([*ill, *good]) == []  # over
    assert names([*good, *ill[: watchdog.WINDOW // 2]]) == []  # a moment
    assert names(records(**ILL[name], alpha=0.5)) == []  # a resolution is faded in
    mixed = records(**ILL[name])
    mixed[-3:] = [replace(record, resolution=64) for record in mixed[-3:]]
    assert names(mixed) == []  # a resolution has just come in


@pytest.mark.parametrize("figures", [{"penalty": 90.0}, {"real_logit": 5.0, "fake_logit": -7.0}])
def test_each_sign_of_a_low_gamma_is_enough(figures):
    assert names(records(**figures)) == ["gamma too low"]


@pytest.mark.parametrize(
    ("lr", "remedy"),
    [(1e-5, "ten times as much --lr"), (1e-3, "a tenth of --r1_gamma"), (3e-2, "a tenth of --lr")],
)
def test_the_remedy_of_a_blind_d_follows_from_its_learning_rate(lr, remedy):
    (finding,) = diagnose(records(**ILL["D sees nothing"], lr=lr), "r1")
    assert finding.sentence.endswith(f"Try {remedy}")


def test_close_logits_are_a_finding_only_at_a_rate_that_never_worked():
    little: dict[str, Any] = {"D_loss": 1.37, "real_logit": 0.1, "fake_logit": -0.1, "r_t": 0.15}
    assert names(records(**little, lr=3e-3)) == []  # as good runs have it at 8 px
    assert names(records(**little, lr=3e-2)) == ["D sees nothing"]


def test_a_d_that_is_wrong_the_same_way_about_all_sees_nothing():
    wrong: dict[str, Any] = {
        "D_loss": 2.0,
        "real_logit": 0.2,
        "fake_logit": 1.1,
        "r_t": 1.0,
    }  # at lr 1e-6
    assert names(records(**wrong)) == ["D sees nothing"]


def test_logits_of_a_critic_are_not_judged():
    for name in ("D has won", "gamma too high", "D sees nothing"):
        assert names(records(**ILL[name]), "wgan-gp") == []
    assert names(records(**ILL["collapse"]), "wgan-gp") == ["collapse"]


def measured(*distances: float) -> list[Record]:
    """Return a log with a distance every 400 images."""
    return [Record(50 * n, 400 * n, swd=d) for n, d in enumerate(distances, 1)]


@pytest.mark.parametrize(
    ("distances", "expected"),
    [
        ((90, 80, 70, 60, 50, 45, 40, 38), []),
        ((90, 50, 40, 40, 41, 42, 40, 43), ["nothing gained"]),
        ((90, 50, 40, 40, 41, 42, 30, 43), []),  # it has gained in between
        ((90, 90, 90, 90, 90), []),  # too few to say
        ((90, 50, 40, 40, 39.9, 39.8, 39.9, 39.7), ["nothing gained"]),  # hardly anything
    ],
)
def test_half_a_run_without_a_gain_is_a_finding(distances, expected):
    assert names(measured(*distances)) == expected


def test_the_mean_distance_is_that_of_two_images():
    images = torch.zeros(3, 3, 16, 16)
    images[0] = 1.0
    # Of three pairs two are a whole image of ones apart; at 8 px that is sqrt(3 * 64).
    assert mean_distance(images, 8) == pytest.approx(2 / 3 * (3 * 64) ** 0.5)
    checks = torch.ones(2, 3, 16, 16)
    checks[0, :, ::2, ::2] = checks[0, :, 1::2, 1::2] = -1
    checks[1, :, 1::2, ::2] = checks[1, :, ::2, 1::2] = -1
    assert mean_distance(checks, 8) == 0  # finer than what counts
    assert mean_distance(checks, 16) > 0


def test_variety_is_one_for_photos_and_none_for_one_picture(tiny_bank, red_bank, monkeypatch):
    G = Generator(ModelConfig(16, 0.03, 16, 16, 2))
    bank, stage = tiny_bank(16), Stage(16, 1.0)
    variety = Variety(bank, G, seed=0)
    before = variety.measure(G, stage, torch.float32)
    assert variety.measure(G, stage, torch.float32) == before  # nothing is drawn
    photos = variety.photos
    monkeypatch.setattr(G.synthesis, "forward", lambda *_: photos)
    assert variety.measure(G, stage, torch.float32) == pytest.approx(1)
    monkeypatch.setattr(G.synthesis, "forward", lambda *_: photos[:1].expand(16, -1, -1, -1))
    assert variety.measure(G, stage, torch.float32) == pytest.approx(0, abs=1e-6)
    assert Variety(red_bank, G, seed=0).measure(G, Stage(8, 1.0), torch.float32) is None


def test_a_run_that_fails_says_so_once_and_goes_on(tiny_lmdb, tmp_path, monkeypatch):
    """D learns fast and G not at all; a run that goes on does not tell it again."""
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    monkeypatch.setattr(watchdog, "WON_LOSS", 0.5)
    monkeypatch.setattr(watchdog, "WINDOW", 6)
    out, broken = tmp_path / "run", tmp_path / "broken"
    flags = ["--width", "0.03", "--init_size", "8"]
    flags += ["--lr", "1e-6", "--d_lr", "0.01", "--r1_gamma", "0"]
    ended = train(tiny_lmdb, out, *flags, "--iterations", 40).succeeded()
    assert len([line for line in ended.messages if "D has won: its loss is 0." in line]) == 1
    assert "! D has won" in ended.err
    log = log_of(out)
    (at,) = [record["iteration"] for record in log if "findings" in record]
    assert at >= 2 * watchdog.WINDOW
    train(tiny_lmdb, broken, *flags, "--iterations", at).succeeded()
    ended = train(tiny_lmdb, broken, *flags, "--iterations", 40).succeeded()
    assert not [line for line in ended.messages if "D has won" in line]
    assert "! D has won" in ended.err
    assert [r.get("findings") for r in log_of(broken)] == [r.get("findings") for r in log]
    assert digest(broken / "latest.pt") == digest(out / "latest.pt")
