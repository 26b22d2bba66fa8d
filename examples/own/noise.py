"""--augmentation noise:noise: the noise of a camera in poor light, another one in each epoch."""

from __future__ import annotations

import tensorflow as tf

STRONGEST = 12.0
"""Standard deviation, of 255."""


def noise(image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Image uint8 [H, W, 3] and mask uint8 [H, W] -> the same, changed; all that is random follows from ``seed``."""
    strength, grain = tf.unstack(tf.random.split(seed))
    deviation = tf.random.stateless_uniform([], strength, 0.0, STRONGEST)
    pixels = tf.cast(image, tf.float32) + deviation * tf.random.stateless_normal(image.shape, grain)
    return tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8), mask
