"""The ledger of a run's time: all of it is booked, once, to the right cause."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfleet.goodput import (
    ALL_REDUCE,
    CAUSES,
    CHECKPOINT,
    COMPUTING,
    DATA,
    OTHER,
    RECOVERY,
    REDONE,
    STARTUP,
    STOPPED,
    VALIDATION,
    Ledger,
    Phase,
    goodput,
    goodput_facts,
    goodput_line,
    moved,
)

causes = st.sampled_from([*CAUSES, "a later version's"])
amounts = st.floats(0, 1e5)


def ledger(*lines: Phase) -> Ledger:
    found = Ledger()
    for line in lines:
        found.book(line)
    return found


@given(
    st.lists(
        st.tuples(
            amounts,
            causes,
            st.dictionaries(causes, amounts, max_size=4),
            st.none() | causes,
            st.none() | st.integers(0, 100),
        ),
        min_size=1,
    )
)
def test_all_time_is_booked_once(rows):
    time, lines = 1e9, []
    for pause, then, spent, before, step in rows:
        time += pause
        lines.append(Phase(time, then, spent, before, step))
    found = ledger(*lines)
    wall = lines[-1].time - found.since
    assert math.isclose(sum(found.seconds.values()), wall, rel_tol=1e-6, abs_tol=1e-3)
    assert set(found.seconds) <= set(CAUSES)
    assert all(seconds >= 0 for seconds in found.seconds.values())


@given(st.lists(st.tuples(st.floats(0, 1e9), causes), min_size=1))
def test_a_clock_that_is_behind_takes_nothing_back(rows):
    found, before = Ledger(), 0.0
    for time, then in rows:
        found.book(Phase(time, then))
        assert sum(found.seconds.values()) >= before
        before = sum(found.seconds.values())


def test_steps_that_were_taken_before_are_work_done_again():
    found = ledger(
        Phase(100, STARTUP),
        Phase(110, COMPUTING, step=1),
        Phase(120, COMPUTING, {DATA: 1, ALL_REDUCE: 2}, step=11),
        Phase(125, RECOVERY, before=REDONE),  # killed, with steps that no line tells of
        Phase(130, RECOVERY, step=6),
        Phase(132, COMPUTING, step=7),
        Phase(140, COMPUTING, {ALL_REDUCE: 4}, step=15),  # 4 of 8 steps for the second time
        Phase(142, COMPUTING, {CHECKPOINT: 2}, step=15),
    )
    assert found.seconds == pytest.approx(
        {STARTUP: 10, DATA: 1, ALL_REDUCE: 2 + 2, COMPUTING: 7 + 2, REDONE: 5 + 4, RECOVERY: 5 + 2, CHECKPOINT: 2}
    )
    assert goodput(found.seconds) == pytest.approx(13 / 42)


def test_a_validation_is_never_work_done_again():
    again = ledger(
        Phase(0, COMPUTING, step=10), Phase(0, COMPUTING, step=5), Phase(8, COMPUTING, {VALIDATION: 6}, step=10)
    )
    assert again.seconds == {VALIDATION: 6, REDONE: 2}


def test_what_is_told_beyond_the_time_that_passed_is_cut():
    assert ledger(Phase(0, COMPUTING), Phase(4, COMPUTING, {DATA: 6, CHECKPOINT: 2})).seconds == {
        DATA: 3,
        CHECKPOINT: 1,
    }


def test_a_running_cause_grows_and_nothing_shrinks():
    found = ledger(Phase(10, STARTUP), Phase(14, VALIDATION))
    assert found.totals(20) == {STARTUP: 4, VALIDATION: 6}
    assert found.totals(3) == found.totals() == {STARTUP: 4}


def test_only_what_is_there_is_moved():
    assert moved({RECOVERY: 5.0}, RECOVERY, STOPPED, 7) == {RECOVERY: 0, STOPPED: 5}
    assert moved({RECOVERY: 5.0}, RECOVERY, STOPPED, -7) == {RECOVERY: 5}


@pytest.mark.parametrize(
    ("then", "is_interrupted"),
    [(STARTUP, False), (STOPPED, False), (COMPUTING, True), (VALIDATION, True), (OTHER, True)],
)
def test_a_run_was_interrupted_if_it_had_begun_to_train(then, is_interrupted):
    assert ledger(Phase(1, then)).is_interrupted is is_interrupted
    assert not Ledger().is_interrupted


def test_facts_and_line():
    seconds = {STARTUP: 60.0, COMPUTING: 3000.0, ALL_REDUCE: 600.0, OTHER: 1.0}
    assert goodput_line(seconds) == "0.983 of 1h1m: computing 50m, all-reduce 10m, start 1m"
    assert goodput_facts(seconds) == {"goodput": 0.9833, "wall_seconds": 3661.0, "seconds": seconds}
    assert goodput({}) is None
    assert goodput_facts({}) is None
    assert goodput_line({}) == ""
