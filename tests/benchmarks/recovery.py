"""From SIGKILL of a training process to the next new step, in parts."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.row import Row
from tests.helpers.processes import LocalRun, until


def rows() -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as folder, LocalRun.start(Path(folder) / "run", "--epochs=20") as run:
        run.wait_for_step(8)
        victim = run.training_process(1)
        step = run.step()
        killed = time.time()
        victim.kill()
        until(lambda: len(_events(run, "restart")) > 0, "a restart")
        detected = _events(run, "restart")[0]["time"]
        started = run.training_process(0).create_time()
        until(lambda: "goes on from step" in run.output.read_text(), "the restored state")
        restored = time.time()
        until(lambda: run.step() > step, "a new step")
        new_step = time.time()
        run.interrupt()
    yield Row("recovery, detection", detected - killed, "s", "SIGKILL until the chief stops all workers")
    yield Row("recovery, processes end and start", max(0.0, started - detected), "s")
    yield Row("recovery, import, data, network, restore", restored - max(started, detected), "s")
    yield Row("recovery, lost steps done again", new_step - restored, "s", "graph of the step, then up to 5 steps")
    yield Row("recovery, in all", new_step - killed, "s", "15 s or less is wanted on 2 cores")


def _events(run: LocalRun, kind: str) -> list[dict]:
    lines = run.directory.events.read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == kind]
