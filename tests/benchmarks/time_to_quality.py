"""Training time until a mean IoU on the test split: the default preset against the tutorial's, on real photographs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.row import Row
from tests.local.harness import LocalRun
from tests.shared import shared

MIOU = 0.656
"""The tutorial's best."""


def rows() -> Iterable[Row]:
    pets, weights = shared("data", "oxford_iiit_pet"), shared("data", "weights")
    (file,) = weights.glob("*.h5")
    ways = ("--preset=tutorial", "--epochs=30"), ("--epochs=4",)
    data = (f"--data=folder:{pets}", f"--encoder-weights={file}", "--no-export")
    tutorial, default = (_seconds_to(MIOU, *data, *settings) for settings in ways)
    yield Row(f"time to mIoU {MIOU}, --preset tutorial", tutorial, "s", "of training; inf: not reached in 30 epochs")
    yield Row(f"time to mIoU {MIOU}, default preset, 4 epochs", default, "s", "of training")
    yield Row(f"time to mIoU {MIOU}, share of the tutorial's", default / tutorial, "x", "0.1 is wanted")


def _seconds_to(miou: float, *settings: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with LocalRun(path, f"--run-dir={path}", "--", *settings) as run:
            assert run.wait() == 0, run.output.read_text()
        lines = map(json.loads, run.directory.metrics.read_text().splitlines())
        return min((line["training_seconds"] for line in lines if line["miou"] >= miou), default=float("inf"))
