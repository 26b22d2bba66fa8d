"""Layers that enlarge by two with a 3x3 kernel, in fewer operations: see :mod:`trainer.models.fused`.

Such a layer is linear. So its convolution can be one matrix product over the channels at the low resolution; then one
product with a constant matrix along the rows and one along the columns put its nine taps where they belong and add
them up. Of interpolation and a convolution that is a quarter of the multiplications. Of a transposed convolution it is
as many, and worth it in bfloat16 where oneDNN's own kernels are slow.

Behind features in bfloat16 the last layer, whose output is float32, multiplies bfloat16 as well: to cast features at
full resolution, and to multiply float32, took a fifth of a step of the tutorial's network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

TAPS = 3
_FEW_PLACES = 14 * 14
"""Of the low resolution, beside which a kernel has so many weights that oneDNN's gradient for it is slow: the product
took half to two thirds of its time with 4x4, 8x8 and 14x14 places, and more with 16x16."""
_FEW_FILTERS = 32
"""Too few for the product to fill a processor's registers."""


class _Enlarging(layers.Layer):
    """What a Keras layer computes from features [b, h, w, c_1], [b, h, w, c_2], …: [b, 2h, 2w, filters].

    The layer's own input has their channels one after another. Its variables are used as they are kept, in float32.
    """

    def __init__(self, convolution: layers.Conv2D | layers.Conv2DTranspose) -> None:
        super().__init__(dtype=convolution.dtype_policy, autocast=False)
        self.convolution = convolution

    def call(self, features: Sequence[tf.Tensor]) -> tf.Tensor:
        halved = all(each.dtype == tf.bfloat16 for each in features)
        kind = tf.bfloat16 if halved else tf.as_dtype(self.compute_dtype)
        output = self.enlarge([tf.cast(each, kind) for each in features], tf.cast(self.convolution.kernel, kind))
        output = tf.cast(output, self.compute_dtype)
        bias = self.convolution.bias
        return output if bias is None else tf.nn.bias_add(output, tf.cast(bias, output.dtype))

    def enlarge(self, features: list[tf.Tensor], kernel: tf.Tensor) -> tf.Tensor:
        """Without the bias, and all in one precision."""
        raise NotImplementedError

    def compute_output_shape(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        batch, height, width, _ = shapes[0]
        return batch, 2 * height, 2 * width, self.convolution.filters


class InterpolatedConvolution(_Enlarging):
    """Interpolation and the convolution after it, whose kernel is (3, 3, c, filters)."""

    def __init__(self, convolution: layers.Conv2D, interpolation: str) -> None:
        super().__init__(convolution)
        self.interpolation = interpolation

    def enlarge(self, features: list[tf.Tensor], kernel: tf.Tensor) -> tf.Tensor:
        rows, columns = (enlarging_taps(size, self.interpolation) for size in features[0].shape[1:3])
        return _by_products(features, kernel, rows, columns)


class ProductTransposedConvolution(_Enlarging):
    """A transposed convolution, whose kernel is (3, 3, filters, c), as a product over all channels at once."""

    def enlarge(self, features: list[tf.Tensor], kernel: tf.Tensor) -> tf.Tensor:
        rows, columns = map(transposed_taps, features[0].shape[1:3])
        return _by_products(features, tf.transpose(kernel, (0, 1, 3, 2)), rows, columns, _product)


class SplitTransposedConvolution(_Enlarging):
    """A transposed convolution, whose kernel is (3, 3, filters, c), over features that are not concatenated."""

    def enlarge(self, features: list[tf.Tensor], kernel: tf.Tensor) -> tf.Tensor:
        shape = (tf.shape(features[0])[0], *self.compute_output_shape([each.shape for each in features])[1:])
        parts = tf.split(kernel, [each.shape[-1] for each in features], axis=3)
        return tf.add_n(
            [
                tf.nn.conv2d_transpose(each, part, shape, 2, padding="SAME")
                for each, part in zip(features, parts, strict=True)
            ]
        )


def transposed_convolution(
    convolution: layers.Conv2DTranspose, x: Any, parts: Sequence[Any], *, frozen_features: bool
) -> _Enlarging | None:
    """The faster layer for ``parts``, which are concatenated in the symbol ``x``; None: ``convolution`` itself.

    In bfloat16 a copy is cheaper than a second convolution and the sum of both, also where it spares a gradient.
    """
    _, height, width, _ = x.shape
    halved = x.dtype == "bfloat16"
    is_large = convolution.kernel_size == (TAPS, TAPS) and convolution.filters >= _FEW_FILTERS
    if halved and is_large and height * width <= _FEW_PLACES:
        return ProductTransposedConvolution(convolution)
    if halved and convolution.compute_dtype == "float32":
        return SplitTransposedConvolution(convolution)
    if len(parts) > 1 and frozen_features and not halved:
        return SplitTransposedConvolution(convolution)
    return None


def enlarging_taps(size: int, interpolation: str) -> NDArray[np.float32]:
    """[2 size, 3, size]: what tap j of a convolution along one axis reads at each place of the enlarged axis.

    Tap j = 0, 1, 2 reads the place before, the same and the place after in the interpolated axis, and zero beyond
    its ends.
    """
    with tf.init_scope():  # a constant, also while something else is traced
        line = np.eye(size, dtype=np.float32)[None, :, None, :]
        enlarged = tf.image.resize(line, (2 * size, 1), interpolation).numpy()[0, :, 0, :]
    padded = np.pad(enlarged, ((1, 1), (0, 0)))
    return np.stack([padded[tap : tap + 2 * size] for tap in range(TAPS)], axis=1)


def transposed_taps(size: int) -> NDArray[np.float32]:
    """[2 size, 3, size]: what tap j of a transposed convolution of stride 2 adds to each place: place i to 2 i + j."""
    places = np.zeros((2 * size + 1, TAPS, size), np.float32)
    for tap in range(TAPS):
        places[tap : tap + 2 * size : 2, tap] = np.eye(size)
    return places[:-1]


def _sum_of_products(features: Sequence[tf.Tensor], kernel: tf.Tensor) -> tf.Tensor:
    """Features [n, c_1], [n, c_2], … and kernel [c, m] -> [n, m]."""
    parts = tf.split(kernel, [each.shape[1] for each in features])
    return tf.add_n([tf.matmul(each, part) for each, part in zip(features, parts, strict=True)])


def _product(features: Sequence[tf.Tensor], kernel: tf.Tensor) -> tf.Tensor:
    """As :func:`_sum_of_products`, of a copy of all features: where the channels are many that costs less than the sum.

    A gradient for features that are frozen is none of a whole product's, so it can be left out of the graph.
    """
    channels = [each.shape[1] for each in features]

    @tf.custom_gradient
    def multiply(kernel: tf.Tensor, *features: tf.Tensor) -> tuple[tf.Tensor, Any]:
        together = tf.concat(features, 1)

        def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
            parts = tf.split(kernel, channels)
            of_kernel = tf.matmul(together, upstream, transpose_a=True)
            return [of_kernel, *(tf.matmul(upstream, part, transpose_b=True) for part in parts)]

        return tf.matmul(together, kernel), gradient

    return multiply(kernel, *features)


def _by_products(
    features: Sequence[tf.Tensor],
    kernel: tf.Tensor,
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
    multiply: Callable[[Sequence[tf.Tensor], tf.Tensor], tf.Tensor] = _sum_of_products,
) -> tf.Tensor:
    """Features [b, h, w, c_1], …, kernel [3, 3, c, f] and what its taps do along rows and columns -> [b, 2h, 2w, f]."""
    _, height, width, _ = features[0].shape
    filters = kernel.shape[3]
    # The last of the two products has the filters or the columns as its long side, whichever are more.
    filters_last = filters > 2 * width
    kernel = tf.transpose(kernel, (2, 0, 1, 3) if filters_last else (2, 0, 3, 1))
    places = [tf.reshape(each, [-1, each.shape[3]]) for each in features]
    products = multiply(places, tf.reshape(kernel, [kernel.shape[0], -1]))
    taps = tf.reshape(products, [-1, height, width, *kernel.shape[1:]])
    add_up = _add_up_filters_last if filters_last else _add_up_columns_last
    output = add_up(taps, *(tf.constant(each, taps.dtype) for each in (rows, columns)))
    return tf.reshape(output, [-1, 2 * height, 2 * width, filters])


def _add_up_filters_last(taps: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Taps [b, h, w, 3, 3, f], the tap's row before its column -> [b 2h, 2w, f].

    ``rows`` [2h, 3, h] and ``columns`` [2w, 3, w] are those of :func:`enlarging_taps`. As einsum
    "yih, bhwijf, xjw -> byxf", which needs two more passes over memory.
    """
    _, height, width, _, _, filters = taps.shape
    by_row = tf.reshape(tf.transpose(taps, (0, 3, 1, 2, 4, 5)), [-1, TAPS * height, width * TAPS * filters])
    enlarged = tf.matmul(tf.reshape(rows, [1, 2 * height, -1]), by_row)
    across = tf.reshape(tf.transpose(columns, (0, 2, 1)), [1, 2 * width, -1])
    return tf.matmul(across, tf.reshape(enlarged, [-1, width * TAPS, filters]))


def _add_up_columns_last(taps: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Taps [b, h, w, 3, f, 3], the tap's column last -> [b, 2h, 2w, f]; else as :func:`_add_up_filters_last`."""
    _, height, width, _, filters, _ = taps.shape
    by_row = tf.reshape(tf.transpose(taps, (0, 3, 1, 4, 5, 2)), [-1, TAPS * height, filters * TAPS * width])
    enlarged = tf.matmul(tf.reshape(rows, [1, 2 * height, -1]), by_row)
    across = tf.reshape(columns, [2 * width, -1])
    output = tf.matmul(tf.reshape(enlarged, [-1, TAPS * width]), across, transpose_b=True)
    return tf.transpose(tf.reshape(output, [-1, 2 * height, filters, 2 * width]), (0, 1, 3, 2))
