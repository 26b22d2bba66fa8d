"""A trained network as other runtimes than TensorFlow can have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from maskfleet.image_size import Fit, Size
from trainer.models.fused import is_graph
from trainer.results.in_graph import classes_of, grown, in_stacked_windows, scaled, size_within


def portable(model: keras.Model) -> keras.Model:
    """The same network, variables included, of operations that every converter knows.

    None has bicubic interpolation. Features of a single place are repeated, which is what any interpolation makes of
    them, since ONNX's operation of that name takes none; and tf2onnx has no ``erfc``, by which Keras computes GELU.
    """

    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs, name=model.name)

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if type(layer) in (layers.UpSampling2D, layers.Resizing):
            _, height, width, _ = args[0].shape
            _, rows, columns, _ = layer.compute_output_shape(args[0].shape)
            if (height, width) == (1, 1):
                return _Repeated((rows, columns), dtype=layer.dtype_policy)(args[0])
            if layer.interpolation == "bicubic":
                return _Interpolated((rows, columns), "bicubic", dtype=layer.dtype_policy)(args[0])
        if type(layer) is layers.Activation and layer.activation is keras.activations.gelu:
            return _Gelu(dtype=layer.dtype_policy)(args[0])
        if is_graph(layer):
            return portable(layer)(*args, **kwargs)
        return layer(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


class _Repeated(layers.Layer):
    """[b, 1, 1, c] -> [b, *size, c]."""

    def __init__(self, size: tuple[int, int], **options: Any):
        super().__init__(**options)
        self.size = size

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x * tf.ones((1, *self.size, 1), x.dtype)

    def compute_output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return shape[0], *self.size, shape[3]


class _Interpolated(layers.Layer):
    """[b, h, w, c] -> [b, *size, c], as a product with a constant matrix along each side."""

    def __init__(self, size: tuple[int, int], interpolation: str, **options: Any):
        super().__init__(**options)
        self.size, self.interpolation = size, interpolation

    def call(self, x: tf.Tensor) -> tf.Tensor:
        # The constant comes second: of products with a constant before it LiteRT's quantizer makes wrong ones.
        rows, columns = (
            _interpolating(side, whole, self.interpolation).T
            for side, whole in zip(x.shape[1:3], self.size, strict=True)
        )
        wide = tf.matmul(tf.transpose(x, (0, 1, 3, 2)), columns)  # [b, h, c, W]
        tall = tf.matmul(tf.transpose(wide, (0, 3, 2, 1)), rows)  # [b, W, c, H]
        return tf.transpose(tall, (0, 3, 1, 2))

    def compute_output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return shape[0], *self.size, shape[3]


class _Gelu(layers.Layer):
    """Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, by ``erf``."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return 0.5 * x * (1 + tf.math.erf(x / np.sqrt(2).astype(np.float32)))

    def compute_output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(shape)


def _interpolating(size: int, enlarged: int, interpolation: str) -> NDArray[np.float32]:
    """[enlarged, size]: what each place of the enlarged side reads."""
    with tf.init_scope():  # a constant, also while something else is traced
        line = np.eye(size, dtype=np.float32)[None, :, None, :]
        weights: NDArray[np.float32] = tf.image.resize(line, (enlarged, 1), interpolation).numpy()[0, :, 0]
    return weights


def masks_of_pictures(model: keras.Model, fit: Fit) -> Any:
    """A ``tf.function`` from images uint8 [b, H, W, bands] of any size to ``mask``, class indices uint8 [b, H, W].

    All that is between the two is in its graph. It has all classes of whole pictures in memory, 4 bytes for each of
    each pixel, so that nothing in it is repeated that need not be.
    """
    model = portable(model)
    size = Size(*model.input_shape[1:3])
    images = tf.TensorSpec((None, None, None, model.input_shape[-1]), tf.uint8, name="images")

    def network(inputs: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(tf.ensure_shape(inputs, (None, *size, model.input_shape[-1])), training=False), tf.float32)

    @tf.function(autograph=False, input_signature=[images])
    def masks(images: tf.Tensor) -> dict[str, tf.Tensor]:
        own = tf.shape(images)[1:3]
        pixels = tf.cast(images, tf.float32)
        if fit == "crop":
            found = in_stacked_windows(pixels, size, lambda part: classes_of(network(part)))
        elif fit == "pad":
            within = size_within(own, size)
            logits = network(grown(scaled(pixels, within), size))[:, : within[0], : within[1]]
            found = classes_of(tf.image.resize(logits, own))
        else:
            found = classes_of(tf.image.resize(network(scaled(pixels, tf.constant(size))), own))
        return {"mask": found}

    return masks
