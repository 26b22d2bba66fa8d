"""Two workers of one thread against one worker of two at the same global batch."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.all_reduce import gradient_sizes, seconds_of
from tests.benchmarks.row import Row
from tests.helpers.processes import LocalRun

GLOBAL_BATCH, SMALL_BATCH = 64, 16
"""The tutorial's; and one whose steps are so short that the all-reduce weighs more."""
SETTINGS = ("--image-size=128", "--epochs=3", "--checkpoint-steps=0")
TURNS = 3


def rows() -> Iterable[Row]:
    ways = {
        "whole": (1, 2, GLOBAL_BATCH),
        "2 workers": (2, 1, GLOBAL_BATCH),
        "whole, small": (1, 2, SMALL_BATCH),
        "2 workers, small": (2, 1, SMALL_BATCH),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            rates[name].append(_images_per_second(*way))
    rate = {name: statistics.median(turns) for name, turns in rates.items()}
    two = rate["2 workers"]
    yield Row("scaling, 1 worker x 2 threads", rate["whole"], "images/s", f"global batch {GLOBAL_BATCH}")
    yield Row("scaling, 2 workers x 1 thread", two, "images/s", f"global batch {GLOBAL_BATCH}")
    yield Row("scaling, ratio", two / rate["whole"], "x", ".95 or more is wanted")
    small = rate["2 workers, small"] / rate["whole, small"]
    yield Row(f"scaling, ratio at global batch {SMALL_BATCH}", small, "x", ".95 or more is wanted")
    sizes = gradient_sizes()
    size, seconds, step = 4 * sum(sizes), seconds_of(sizes), GLOBAL_BATCH / two
    note = f"{size / 1e6:.0f} MB of gradients in {1e3 * seconds['list']:.0f} ms of a step of {1e3 * step:.0f}"
    yield Row("scaling, all-reduce's share of a step", seconds["list"] / step, "x", note)
    yield Row("scaling, all-reduce of one flat buffer / of the list", seconds["flat"] / seconds["list"], "x")


def _images_per_second(workers: int, threads: int, global_batch: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path, settings = Path(folder) / "run", (*SETTINGS, f"--global-batch={global_batch}", f"--threads={threads}")
        with LocalRun.start(path, *settings, workers=workers) as run:
            assert run.wait() == 0, run.output.read_text()
        return float(json.loads(run.directory.metrics.read_text().splitlines()[-1])["images_per_second"])
