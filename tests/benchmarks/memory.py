"""Memory of a training process over 2,000 steps."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.row import Row
from tests.local.harness import LocalRun

FIRST, LAST = 200, 2000


def rows() -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as folder:
        settings = ("--epochs=200", "--checkpoint-steps=0", "--checkpoint-seconds=20")
        with LocalRun.start(Path(folder) / "run", *settings, workers=2) as run:
            used = []
            for step in (FIRST, LAST):
                run.wait_for_step(step)
                used.append([run.training_process(worker).memory_info().rss for worker in range(2)])
            run.interrupt()
    for worker, (before, after) in enumerate(zip(*used, strict=True)):
        yield Row(
            f"memory, worker {worker}",
            after / before,
            "x",
            f"{before >> 20} MiB at step {FIRST}, {after >> 20} MiB at step {LAST}",
        )
