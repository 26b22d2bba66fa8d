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

from trainer.config import TrainConfig
from trainer.data.cache import Arrays, Dataset, load_dataset
from trainer.metrics import Scores, confusion_matrix
from trainer.models.network import build_network

BATCH = 64


def compiled(weights: str, dataset: Dataset) -> keras.Model:
    """The tutorial's network with its frozen encoder, optimizer, loss and metric."""
    config = TrainConfig(preset="tutorial", encoder_weights=weights, image_size=dataset.train.images.shape[1])
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


def train(epochs: int, data: str, weights: str) -> None:
    began = time.time()
    dataset = load_dataset(data, None, 128)
    model = compiled(weights, dataset)
    steps = len(dataset.train) // BATCH
    seconds = 0.0

    class Told(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            nonlocal began
            if began:
                print(json.dumps({"first_step": time.time()}), flush=True)
                began = 0.0

    pipeline = training_pipeline(dataset.train)
    for epoch in range(1, epochs + 1):
        started = time.monotonic()
        model.fit(pipeline, initial_epoch=epoch - 1, epochs=epoch, steps_per_epoch=steps, verbose=0, callbacks=[Told()])
        seconds += time.monotonic() - started
        matrix = 0
        for start in range(0, len(dataset.test), BATCH):
            found = tf.argmax(model.predict_on_batch(dataset.test.images[start : start + BATCH]), axis=-1)
            matrix += confusion_matrix(dataset.test.masks[start : start + BATCH], found, len(dataset.classes)).numpy()
        miou = Scores(matrix, dataset.classes).miou
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        line = {"epoch": epoch, "training_seconds": seconds, "miou": None if math.isnan(miou) else miou, "peak": peak}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    train(int(sys.argv[1]), sys.argv[2], sys.argv[3])
