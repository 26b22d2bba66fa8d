"""Workers of a range, by real supervisors: they go on without those that are missing, and with those that come."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.local.local_run import free_port_pairs
from maskfleet.environment import (
    PEERS_VARIABLE,
    SHRINK_AFTER_VARIABLE,
    TOKEN_FILE_VARIABLE,
    WORKER_VARIABLE,
    WORKERS_VARIABLE,
)
from maskfleet.goodput import PEERS, RECOVERY
from maskfleet.pace import FleetPace
from maskfleet.phase_log import ledger_of
from maskfleet.records import Event, Progress
from maskfleet.run_directory import RunDirectory
from tests.helpers.processes import INVARIANT, PATIENCE, SETTINGS, LocalRun, losses, until

EPOCHS = "--epochs=5"
SHRINK_AFTER = 4


class Workers:
    """One to three workers of a run, started by hand as pods are."""

    def __init__(self, run: RunDirectory, *settings: str):
        self.run, self._settings = run, settings
        run.path.mkdir()
        self._token = run.path.parent / "token"
        self._token.write_text("of this test")
        self._pattern = _pattern_of_ports(3)
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def start(self, *workers: int) -> None:
        for worker in workers:
            environment = {
                **os.environ,
                PEERS_VARIABLE: self._pattern,
                WORKERS_VARIABLE: "1..3",
                WORKER_VARIABLE: str(worker),
                SHRINK_AFTER_VARIABLE: str(SHRINK_AFTER),
                TOKEN_FILE_VARIABLE: str(self._token),
            }
            self.processes[worker] = subprocess.Popen(
                [sys.executable, "-m", "trainer.cli", "train", "--run-dir", str(self.run.path), *self._settings],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip

    def kill(self, worker: int) -> None:
        process = self.processes.pop(worker)
        process.kill()
        process.communicate()

    def step(self) -> int:
        progress = Progress.read(self.run)
        return -1 if progress is None else progress.step

    def until_step(self, step: int) -> None:
        until(lambda: self.step() >= step or self._has_ended(), f"step {step}")
        assert self.step() >= step, self.outputs()

    def until_trained_by(self, present: str) -> None:
        def trains() -> bool:
            found = FleetPace.read(self.run)
            return (found is not None and found.present == present) or self._has_ended()

        until(trains, f"training by workers {present}")
        assert not self._has_ended(), self.outputs()

    def _has_ended(self) -> bool:
        return any(process.poll() is not None for process in self.processes.values())

    def wait(self) -> dict[int, int]:
        return {worker: process.wait(PATIENCE) for worker, process in self.processes.items()}

    def outputs(self) -> str:
        for process in self.processes.values():
            process.kill()
        return "\n".join(process.communicate()[0] for process in self.processes.values())


def _pattern_of_ports(count: int) -> str:
    """Addresses that differ in one digit, as a pattern makes them of the index."""
    while True:
        (port,) = free_port_pairs(1)
        pattern = f"{port // 100}{{}}{port % 10}"
        if port % 100 < 10 and all(int(pattern.format(index)) % 2 == 0 for index in range(count)):
            return f"127.0.0.1:{pattern}"


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    found = Workers(RunDirectory(tmp_path / "run"), *SETTINGS, *INVARIANT, EPOCHS)
    try:
        yield found
    finally:
        for worker in list(found.processes):
            found.kill(worker)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    with LocalRun.start(tmp_path_factory.mktemp("alone") / "run", *INVARIANT, EPOCHS, workers=1) as run:
        assert run.wait() == 0, run.output.read_text()
    return losses(run.directory)


def test_they_shrink_and_grow_without_changing_a_loss(workers: Workers, undisturbed: dict[int, float]) -> None:
    workers.start(0, 2)
    workers.until_trained_by("0,2")
    workers.until_step(10)
    workers.start(1)
    workers.until_trained_by("0-2")
    workers.until_step(workers.step() + 10)
    workers.kill(1)
    workers.until_trained_by("0,2")
    assert set(workers.wait().values()) == {0}, workers.outputs()

    found = losses(workers.run)
    assert sorted(found) == sorted(undisturbed)
    for step, loss in undisturbed.items():
        assert found[step] == pytest.approx(loss, abs=1e-4), f"step {step}"
    told = [event.message for event in Event.read_all(workers.run) if event.kind in ("start", "scale")]
    assert told == [
        "training starts on 2 of 1 to 3 workers: worker 1 has not come within 4s",
        "training goes on with 3 of 1 to 3 workers: worker 1 has come",
        "training goes on with 2 of 1 to 3 workers: worker 1 was lost; worker 1 has not come back within 4s",
    ]
    spent = ledger_of(workers.run).seconds
    assert spent[PEERS] >= 2 * SHRINK_AFTER - 1
    assert spent[RECOVERY] > 0
    log = workers.run.worker_log(2).read_text()
    assert re.search(r"worker 2 ends with step 200 and the state sha256", log), log
    assert "global batch 6 (3 + 3); " in workers.run.worker_log(0).read_text()
