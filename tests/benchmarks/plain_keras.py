"""TensorFlow's segmentation tutorial as plain Keras: what everything else is compared with.

As a script, ``python -m tests.benchmarks.plain_keras EPOCHS DATA WEIGHTS``, it trains by ``fit`` and prints a line of
JSON after its first step and after each epoch.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time

import keras
import tensorflow as tf

from maskfleet.config import TrainConfig
from trainer.data.cache import Arrays, Dataset, load_dataset
from trainer.models.network import build_network
from trainer.objective.metrics import Scores, confusion_matrix

BATCH = 64


def compiled(weights: str, dataset: Dataset) -> keras.Model:
    """The tutorial's network with its frozen encoder, optimizer, loss and metric."""
    size = dataset.train.images.shape[1]
    config = TrainConfig(preset="tutorial", encoder_weights=weights, unfreeze_from="none", image_size=size)
    model = build_network(config, len(dataset.classes)).model
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def training_pipeline(split: Arrays) -> tf.data.Dataset:
    """Flipped and then cached, as in the tutorial, shuffled and batched."""

    def augment(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.cast(image, tf.float32)
        if tf.random.uniform(()) > 0.5:
            image, mask = tf.image.flip_left_right(image), tf.image.flip_left_right(mask)
        return image, mask

    data = tf.data.Dataset.from_tensor_slices((split.images, split.masks[..., None]))
    data = data.map(augment, num_parallel_calls=tf.data.AUTOTUNE)
    return data.cache().shuffle(1000).batch(BATCH, drop_remainder=True).repeat().prefetch(tf.data.AUTOTUNE)


def testing_pipeline(split: Arrays) -> tf.data.Dataset:
    data = tf.data.Dataset.from_tensor_slices((split.images, split.masks[..., None]))
    return data.map(lambda image, mask: (tf.cast(image, tf.float32), mask)).batch(BATCH)


class _Told(keras.callbacks.Callback):
    """Prints the time of the first step's end, and after each epoch its time and score.

    One ``fit`` trains all epochs: at its end it waits, up to as long as it has run, for the thread of tf.data that
    tunes the input.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self.dataset = dataset
        self.first = True
        self.seconds = self.started = 0.0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if self.first:
            print(json.dumps({"first_step": time.time()}), flush=True)
            self.first = False

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.seconds += time.monotonic() - self.started
        test, classes = self.dataset.test, self.dataset.classes
        matrix = 0
        for start in range(0, len(test), BATCH):
            found = tf.argmax(self.model.predict_on_batch(test.images[start : start + BATCH]), axis=-1)
            matrix += confusion_matrix(test.masks[start : start + BATCH], found, len(classes)).numpy()
        miou = Scores(matrix, classes).miou
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        line = {"epoch": epoch + 1, "training_seconds": self.seconds, "miou": None if math.isnan(miou) else miou}
        print(json.dumps({**line, "peak": peak}), flush=True)


def train(epochs: int, data: str, weights: str) -> None:
    dataset = load_dataset(data, None, 128)
    model = compiled(weights, dataset)
    steps = len(dataset.train) // BATCH
    pipeline = training_pipeline(dataset.train)
    model.fit(pipeline, epochs=epochs, steps_per_epoch=steps, verbose=0, callbacks=[_Told(dataset)])


if __name__ == "__main__":
    train(int(sys.argv[1]), sys.argv[2], sys.argv[3])
