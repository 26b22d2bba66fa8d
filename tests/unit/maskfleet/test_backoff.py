"""Pauses grow to their limit, differ between those who wait, and end at the deadline."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace

import hypothesis
import pytest
from hypothesis import strategies as st

from maskfleet import backoff
from maskfleet.backoff import pauses


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(backoff, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@hypothesis.given(st.floats(0.001, 10), st.floats(1, 100), st.integers(1, 60))
def test_they_double_up_to_the_longest(first: float, factor: float, count: int) -> None:
    longest = first * factor
    whole = first
    for pause in itertools.islice(pauses(first, longest), count):
        assert whole / 2 <= pause <= whole
        whole = min(2 * whole, longest)


def test_two_that_fail_together_do_not_come_back_together() -> None:
    assert next(pauses(1, 8)) != next(pauses(1, 8))


@pytest.mark.parametrize("timeout", [0.05, 1.0, 17.3])
def test_the_last_one_ends_at_the_deadline(clock: Clock, timeout: float) -> None:
    begun = clock.now
    for pause in pauses(0.1, 2.0, timeout=timeout):
        assert 0 < pause <= 2.0
        clock.now += pause
    assert clock.now - begun == pytest.approx(timeout)


def test_the_time_that_a_try_takes_counts_from_the_first_on(clock: Clock) -> None:
    waits = pauses(0.1, 2.0, timeout=5.0)
    clock.now += 4.96
    assert next(waits) == pytest.approx(0.04)
    clock.now += 0.5
    assert next(waits, None) is None


def test_without_time_there_is_none(clock: Clock) -> None:
    assert list(pauses(0.1, 2.0, timeout=0)) == []


def test_who_waits_takes_no_number_from_python_s_own_generator() -> None:
    """A network's initial weights come from it, also while another thread waits for a server."""
    before = random.getstate()
    list(itertools.islice(pauses(0.1, 1.0), 5))
    assert random.getstate() == before
