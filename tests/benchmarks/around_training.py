"""What surrounds the training steps, against the same in the tutorial's plain Keras: input, validation, prediction,
the stall of a checkpoint."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.run_directory import RunDirectory
from tests.benchmarks import plain_keras
from tests.benchmarks.row import Row
from tests.benchmarks.turns import medians
from tests.helpers.training_steps import batches, set_up
from trainer.checkpoints.reading import optimizer_by_path, weights_by_path
from trainer.checkpoints.store import CheckpointStore
from trainer.data.cache import load_dataset
from trainer.results.evaluation import masker
from trainer.training.collectives import make_sum_over_workers
from trainer.training.loop import validate
from trainer.training.state import Training
from trainer.training.steps import make_evaluation_function

BATCHES = 8
SIZE = 224
"""Of the default's network, pixels."""
TURNS = 3


def rows() -> Iterable[Row]:
    dataset = load_dataset("synthetic", None, 128)
    tutorial = TrainConfig(preset="tutorial", encoder_weights="none", unfreeze_from="none")
    training = set_up(tutorial, dataset)
    images = tutorial.model_copy(update={"cache_features": False})
    model = plain_keras.compiled("none", dataset)
    test, pictures = plain_keras.testing_pipeline(dataset.test), dataset.test.images
    predict = masker(training.network.model)
    with tempfile.TemporaryDirectory() as folder:
        state = tf.train.Checkpoint(
            weights=weights_by_path(training.network.model),
            optimizer=optimizer_by_path(training.optimizer),
            state=training.state,
        )
        store, steps = CheckpointStore(RunDirectory(Path(folder)), state, keep=3), itertools.count()
        pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "input pipeline alone": (
                reader(plain_keras.training_pipeline(dataset.train)),
                reader(batches(set_up(images, dataset))),
            ),
            "validation": (lambda: model.evaluate(test, verbose=0), validator(training)),
            "validation of the default's network": validations_of_the_default(),
            "prediction": (
                lambda: model.predict(pictures, batch_size=plain_keras.BATCH, verbose=0),
                lambda: [predict(pictures[start : start + 16]) for start in range(0, len(pictures), 16)],
            ),
            "checkpoint, until it is written": (
                lambda: model.save(Path(folder) / "model.keras"),
                lambda: (store.save(next(steps), 0, 0.0, None, None), store.wait()),
            ),
        }
        for name, (theirs, ours) in pairs.items():
            seconds = medians({"theirs": theirs, "ours": ours}, TURNS)
            yield Row(
                f"{name}, speed against plain Keras",
                seconds["theirs"] / seconds["ours"],
                "x",
                f"{seconds['ours']:.3f} s against {seconds['theirs']:.3f} s",
            )


def validator(training: Training) -> Callable[[], object]:
    """Scores the split on which epochs are validated."""
    evaluate, add_up = make_evaluation_function(training), make_sum_over_workers(training)
    return lambda: validate(training, evaluate, add_up)


def validations_of_the_default() -> tuple[Callable[[], object], Callable[[], object]]:
    """Keras's ``evaluate`` with the loss and the accuracy, and ours."""
    dataset = load_dataset("synthetic", None, SIZE)
    training = set_up(TrainConfig(encoder_weights="none", image_size=SIZE), dataset)
    model = keras.models.clone_model(training.network.model)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    test = plain_keras.testing_pipeline(dataset.test)
    return lambda: model.evaluate(test, verbose=0), validator(training)


def reader(data: tf.data.Dataset) -> Callable[[], None]:
    """Takes the next few batches."""
    iterator = iter(data)

    def read() -> None:
        for _ in range(BATCHES):
            next(iterator)

    return read
