"""Two workers of one thread against one worker of two, at the same global batch."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.row import Row
from tests.local.harness import LocalRun

SETTINGS = ("--image-size=128", "--epochs=2", "--global-batch=16", "--checkpoint-steps=0")
TURNS = 3


def rows() -> Iterable[Row]:
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(TURNS):
        for workers, threads in ((1, 2), (2, 1)):
            rates[workers].append(_images_per_second(workers, threads))
    one, two = statistics.median(rates[1]), statistics.median(rates[2])
    yield Row("scaling, 1 worker x 2 threads", one, "images/s")
    yield Row("scaling, 2 workers x 1 thread", two, "images/s")
    yield Row("scaling, ratio", two / one, "x", ".95 or more is wanted")


def _images_per_second(workers: int, threads: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with LocalRun.start(path, *SETTINGS, f"--threads={threads}", workers=workers) as run:
            assert run.wait() == 0, run.output.read_text()
        return float(json.loads(run.directory.metrics.read_text().splitlines()[-1])["images_per_second"])
