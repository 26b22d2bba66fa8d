"""Bending and blurring of one picture, by ops of fixed shapes, as functions of random numbers that are given.

A field of displacements says for each pixel of the result where in the picture it comes from. Image and mask are read
by the same field: the image between pixels, the mask at the nearest one.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

NODES = 5
"""Of each side of the coarse grids that bend a picture."""


def elastic(draws: tf.Tensor, height: int, width: int, amount: float) -> tf.Tensor:
    """Displacements [2, H, W], pixels down and across, smooth and in all directions.

    Random ones on a coarse grid, enlarged by bicubic interpolation, as in section 3.1 of "U-Net" (Ronneberger et al.,
    2015).

    Args:
        draws: uniform in -1..1, [NODES, NODES, 2].
        amount: of the largest displacement on the grid, as a share of the picture's sides.
    """
    field = tf.image.resize(draws, (height, width), "bicubic") * amount
    return tf.stack([field[..., 0] * height, field[..., 1] * width])


def grid(draws: tf.Tensor, height: int, width: int, amount: float) -> tf.Tensor:
    """Displacements [2, H, W] that stretch some rows and columns of a coarse grid and shrink others.

    Args:
        draws: uniform in -1..1, [2, NODES - 1], for the cells' heights and widths.
        amount: by which share a cell grows or shrinks at most, under 1: so rows and columns keep their order.
    """

    def along(own: tf.Tensor, length: int) -> tf.Tensor:
        sizes = 1 + amount * own
        ends = tf.concat([[0.0], tf.cumsum(sizes) / tf.reduce_sum(sizes)], 0) * (length - 1)
        places = tf.range(length, dtype=tf.float32)
        cell = places * ((NODES - 1) / (length - 1))
        before = tf.minimum(tf.cast(cell, tf.int32), NODES - 2)
        inside = cell - tf.cast(before, tf.float32)
        start, end = tf.gather(ends, before), tf.gather(ends, before + 1)
        return start + inside * (end - start) - places

    down, across = along(draws[0], height), along(draws[1], width)
    zeros = tf.zeros([height, width])
    return tf.stack([zeros + down[:, None], zeros + across[None, :]])


def displaced(image: tf.Tensor, mask: tf.Tensor, field: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A uint8 image (H, W, channels) and mask (H, W) by a field; mirrored where it reaches beyond the edges."""
    height, width = image.shape[:2]
    rows, columns = tf.meshgrid(tf.range(height, dtype=tf.float32), tf.range(width, dtype=tf.float32), indexing="ij")
    places = tf.stack([_inside(rows + field[0], height), _inside(columns + field[1], width)])
    channels = [
        keras.ops.image.map_coordinates(tf.cast(image[..., channel], tf.float32), places, order=1, fill_mode="nearest")
        for channel in range(image.shape[2])
    ]
    bent = tf.cast(tf.clip_by_value(tf.round(tf.stack(channels, -1)), 0, 255), tf.uint8)
    nearest = tf.cast(tf.round(places), tf.int32)
    return bent, tf.gather_nd(mask, tf.stack([nearest[0], nearest[1]], -1))


def blurred(image: tf.Tensor, sigma: tf.Tensor, largest: float) -> tf.Tensor:
    """A uint8 image (H, W, channels) under a Gaussian of ``sigma`` pixels, ``largest`` at most; 0 changes nothing."""
    reach = max(1, math.ceil(3 * largest))
    distances = tf.range(-reach, reach + 1, dtype=tf.float32)
    weights = tf.exp(-0.5 * tf.square(distances / tf.maximum(sigma, 1e-3)))
    weights /= tf.reduce_sum(weights)
    channels = image.shape[2]
    pixels = tf.pad(tf.cast(image, tf.float32), [[reach, reach], [reach, reach], [0, 0]], "SYMMETRIC")[None]
    for shape in ([-1, 1, 1, 1], [1, -1, 1, 1]):
        kernel = tf.tile(tf.reshape(weights, shape), [1, 1, channels, 1])
        pixels = tf.nn.depthwise_conv2d(pixels, kernel, [1, 1, 1, 1], "VALID")
    return tf.ensure_shape(tf.cast(tf.clip_by_value(tf.round(pixels[0]), 0, 255), tf.uint8), image.shape)


def _inside(places: tf.Tensor, length: int) -> tf.Tensor:
    """Mirrored at the first and the last pixel."""
    period = 2.0 * (length - 1)
    places = tf.math.floormod(places, period)
    return tf.minimum(places, period - places)
