"""--loss tversky:loss, or in a sum: --loss cross_entropy+tversky:loss."""

from __future__ import annotations

import tensorflow as tf

MISSED, INVENTED = 0.7, 0.3
"""What a pixel costs that is missing in the prediction, and one that is too many there."""


def loss(masks: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Masks int32 [b, H, W], 255 where nothing counts, and logits [b, H, W, classes] -> float32 [b].

    Salehi, Erdogmus, Gholipour, "Tversky loss", MLMI 2017.
    """
    counts = tf.cast(masks != 255, tf.float32)[..., None]
    truth = tf.one_hot(masks, logits.shape[-1]) * counts
    found = tf.nn.softmax(logits) * counts
    hit = tf.reduce_sum(truth * found, [1, 2])
    missed = tf.reduce_sum(truth * (1 - found), [1, 2])
    invented = tf.reduce_sum((1 - truth) * found, [1, 2])
    return 1 - tf.reduce_mean((hit + 1) / (hit + MISSED * missed + INVENTED * invented + 1), axis=-1)
