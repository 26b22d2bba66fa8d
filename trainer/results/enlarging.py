"""What a network says of an image, enlarged to the image's size a part at a time.

All classes of a whole photograph take gigabytes: 12 megapixels and 150 classes are 7 GB. The parts are, bit for bit,
those of ``tf.image.resize``.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

PART = 1 << 21
"""Numbers of a part, pixels times classes: 8 MiB of them, and some five such arrays while they are computed."""


def enlarged_part(
    logits: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    top: tf.Tensor,
    rows: tf.Tensor,
    left: tf.Tensor,
    columns: tf.Tensor,
) -> tf.Tensor:
    """``tf.image.resize(logits, (height, width))[top:top + rows, left:left + columns]``, bilinear.

    Args:
        logits: float32 [S, T, classes]. The others are int32 scalars.
    """
    upper, lower, down = _neighbours(top, rows, tf.shape(logits)[0], height)
    first, second, across = _neighbours(left, columns, tf.shape(logits)[1], width)
    needed = logits[upper[0] : lower[-1] + 1]
    wide = _between(tf.gather(needed, first, axis=1), tf.gather(needed, second, axis=1), across[:, None])
    return _between(tf.gather(wide, upper - upper[0]), tf.gather(wide, lower - upper[0]), down[:, None, None])


def enlarged_whole(logits: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """All of what :func:`enlarged_part` gives parts of, in a fifth of its time."""
    return np.asarray(_resize(logits, (height, width)))


_resize = tf.function(
    tf.image.resize,
    autograph=False,
    input_signature=[tf.TensorSpec([None, None, None], tf.float32), tf.TensorSpec([2], tf.int32)],
)


def enlarged_masks(logits: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Class indices uint8 [b, height, width] of what :func:`enlarged_part` would give of whole images.

    All strips of all images are put together at once, so that no mask is copied a second time.

    Args:
        logits: float32 [b, S, T, classes].
    """
    at_once = tf.maximum(1, PART // (width * tf.shape(logits)[3]))
    strips = -(-height // at_once)
    count = tf.shape(logits)[0] * strips

    def strip(number: tf.Tensor, masks: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        top = (number % strips) * at_once
        rows = tf.minimum(at_once, height - top)
        part = enlarged_part(logits[number // strips], height, width, top, rows, tf.constant(0), width)
        return number + 1, masks.write(number, tf.cast(tf.argmax(part, axis=-1, output_type=tf.int32), tf.uint8))

    masks = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=[None, None])
    _, masks = tf.while_loop(lambda number, _: number < count, strip, (tf.constant(0), masks), parallel_iterations=1)
    return tf.reshape(masks.concat(), (-1, height, width))


def _neighbours(
    start: tf.Tensor, count: tf.Tensor, size: tf.Tensor, enlarged: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Of ``count`` pixels from ``start`` on: the two that each lies between, and how far it is from the first."""
    scale = tf.cast(size, tf.float32) / tf.cast(enlarged, tf.float32)
    place = (tf.cast(tf.range(start, start + count), tf.float32) + 0.5) * scale - 0.5
    before = tf.floor(place)
    index = tf.cast(before, tf.int32)
    return tf.maximum(index, 0), tf.minimum(index + 1, size - 1), place - before


def _between(first: tf.Tensor, second: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return first + (second - first) * share
