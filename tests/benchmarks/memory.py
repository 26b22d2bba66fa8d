"""Memory of a training process over 2,000 steps, with many workers' collectives in each."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.row import Row
from tests.helpers.processes import LocalRun

FIRST, LAST = 600, 2600
"""Steps; the first hundreds fill the allocators' arenas."""
SAMPLES, SAMPLE_STEPS = 5, 40


def rows() -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as folder:
        settings = ("--epochs=200", "--checkpoint-steps=0", "--checkpoint-seconds=20")
        with LocalRun.start(Path(folder) / "run", *settings, workers=2) as run:
            used = []
            for step in (FIRST, LAST):
                samples = []
                for number in range(SAMPLES):
                    run.wait_for_step(step + number * SAMPLE_STEPS)
                    samples.append([run.training_process(worker).memory_info().rss for worker in range(2)])
                used.append([statistics.median(worker) for worker in zip(*samples, strict=True)])
            run.interrupt()
    for worker, (before, after) in enumerate(zip(*used, strict=True)):
        yield Row(
            f"memory, worker {worker}",
            after / before,
            "x",
            f"{before / 2**20:.0f} MiB at step {FIRST}, {after / 2**20:.0f} MiB at step {LAST}",
        )
