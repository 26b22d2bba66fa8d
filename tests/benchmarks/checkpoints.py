"""What a checkpoint every ten seconds takes from training by the tutorial's recipe."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.run_directory import RunDirectory
from tests.benchmarks.row import Row
from tests.benchmarks.turns import medians
from tests.helpers.training_steps import losses, set_up
from trainer.checkpoints.reading import optimizer_by_path, weights_by_path
from trainer.checkpoints.store import CheckpointStore
from trainer.data.cache import load_dataset

SECONDS, TURNS = 10.0, 9


def rows() -> Iterable[Row]:
    config = TrainConfig(preset="tutorial", encoder_weights="none", unfreeze_from="none")
    training = set_up(config, load_dataset("synthetic", None, 128))
    taken = losses(training)
    next(taken)
    began = time.monotonic()
    for _ in range(5):
        next(taken)
    steps = max(1, round(SECONDS / (time.monotonic() - began) * 5))
    state = tf.train.Checkpoint(
        weights=weights_by_path(training.network.model),
        optimizer=optimizer_by_path(training.optimizer),
        state=training.state,
    )
    held: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        store, numbers = CheckpointStore(RunDirectory(Path(folder)), state, keep=3), itertools.count(1)

        def train() -> None:
            for _ in range(steps):
                next(taken)

        def save_and_train() -> None:
            started = time.monotonic()
            store.save(next(numbers), 0, 0.0, None, None)
            held.append(time.monotonic() - started)
            train()
            store.wait()

        seconds = medians({"none": train, "saving": save_and_train}, TURNS)
        size = sum(path.stat().st_size for path in store.run.checkpoints.glob("step-*")) / 3
    yield Row(
        "checkpoint every 10 s, images/s against none",
        seconds["none"] / seconds["saving"],
        "x",
        f"{steps} steps in {seconds['none']:.2f} s; {size / 1e6:.0f} MB, written in {store.writing_seconds:.2f} s by "
        f"{store.writing_cpu_seconds:.2f} s of a CPU; steps held up for {sorted(held)[len(held) // 2]:.3f} s",
    )
