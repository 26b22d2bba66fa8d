"""What makes an image of any size a network's input, and its output of the image's size, inside of a SavedModel.

The same as :mod:`trainer.data.fitting` and :mod:`trainer.data.windows` do for training and validation.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from maskfleet.image_size import Size
from trainer.data.windows import OVERLAP

_BAND = 256
"""Rows that are scaled at a time."""


def size_within(picture: tf.Tensor, box: Size) -> tf.Tensor:
    """int32 (2,): the largest height and width of a picture's aspect that fit into ``box``."""
    sides, most = tf.cast(picture, tf.float64), tf.constant(list(box), tf.float64)
    scaled = tf.round(sides * tf.reduce_min(most / sides))
    return tf.cast(tf.clip_by_value(scaled, 1.0, most), tf.int32)


def classes_of(logits: tf.Tensor) -> tf.Tensor:
    """Class indices uint8 [b, H, W] of logits [b, H, W, classes]."""
    return tf.cast(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.uint8)


def grown(images: tf.Tensor, size: Size) -> tf.Tensor:
    """Images [b, H, W, 3] of at least ``size``: below and to the right their edge is repeated."""
    for axis, side in enumerate(size, start=1):
        there = tf.shape(images)[axis]
        images = tf.gather(images, tf.minimum(tf.range(tf.maximum(there, side)), there - 1), axis=axis)
    return images


def scaled(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Pixels float32 [b, H, W, 3] -> [b, *size, 3], as Pillow's antialiased bilinear filter scales them for training.

    It has whole numbers after each of the two sides. A matrix product for each is what every converter knows.
    """
    return _along(_along(images, 2, size[1]), 1, size[0])


def scaled_in_bands(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """As :func:`scaled`, of uint8 images: only some rows at a time are in float32, four times as large.

    No converter knows its loop.
    """

    def band(i: tf.Tensor) -> tf.Tensor:
        return _along(tf.cast(images[:, i * _BAND : (i + 1) * _BAND], tf.float32), 2, size[1])

    narrow = _joined(band, -(-tf.shape(images)[1] // _BAND), 1, tf.float32, 4)
    return _along(tf.ensure_shape(narrow, (None, None, None, images.shape[-1])), 1, size[0])


def _along(images: tf.Tensor, axis: int, size: tf.Tensor) -> tf.Tensor:
    """Scaled along one side: each new pixel is the rounded mean of old ones, by a triangle around its centre."""
    shape = tf.shape(images)
    step = tf.cast(shape[axis], tf.float64) / tf.cast(size, tf.float64)
    reach = tf.maximum(step, 1.0)
    centres = (tf.cast(tf.range(size), tf.float64) + 0.5) * step
    places = tf.cast(tf.range(shape[axis]), tf.float64) + 0.5
    weights = tf.maximum(1 - tf.abs(places[None] - centres[:, None]) / reach, 0.0)
    weights = tf.cast(weights / tf.reduce_sum(weights, axis=1, keepdims=True), tf.float32)
    if axis == 1:
        flat = tf.reshape(images, (shape[0], shape[1], shape[2] * images.shape[3]))
        found = tf.reshape(tf.matmul(weights, flat), (shape[0], size, shape[2], images.shape[3]))
    else:
        found = tf.matmul(weights, images)
    return tf.floor(found + 0.5)


def in_stacked_windows(images: tf.Tensor, size: Size, found: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """As :func:`in_windows`, of class indices uint8 [b, *size], in a single loop over all windows."""
    height, width = tf.unstack(tf.shape(images)[1:3])
    images = grown(images, size)
    rows, columns = (_starts(tf.shape(images)[axis], side) for axis, side in enumerate(size, start=1))

    def window(number: tf.Tensor) -> tf.Tensor:
        top, left = rows[number // tf.size(columns)], columns[number % tf.size(columns)]
        return found(images[:, top : top + size.height, left : left + size.width])

    spec = tf.TensorSpec((None, *size), tf.uint8)
    stacked = tf.map_fn(window, tf.range(tf.size(rows) * tf.size(columns)), fn_output_signature=spec)
    row, inside_row = _seen_best(rows, size.height, height)
    column, inside_column = _seen_best(columns, size.width, width)
    number = row[:, None] * tf.size(columns) + column
    place = (number * size.height + inside_row[:, None]) * size.width + inside_column
    return tf.gather(tf.reshape(tf.transpose(stacked, (1, 0, 2, 3)), (tf.shape(images)[0], -1)), place, axis=1)


def _seen_best(firsts: tf.Tensor, window: int, side: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """For each place of a side, the window that sees most around it, and where it is in that."""
    places = tf.range(side)
    ends = (firsts[:-1] + window + firsts[1:]) // 2  # of what each window but the last sees better than the next
    number = tf.reduce_sum(tf.cast(places[:, None] >= ends[None], tf.int32), axis=1)
    return number, places - tf.gather(firsts, number)


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
    count = 1 + (side - window + step - 1) // step  # no number below zero, whose quotient ONNX rounds up
    between = tf.cast(side - window, tf.float64) / tf.cast(tf.maximum(count - 1, 1), tf.float64)
    return tf.cast(tf.round(tf.cast(tf.range(count), tf.float64) * between), tf.int32)
