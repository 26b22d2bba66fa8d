"""goodput.jsonl, as the processes of a run write it one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskfleet import phase_log
from maskfleet.goodput import (
    ALL_REDUCE,
    CHECKPOINT,
    COMPUTING,
    PEERS,
    PREPARING,
    RECOVERY,
    REDONE,
    STARTUP,
    STOPPED,
    VALIDATION,
    Ledger,
)
from maskfleet.phase_log import PhaseLog, ledger_of
from maskfleet.run_directory import RunDirectory


class Clock:
    """Stands in for ``time``: both clocks of this machine."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return 1e9 + self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(phase_log, "time", clock)
    return clock


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def trained(run: RunDirectory, clock: Clock) -> PhaseLog:
    """Of a training process that has taken its first step after 10 s, and seven more by 19 s."""
    PhaseLog(run).take_over()
    process = PhaseLog(run)
    process.begin_start(PREPARING)
    clock.now += 4
    process.begin_start(STARTUP, step=0)
    clock.now += 6
    process.steps(1, {ALL_REDUCE: 5.0})
    for step in range(2, 9):
        clock.now += 9 / 7
        process.steps(step, {ALL_REDUCE: 0.3})
    return process


def test_a_run_with_a_validation_and_a_checkpoint(run: RunDirectory, clock: Clock):
    process = trained(run, clock)
    with process.phase(VALIDATION):
        clock.now += 3
        assert process.catch_up().last.then == VALIDATION
    with process.spending(CHECKPOINT):
        clock.now += 1
    process.begin(STOPPED)
    expected = {PREPARING: 4, STARTUP: 6, COMPUTING: 9 - 2.1, ALL_REDUCE: 2.1, VALIDATION: 3, CHECKPOINT: 1}
    assert ledger_of(run).seconds == pytest.approx(expected)


def test_lines_about_steps_become_rarer(run: RunDirectory, clock: Clock):
    process = PhaseLog(run)
    for step in range(100_000):
        clock.now += 1
        process.steps(step, {})
    lines = run.goodput.read_text().count("\n")
    assert 100_000 / 30 < lines < 7000
    process.close()


@pytest.mark.parametrize("killed", [True, False])
def test_after_a_fault_all_is_the_restart_until_the_next_step(run: RunDirectory, clock: Clock, killed: bool):
    process = trained(run, clock)
    if not killed:
        process.close()
    clock.now += 2
    supervisor = PhaseLog(run)
    supervisor.interrupted(killed=killed)
    clock.now += 1
    supervisor.begin_start(STARTUP)
    again = PhaseLog(run)
    again.begin_start(PREPARING)
    clock.now += 5
    again.begin_start(STARTUP, step=4)
    again.steps(5, {})
    clock.now += 10
    again.steps(10, {})
    again.close()
    redone = 10 * 3 / 5
    found = ledger_of(run).seconds
    assert found[RECOVERY] == pytest.approx(6 if killed else 8)
    assert found[REDONE] == pytest.approx(redone + 2 if killed else redone)
    assert sum(found.values()) == pytest.approx(37)


@pytest.mark.parametrize(("by_user", "cause"), [(True, STOPPED), (False, RECOVERY)])
def test_a_run_that_was_cut_off_altogether(run: RunDirectory, clock: Clock, by_user: bool, cause: str):
    trained(run, clock)
    clock.now += 100
    PhaseLog(run).take_over(by_user=by_user, cause=PEERS)
    clock.now += 10
    later = PhaseLog(run)
    later.begin_start(STARTUP)
    assert later.catch_up().seconds[cause] >= 100
    assert later.ledger.last.then == (STARTUP if by_user else RECOVERY)


def test_time_since_a_run_has_ended_is_its_users(run: RunDirectory, clock: Clock):
    PhaseLog(run).begin(STOPPED)
    clock.now += 50
    PhaseLog(run).take_over()
    assert ledger_of(run).seconds == {STOPPED: 50}


def test_a_line_that_a_kill_has_cut_is_passed_over(run: RunDirectory, clock: Clock):
    PhaseLog(run).begin(STARTUP)
    with run.goodput.open("ab") as file:
        file.write(b'{"time": 1000000')
    assert ledger_of(run).last.then == STARTUP
    clock.now += 5
    PhaseLog(run).begin(COMPUTING)
    assert ledger_of(run).seconds == {STARTUP: 5}


def test_any_worker_but_the_chief_writes_nothing(clock: Clock):
    log = PhaseLog(None)
    log.take_over()
    log.steps(1, {})
    log.interrupted(killed=True)
    assert log.catch_up() == Ledger()


def test_a_full_disk_is_not_told_here(tmp_path: Path):
    (tmp_path / "file").write_text("")
    PhaseLog(RunDirectory(tmp_path / "file")).begin(STARTUP)
