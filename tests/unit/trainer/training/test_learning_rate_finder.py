"""What a learning-rate range test makes of the losses that it sees."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.objective.schedules import Sweep
from trainer.training.learning_rate_finder import DIVERGED, HIGHEST, LOWEST, curve_of, text_of

STEPS = 100
RATES = np.geomspace(LOWEST, HIGHEST, STEPS)


def losses(best: float, noise: float = 0.0) -> np.ndarray:
    """As of a network that learns well up to the rate ``best``, and diverges beyond."""
    progress = np.clip(np.log(RATES / LOWEST) / np.log(best / LOWEST), 0, None)
    loss = np.where(progress <= 1, 2 - 1.5 * progress**4, 0.5 * np.exp(9 * (progress - 1)))
    return np.asarray(loss + noise * np.random.default_rng(0).normal(size=STEPS))


@pytest.mark.parametrize(("best", "noise"), [(1e-1, 0), (1e-1, 0.1), (1e-3, 0.05), (1, 0.05)])
def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss(best: float, noise: float) -> None:
    suggestion = curve_of(RATES, losses(best, noise)).suggestion
    assert suggestion is not None
    assert best / 20 < suggestion < best / 4  # the mean of the last losses lags behind


@pytest.mark.parametrize("after", [np.nan, np.inf, 1e9])
def test_what_comes_after_it_has_diverged_says_nothing(after: float) -> None:
    spoilt = losses(0.1)
    spoilt[75:] = after
    curve = curve_of(RATES, spoilt)
    assert 60 < len(curve.rates) == len(curve.losses) == len(curve.smoothed) <= 76
    assert curve.suggestion == pytest.approx(curve_of(RATES, losses(0.1)).suggestion, rel=0.3)
    assert max(curve.smoothed) < DIVERGED * min(curve.smoothed)


@pytest.mark.parametrize("flat", [np.full(STEPS, 2.0), np.linspace(1, 2, STEPS), np.full(STEPS, np.nan)])
def test_a_loss_that_never_falls_gives_no_suggestion(flat: np.ndarray) -> None:
    curve = curve_of(RATES, flat)
    assert curve.suggestion is None
    assert "suggestion" not in text_of(curve)


def test_the_rate_grows_by_the_same_factor_each_step() -> None:
    schedule = Sweep(1e-6, 10.0, 8)
    np.testing.assert_allclose([schedule(step) for step in range(8)], np.geomspace(1e-6, 10, 8), rtol=1e-5)
    np.testing.assert_allclose([schedule.rate(step) for step in range(8)], np.geomspace(1e-6, 10, 8))
