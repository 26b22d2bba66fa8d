"""Training time until a mean IoU on the test split, on real photographs, against the tutorial's script in Keras."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.row import Row
from tests.helpers.processes import LocalRun
from tests.helpers.shared import shared

MIOU = 0.656
"""The tutorial's best within 30 epochs."""
WAYS = {"the default": (), "--image-size 128": ("--image-size=128",)}
"""The second scores on the tutorial's own grid."""


def rows() -> Iterable[Row]:
    pets, weights = shared("data", "oxford_iiit_pet"), shared("data", "weights")
    (file,) = weights.glob("*.h5")
    tutorial = keras_script(f"folder:{pets}", str(file))
    theirs, best = seconds_to(MIOU, tutorial)
    yield Row(
        f"time to mIoU {MIOU}, the tutorial in Keras", theirs, "s", f"of training; its best of 30 epochs {best:.3f}"
    )
    for name, settings in WAYS.items():
        epochs = our_run(f"--data=folder:{pets}", f"--encoder-weights={file}", *settings)
        ours, best = seconds_to(MIOU, epochs)
        after, _ = seconds_to(best, epochs)
        yield Row(f"time to mIoU {MIOU}, {name}", ours, "s", f"of training; its best {best:.3f} after {after:.0f} s")
        if math.isfinite(ours):
            # A script that never got there is taken for one that did at its end.
            whole = theirs if math.isfinite(theirs) else tutorial[-1]["training_seconds"]
            yield Row(f"time to mIoU {MIOU}, {name}, share of the tutorial's", ours / whole, "x", "0.1 is wanted")


def keras_script(data: str, weights: str) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "tests.benchmarks.plain_keras", "30", data, weights]
    output = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    return [json.loads(line) for line in output.splitlines()[1:]]


def our_run(*settings: str) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with LocalRun(path, f"--run-dir={path}", "--", *settings, "--no-export") as run:
            assert run.wait() == 0, run.output.read_text()
        return [json.loads(line) for line in run.directory.metrics.read_text().splitlines()]


def seconds_to(miou: float, epochs: list[dict[str, float]]) -> tuple[float, float]:
    """Seconds of training until an epoch of at least ``miou`` (inf: never), and the best one's."""
    reached = min((line["training_seconds"] for line in epochs if line["miou"] >= miou), default=math.inf)
    return reached, max(line["miou"] for line in epochs)
