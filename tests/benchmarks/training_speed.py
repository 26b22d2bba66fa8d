"""Images per second of the tutorial's recipe: our loop against the same network in Keras's own ``fit``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable

import keras
import tensorflow as tf

from tests.benchmarks.row import Row
from trainer.cluster import Cluster
from trainer.config import TrainConfig
from trainer.data.augmentation import Augmentation
from trainer.data.cache import Dataset, load_dataset
from trainer.data.pipeline import training_batches
from trainer.loop import StopFlag, Training, TrainingState, make_step_function
from trainer.losses import build_loss
from trainer.models.network import build_network
from trainer.plan import Plan
from trainer.schedules import build_optimizer, learning_rate

STEPS = 4
TURNS = 5


def rows() -> Iterable[Row]:
    config = TrainConfig(preset="tutorial", encoder_weights="none")
    dataset = load_dataset("synthetic", None, config.image_size)
    ways = {
        "keras": plain_keras(config, dataset),
        "ours": our_loop(config, dataset),
        "bfloat16": our_loop(config.model_copy(update={"precision": "bfloat16"}), dataset),
    }
    for run in ways.values():
        run()
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, run in ways.items():
            started = time.monotonic()
            run()
            rates[name].append(STEPS * config.batch_per_replica / (time.monotonic() - started))
    keras_rate, our_rate, half_rate = map(statistics.median, rates.values())
    yield Row("training, Keras fit", keras_rate, "images/s", "tutorial's recipe, float32")
    yield Row("training, launcher run --preset tutorial", our_rate, "images/s", "same network, same batch")
    yield Row("training, ratio", our_rate / keras_rate, "x", "1 or more is wanted")
    yield Row("training, --precision bfloat16, ratio", half_rate / keras_rate, "x", "depends on the CPU's instructions")


def plain_keras(config: TrainConfig, dataset: Dataset) -> Callable[[], None]:
    """The tutorial's own way: compile and fit on a cached, shuffled, batched tf.data pipeline."""
    model = build_network(config, len(dataset.classes)).model
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    data = tf.data.Dataset.from_tensor_slices((dataset.train.images, dataset.train.masks))
    data = data.map(lambda image, mask: (tf.cast(image, tf.float32), mask)).cache().shuffle(1000)
    data = data.batch(config.batch_per_replica, drop_remainder=True).repeat().prefetch(tf.data.AUTOTUNE)
    return lambda: model.fit(data, epochs=1, steps_per_epoch=STEPS, verbose=0) and None


def our_loop(config: TrainConfig, dataset: Dataset) -> Callable[[], None]:
    """The steps of ``trainer.loop``, with what it reads back after each of them."""
    batch = config.batch_per_replica
    plan = Plan(len(dataset.train), batch, 1000, (slice(0, batch),))
    network = build_network(config, len(dataset.classes))
    schedule = learning_rate(config, steps_per_epoch=plan.examples / batch, total_steps=plan.steps, scale=1.0)
    optimizer = build_optimizer(config, schedule, network.encoder)
    optimizer.build(network.model.trainable_variables)
    loss = build_loss(config, len(dataset.classes), dataset.train.masks)
    training = Training(
        config, Cluster(), tf.distribute.get_strategy(), dataset, network, optimizer, loss, plan,
        TrainingState(len(dataset.classes)), StopFlag(), lambda: None, None, None,
    )  # fmt: skip
    step = make_step_function(training)
    batches = iter(
        training_batches(
            dataset.train,
            global_batch=batch,
            worker_slice=slice(0, batch),
            seed=0,
            first_step=0,
            last_step=plan.steps,
            augmentation=Augmentation.of(config),
        )
    )

    def run() -> None:
        for _ in range(STEPS):
            images, masks, _ = next(batches)
            float(step(images, masks, tf.constant(0.0, tf.float64))[0])

    return run
