"""Images per second of the tutorial's recipe: our loop against the same network in Keras's own ``fit``."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import keras

from maskfleet.config import TrainConfig
from tests.benchmarks import plain_keras
from tests.benchmarks.roofline import matrix_products, product_operations, side, step_operations
from tests.benchmarks.row import Row
from tests.benchmarks.turns import Way, in_own_process, medians
from tests.helpers.training_steps import losses, set_up
from trainer.data.cache import load_dataset
from trainer.supervision.training_process import PROCESS_DEFAULTS
from trainer.training.precision import bfloat16_unit

STEPS = 2
TURNS = 5
IMAGE_SIZE = 128


def rows() -> Iterable[Row]:
    half = "--precision bfloat16"
    ours = {"ours": {}, "without the cached features": {"cache_features": False}}
    if bfloat16_unit() is not None:
        ours[half] = {"precision": "bfloat16"}
    load_dataset("synthetic", None, IMAGE_SIZE)  # drawn before they start side by side
    with ExitStack() as stack:
        ways = {"tutorial": stack.enter_context(in_own_process(keras_fit))}
        for name, settings in ours.items():
            make = functools.partial(our_steps, **settings)
            ways[name] = stack.enter_context(in_own_process(make, **PROCESS_DEFAULTS))
        ways["product"] = stack.enter_context(in_own_process(matrix_products, **PROCESS_DEFAULTS))
        seconds = medians(ways, TURNS)
    peak = product_operations() / seconds.pop("product")
    images = STEPS * plain_keras.BATCH
    base = images / seconds.pop("tutorial")
    yield Row("training, the tutorial in Keras fit", base, "images/s", "float32, frozen encoder, batch 64")
    wanted = {"ours": "1.5 is wanted", half: "2.0 is wanted"}
    for name, taken in seconds.items():
        title = "launcher run --preset tutorial" + ("" if name == "ours" else f", {name}")
        yield Row(f"training, {title}, ratio", images / taken / base, "x", wanted.get(name, "1 or more is wanted"))
    config = TrainConfig(preset="tutorial", encoder_weights="none", unfreeze_from="none")
    operations = step_operations(config, 3, plain_keras.BATCH)
    rate = STEPS * operations / seconds["ours"]
    note = f"float32: {rate / 1e9:.0f} of the {peak / 1e9:.0f} GFLOP/s of products of matrices {side()} x {side()}"
    yield Row("training, launcher run --preset tutorial, share of the roofline", rate / peak, "x", note)
    if half not in seconds:
        yield Row(
            f"training, launcher run --preset tutorial, {half}, ratio", math.nan, "x", "this CPU only emulates it"
        )


def keras_fit() -> Way:
    """A turn is a few steps of one ``fit``, since each ``fit`` ends with a wait; see :mod:`plain_keras`."""
    dataset = load_dataset("synthetic", None, IMAGE_SIZE)
    model = plain_keras.compiled("none", dataset)
    data = plain_keras.training_pipeline(dataset.train)
    wanted, done = threading.Semaphore(0), threading.Semaphore(0)

    class Turns(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            if batch % STEPS == 0:
                wanted.acquire()

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            if (batch + 1) % STEPS == 0:
                done.release()

    def fit() -> None:
        model.fit(data, steps_per_epoch=STEPS * (TURNS + 1), verbose=0, callbacks=[Turns()])

    threading.Thread(target=fit, daemon=True).start()

    def run() -> None:
        wanted.release()
        done.acquire()

    return run


def our_steps(**settings: Any) -> Way:
    config = TrainConfig(preset="tutorial", encoder_weights="none", unfreeze_from="none", **settings)
    steps = losses(set_up(config, load_dataset("synthetic", None, IMAGE_SIZE)))

    def run() -> None:
        for _ in range(STEPS):
            next(steps)

    return run
