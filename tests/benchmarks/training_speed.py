"""Images per second of the tutorial's recipe: our loop against the same network in Keras's own ``fit``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf

from tests.benchmarks import plain_keras
from tests.benchmarks.row import Row
from tests.benchmarks.turns import medians
from tests.training_steps import losses, set_up
from trainer.config import TrainConfig
from trainer.data.cache import Dataset, load_dataset

STEPS = 2
TURNS = 5


def rows() -> Iterable[Row]:
    dataset = load_dataset("synthetic", None, 128)
    ways = {
        "tutorial": keras_fit(dataset),
        "ours": our_steps(dataset),
        "without the cached features": our_steps(dataset, cache_features=False),
    }
    half = "--precision bfloat16"
    if computes_bfloat16():
        ways[half] = our_steps(dataset, precision="bfloat16")
    seconds = medians(ways, TURNS)
    images = STEPS * plain_keras.BATCH
    base = images / seconds.pop("tutorial")
    yield Row("training, the tutorial in Keras fit", base, "images/s", "float32, frozen encoder, batch 64")
    wanted = {"ours": "1.5 is wanted", half: "2.0 is wanted"}
    for name, taken in seconds.items():
        title = "launcher run --preset tutorial" + ("" if name == "ours" else f", {name}")
        yield Row(f"training, {title}, ratio", images / taken / base, "x", wanted.get(name, "1 or more is wanted"))
    if half not in seconds:
        yield Row(
            f"training, launcher run --preset tutorial, {half}, ratio", math.nan, "x", "this CPU only emulates it"
        )


def computes_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 in hardware, by a GPU or the CPU's instructions."""
    flags = Path("/proc/cpuinfo").read_text()
    return bool(tf.config.list_physical_devices("GPU")) or "avx512_bf16" in flags or "amx_bf16" in flags


def keras_fit(dataset: Dataset) -> Callable[[], None]:
    model = plain_keras.compiled("none", dataset)
    data = plain_keras.training_pipeline(dataset.train)
    return lambda: model.fit(data, epochs=1, steps_per_epoch=STEPS, verbose=0) and None


def our_steps(dataset: Dataset, **settings: Any) -> Callable[[], None]:
    config = TrainConfig(preset="tutorial", encoder_weights="none", **settings)
    steps = losses(set_up(config, dataset))

    def run() -> None:
        for _ in range(STEPS):
            next(steps)

    return run
