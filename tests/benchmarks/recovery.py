"""From SIGKILL of a training process to the next new step, in parts; with a spare process, and without.

The parts are the lines of goodput.jsonl, which the chief's processes write at each of them.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from maskfleet.goodput import COMPUTING, RECOVERY
from maskfleet.phase_log import read_phases
from tests.benchmarks.row import Row
from tests.helpers.processes import LocalRun, until

TURNS = 3
EPOCH = 40
"""Steps of one."""
PARTS = (
    "noticed, and all have ended",
    "process ready",
    "data",
    "all peers there",
    "build",
    "restore, and the state to all",
    "trace and first step",
)
"""What ends with each line after the kill."""


def rows() -> Iterable[Row]:
    for spare in ("on", "off"):
        with tempfile.TemporaryDirectory() as folder:
            settings = (f"--spare={spare}", "--epochs=1000")
            with LocalRun.start(Path(folder) / "run", *settings) as run:
                run.wait_for_step(8)
                turns = [recovery(run, spare == "on") for _ in range(TURNS)]
                run.interrupt()
        name = f"recovery, --spare {spare}"
        for part, seconds in zip((*PARTS, "in all"), zip(*turns, strict=True), strict=True):
            yield Row(f"{name}: {part}", statistics.median(seconds), "s", f"{min(seconds):.2f} to {max(seconds):.2f}")


def recovery(run: LocalRun, spare: bool) -> list[float]:
    """Seconds of each part, and of all, after one kill of worker 1's training process."""
    if spare:
        for worker in range(2):
            run.spare_process(worker)
    run.wait_for_step(run.step() + EPOCH)
    until(lambda: 5 <= run.step() % EPOCH <= 20, "the middle of an epoch, whose end would be another part")
    victim = run.training_process(1)
    _, position = read_phases(run.directory.goodput)
    killed, step = time.time(), run.step()
    victim.kill()
    until(lambda: run.step() > step and run.directory.progress.stat().st_mtime > killed, "a new step")
    whole = time.time() - killed
    lines = [line for line in read_phases(run.directory.goodput, position)[0] if line.time > killed]
    # Before it notices, the chief may have written of steps that were taken before the kill.
    restart = [*itertools.dropwhile(lambda line: line.then != RECOVERY, lines)]
    causes = [line.then for line in restart]
    times = [killed, *(line.time for line in restart[: causes.index(COMPUTING) + 1])]
    # The supervisor's line about the end of the process and that about the start of the next are one part.
    del times[1]
    return [after - before for before, after in itertools.pairwise(times)] + [whole]
