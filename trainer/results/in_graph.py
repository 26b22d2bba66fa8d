"""What makes an image of any size a network's input, and its output of the image's size, inside of a SavedModel.

The same as :mod:`trainer.data.fitting` and :mod:`trainer.data.windows` do for training and validation.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from maskfleet.image_size import Size
from trainer.data.windows import OVERLAP


def size_within(picture: tf.Tensor, box: Size) -> tf.Tensor:
    """int32 (2,): the largest height and width of a picture's aspect that fit into ``box``."""
    sides, most = tf.cast(picture, tf.float64), tf.constant(list(box), tf.float64)
    scaled = tf.round(sides * tf.reduce_min(most / sides))
    return tf.cast(tf.clip_by_value(scaled, 1.0, most), tf.int32)


def grown(images: tf.Tensor, size: Size) -> tf.Tensor:
    """Images [b, H, W, 3] of at least ``size``: below and to the right their edge is repeated."""
    for axis, side in enumerate(size, start=1):
        there = tf.shape(images)[axis]
        images = tf.gather(images, tf.minimum(tf.range(tf.maximum(there, side)), there - 1), axis=axis)
    return images


def in_windows(
    images: tf.Tensor, size: Size, found: Callable[[tf.Tensor], tf.Tensor], kind: tf.DType, rank: int
) -> tf.Tensor:
    """What is ``found`` in windows of the images, put together: each pixel from the window that sees most around it.

    Args:
        images: [b, H, W, 3].
        found: of a window of ``size``: [b, *size] or [b, *size, n], of type ``kind`` and ``rank`` 3 or 4.
    """
    height, width = tf.unstack(tf.shape(images)[1:3])
    images = grown(images, size)
    rows, columns = (_starts(tf.shape(images)[axis], side) for axis, side in enumerate(size, start=1))

    def row(i: tf.Tensor) -> tf.Tensor:
        strip = images[:, rows[i] : rows[i] + size.height]
        own = _own(rows, i, size.height)

        def window(j: tf.Tensor) -> tf.Tensor:
            part = strip[:, :, columns[j] : columns[j] + size.width]
            return found(tf.ensure_shape(part, (None, *size, images.shape[-1])))[:, own, _own(columns, j, size.width)]

        return _joined(window, tf.size(columns), 2, kind, rank)

    return _joined(row, tf.size(rows), 1, kind, rank)[:, :height, :width]


def _joined(
    make: Callable[[tf.Tensor], tf.Tensor], count: tf.Tensor, axis: int, kind: tf.DType, rank: int
) -> tf.Tensor:
    """``make(0)``, ``make(1)`` … one after another along ``axis``."""
    axes = list(range(rank))
    axes[0], axes[axis] = axis, 0

    def another(i: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        return i + 1, parts.write(i, tf.transpose(make(i), axes))

    parts = tf.TensorArray(kind, count, infer_shape=False, element_shape=[None] * rank)
    _, parts = tf.while_loop(lambda i, _: i < count, another, (tf.constant(0), parts), parallel_iterations=1)
    return tf.transpose(parts.concat(), axes)


def _own(firsts: tf.Tensor, i: tf.Tensor, window: int) -> slice:
    """Of window ``i``, what no other sees better: from and to the middle of what it shares with its neighbours."""
    last = tf.size(firsts) - 1

    def middle(before: tf.Tensor) -> tf.Tensor:
        return (firsts[tf.maximum(before, 0)] + window + firsts[tf.minimum(before + 1, last)]) // 2

    return slice(
        tf.where(i == 0, 0, middle(i - 1) - firsts[i]),
        tf.where(i == last, window, middle(i) - firsts[i]),
    )


def _starts(side: tf.Tensor, window: int) -> tf.Tensor:
    """As :func:`trainer.data.windows.starts`, of :data:`~trainer.data.windows.OVERLAP`."""
    step = max(1, int(window * (1 - OVERLAP)))
    count = 1 + -(-(side - window) // step)
    places = tf.linspace(tf.constant(0.0, tf.float64), tf.cast(side - window, tf.float64), count)
    return tf.cast(tf.round(places), tf.int32)
