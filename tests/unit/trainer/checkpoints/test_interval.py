"""How often checkpoints are, by what they cost and how often a run is cut off."""

from __future__ import annotations

import math

import pytest

from maskfleet.records import Event
from maskfleet.sentences import told_to_stop
from trainer.checkpoints.interval import FIRST_FAULT_SECONDS, best_interval, faults_in, mean_time_between_faults


def time_lost(interval: float, cost: float, between_faults: float) -> float:
    """Seconds by a second of work with faults that come by chance alone: Daly's complete model, without restarts."""
    return between_faults * math.expm1((interval + cost) / between_faults) / interval


@pytest.mark.parametrize(("cost", "between_faults"), [(0.05, 3600), (0.5, 300), (10, 300), (60, 90)])
def test_no_other_interval_loses_less(cost: float, between_faults: float) -> None:
    best = best_interval(cost, between_faults)
    least = time_lost(best, cost, between_faults)
    others = [time_lost(best * factor, cost, between_faults) for factor in (0.25, 0.5, 0.8, 1.25, 2, 4)]
    assert min(others) > least * 0.999
    if cost < between_faults / 100:
        assert best == pytest.approx(math.sqrt(2 * cost * between_faults), rel=0.1), "Young's"


def test_where_checkpoints_cost_more_than_faults_they_come_with_the_faults() -> None:
    assert best_interval(700, 300) == 300


def test_the_mean_time_follows_the_faults_and_begins_with_an_hour() -> None:
    assert mean_time_between_faults(0, 0) == FIRST_FAULT_SECONDS == 3600
    assert mean_time_between_faults(36_000, 0) == 147_600
    assert mean_time_between_faults(600, 2) == pytest.approx(667, abs=1)
    assert mean_time_between_faults(36_000, 120) == pytest.approx(307, abs=1)


@pytest.mark.parametrize(
    ("told", "faults"),
    [
        (("start", "checkpoint", "end"), 0),
        (("start", "restart", "checkpoint", "restart", "end"), 2),
        (("start", "told", "start", "end"), 0),
        (("start", "checkpoint", "start", "restart", "start"), 3),
        (("start", "end", "start"), 0),
    ],
)
def test_what_counts_as_a_fault(told: tuple[str, ...], faults: int) -> None:
    """Not who was told to stop; but worker 0 with all that it had, whose successor says start once more."""
    messages = {"told": f"attempt 1 ended: {told_to_stop([1])}", "restart": "attempt 1 ended: worker 1 was lost"}
    events = [Event(0.0, "restart" if kind == "told" else kind, messages.get(kind, "")) for kind in told]
    assert faults_in(events) == faults
