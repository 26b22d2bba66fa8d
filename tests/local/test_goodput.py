"""The time of a real run is booked, once, to what it was spent on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from maskfleet.goodput import (
    ALL_REDUCE,
    CHECKPOINT,
    COMPUTING,
    RECOVERY,
    REDONE,
    RESULTS,
    STARTUP,
    STOPPED,
    VALIDATION,
    goodput,
)
from maskfleet.phase_log import ledger_of
from tests.helpers.processes import LocalRun

LAUNCHER_SECONDS = 2.0
"""For Python to start and end around what a run can tell of."""


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_a_run_that_is_killed_and_stopped_by_its_user(tmp_path: Path, victim: int):
    began = time.monotonic()
    with LocalRun.start(tmp_path / "run", "--epochs=3", "--checkpoint-steps=20") as run:
        run.wait_for_step(35)
        run.training_process(victim).kill()
        run.wait_for_step(50)
        assert run.interrupt() == 130
    time.sleep(10)
    with LocalRun.resume(tmp_path / "run") as run:
        assert run.wait() == 0, run.output.read_text()
    wall = time.monotonic() - began
    spent = ledger_of(run.directory).seconds
    assert sum(spent.values()) == pytest.approx(wall, rel=0.01, abs=2 * LAUNCHER_SECONDS)
    for cause in (STARTUP, COMPUTING, ALL_REDUCE, VALIDATION, CHECKPOINT, REDONE, RECOVERY, RESULTS):
        assert spent[cause] > 0, spent
    assert 10 < spent[STOPPED] < 10 + 2 * LAUNCHER_SECONDS + 1
    assert spent[RECOVERY] > 1, "whatever a spare process saves, the network is built again"
    assert spent[REDONE] < 0.5 * spent[COMPUTING] + spent[ALL_REDUCE] + 5
    assert f"goodput:     {goodput(spent):.3f} of " in run.output.read_text()
