"""A trained network as a function of images."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from trainer.models.fused import fuse, is_graph


def logits_of(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """What ``model`` says of images uint8 [b, H, W, bands] of its size: logits float32 [b, H, W, classes].

    Computed as :mod:`trainer.models.fused` does, with the weights that the model has when it is called.
    """
    faster = fuse(model, learns=False) if is_graph(model) else model

    # Batches of any size: the last one, which is smaller, shall not be traced again.
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8)])
    def run(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(faster(images, training=False), tf.float32)

    traced: Callable[[tf.Tensor], tf.Tensor] = run
    return traced
