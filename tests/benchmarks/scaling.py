"""Two workers of one thread against one worker of two, at the same global batch."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.all_reduce import seconds_of
from tests.benchmarks.row import Row
from tests.local.harness import LocalRun
from trainer.config import TrainConfig
from trainer.models.network import build_network

GLOBAL_BATCH = 64
"""The tutorial's."""
SETTINGS = ("--image-size=128", "--epochs=3", f"--global-batch={GLOBAL_BATCH}", "--checkpoint-steps=0")
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
    network = build_network(TrainConfig(encoder_weights="none", unfreeze_from="none", image_size=128), classes=3)
    sizes = [math.prod(variable.shape) for variable in network.model.trainable_variables]
    seconds, step = seconds_of(sizes), GLOBAL_BATCH / two
    note = f"{4 * sum(sizes) / 1e6:.0f} MB of gradients in {1e3 * seconds['list']:.0f} ms of a step of {1e3 * step:.0f}"
    yield Row("scaling, all-reduce's share of a step", seconds["list"] / step, "x", note)
    yield Row("scaling, all-reduce of one flat buffer / of the list", seconds["flat"] / seconds["list"], "x")


def _images_per_second(workers: int, threads: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with LocalRun.start(path, *SETTINGS, f"--threads={threads}", workers=workers) as run:
            assert run.wait() == 0, run.output.read_text()
        return float(json.loads(run.directory.metrics.read_text().splitlines()[-1])["images_per_second"])
