"""The same network in fewer operations: what is computed instead of layer after layer.

The network itself stays plain Keras, since it is saved, exported and loaded by others. Some things are done otherwise
here, with the same variables and the same results but for the order of additions:

- *What enlarges by two with a 3x3 kernel*: see :mod:`trainer.models.enlarging`.
- *Batch normalisation* is TensorFlow's one kernel instead of Keras's dozen operations, each of which reads and writes
  all of a feature map. With frozen statistics it is no more than a factor of the kernel before it.
- *A convolution over concatenated features* is the sum of one over each of them. The features are not copied into one
  tensor, and those of a frozen encoder get no gradient that nobody would read. If the convolution is a product over the
  channels (1x1), each is done before its features are enlarged.
- *A kernel that is dilated beyond the image* is its centre: all else reads nothing but the padding.

A class of somebody's own that derives from one of Keras's may compute what it likes, and stays as it is.

Keras names the layers here after their classes, of which TensorFlow takes none that begins with an underscore.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from trainer.models.enlarging import TAPS, InterpolatedConvolution, transposed_convolution


def fuse(model: keras.Model, *, frozen_features: bool = False, learns: bool = True) -> keras.Model:
    """A model of the same variables that computes what ``model`` does, faster; not for saving.

    Args:
        frozen_features: no gradient into the model's inputs is wanted.
        learns: it is trained; else all statistics of its batch normalisation are as good as frozen.
    """
    made: dict[int, tuple[keras.Layer, Any]] = {}
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs, name=model.name)

    def parts_of(tensor: Any) -> list[Any]:
        layer, inputs = made.get(id(tensor), (None, tensor))
        return list(inputs) if _joins_channels(layer) else [tensor]

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        before, source = made.get(id(args[0]), (None, None)) if args else (None, None)
        if is_graph(layer):
            return fuse(layer, frozen_features=frozen_features, learns=learns)(*args, **kwargs)
        if before is not None and type(before) is layers.UpSampling2D and _is_interpolated_convolution(before, layer):
            return InterpolatedConvolution(layer, before.interpolation)(parts_of(source))
        if _is_transposed_convolution(layer):
            parts = parts_of(args[0])
            faster = transposed_convolution(layer, args[0], parts, frozen_features=frozen_features)
            if faster is not None:
                return faster(parts)
        if _joins_channels(before) and _is_product(layer):
            parts = parts_of(args[0])
            makers = [made.get(id(part), (None, None)) for part in parts]
            enlarged = [type(maker) is layers.UpSampling2D for maker, _ in makers]
            sources = [inputs if big else part for part, (_, inputs), big in zip(parts, makers, enlarged, strict=True)]
            enlarging = [maker if big else None for (maker, _), big in zip(makers, enlarged, strict=True)]
            return SplitProduct(layer, enlarging)(sources)
        if _is_dilated_beyond(layer, args):
            return CentreOfKernel(layer)(*args)
        if type(layer) is layers.BatchNormalization:
            if _can_be_folded(before, layer, learns):
                return NormalizedConvolution(before, layer)(source)
            if _is_better_fused(layer, args[0]):
                return FusedBatchNormalization(layer)(*args)
        output = layer(*args, **kwargs)
        if args:
            made[id(output)] = (layer, args[0])
        return output

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


class SplitProduct(layers.Layer):
    """The 1x1 convolution of a Keras layer over features that are neither concatenated nor enlarged yet.

    Args:
        enlarging: the layer that would have enlarged each of the features, or None.
    """

    def __init__(self, convolution: layers.Conv2D, enlarging: Sequence[layers.UpSampling2D | None]) -> None:
        super().__init__(dtype=convolution.dtype_policy)
        self.convolution = convolution
        self.enlarging = enlarging

    def call(self, features: Sequence[tf.Tensor]) -> tf.Tensor:
        kernels = tf.split(self.convolution.kernel, [each.shape[-1] for each in features], axis=2)
        products = []
        # One place reaches all others by itself, if there are others.
        enough = (1, 1) if any(each.shape[1:3] != (1, 1) for each in features) else None
        for each, kernel, enlarge in zip(features, kernels, self.enlarging, strict=True):
            product = tf.nn.conv2d(each, kernel, 1, "SAME")
            if enlarge is not None and each.shape[1:3] != enough:
                product = tf.cast(enlarge(product), product.dtype)
            products.append(product)
        output = functools.reduce(operator.add, products)
        return output if self.convolution.bias is None else tf.nn.bias_add(output, self.convolution.bias)

    def compute_output_shape(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        sizes = [
            shape[1:3] if enlarge is None else enlarge.compute_output_shape(shape)[1:3]
            for shape, enlarge in zip(shapes, self.enlarging, strict=True)
        ]
        return shapes[0][0], *sizes[0], self.convolution.filters


class CentreOfKernel(layers.Layer):
    """The depthwise convolution of a Keras layer whose dilated kernel reaches nothing beside its centre."""

    def __init__(self, convolution: layers.DepthwiseConv2D) -> None:
        super().__init__(dtype=convolution.dtype_policy)
        self.convolution = convolution

    def call(self, x: tf.Tensor) -> tf.Tensor:
        rows, columns = self.convolution.kernel_size
        output = x * self.convolution.kernel[rows // 2, columns // 2, :, 0]
        return output if self.convolution.bias is None else tf.nn.bias_add(output, self.convolution.bias)

    def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


class NormalizedConvolution(layers.Layer):
    """A Keras convolution and the batch normalisation after it: frozen statistics only scale the kernel."""

    def __init__(self, convolution: layers.Conv2D | layers.DepthwiseConv2D, normalization: layers.BatchNormalization):
        super().__init__(dtype=convolution.dtype_policy)
        self.convolution = convolution
        self.normalization = normalization

    def call(self, x: tf.Tensor) -> tf.Tensor:
        convolution, statistics = self.convolution, self.normalization
        scale = statistics.gamma * tf.math.rsqrt(statistics.moving_variance + statistics.epsilon)
        offset = statistics.beta - statistics.moving_mean * scale
        if convolution.bias is not None:
            offset += convolution.bias * scale
        padding, strides, rates = convolution.padding.upper(), convolution.strides, convolution.dilation_rate
        if isinstance(convolution, layers.DepthwiseConv2D):
            kernel = tf.cast(convolution.kernel * tf.reshape(scale, convolution.kernel.shape[2:]), x.dtype)
            output = tf.nn.depthwise_conv2d(x, kernel, (1, *strides, 1), padding, dilations=rates)
        else:
            # Not conv2d: on a CPU it has no gradient for a dilated kernel.
            kernel = tf.cast(convolution.kernel * scale, x.dtype)
            output = tf.nn.convolution(x, kernel, strides, padding, dilations=rates)
        return tf.nn.bias_add(output, tf.cast(offset, x.dtype))

    def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        output: tuple[int, ...] = self.convolution.compute_output_shape(shape)
        return output


class FusedBatchNormalization(layers.Layer):
    """What a Keras layer computes over the last axis of [b, h, w, c], its moving statistics included."""

    def __init__(self, normalization: layers.BatchNormalization) -> None:
        super().__init__(dtype=normalization.dtype_policy)
        self.normalization = normalization

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        layer = self.normalization
        statistics = (layer.moving_mean, layer.moving_variance)
        learning = bool(training)
        no_values = tf.zeros([0])
        mean, variance = (no_values, no_values) if learning else (tf.cast(each, tf.float32) for each in statistics)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=tf.cast(layer.gamma, tf.float32),
            offset=tf.cast(layer.beta, tf.float32),
            mean=mean,
            variance=variance,
            epsilon=layer.epsilon,
            is_training=learning,
        )
        if learning:
            # The kernel gives the variance of a sample, Keras keeps that of the batch itself.
            count = x.shape[:3].num_elements() or tf.cast(tf.size(x) / x.shape[3], tf.float32)
            kept = 1 - layer.momentum
            for moving, value, share in zip(statistics, (mean, variance), (kept, kept * (1 - 1 / count)), strict=True):
                moving.assign(moving * layer.momentum + value * share)
        return y

    def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


def is_graph(layer: keras.Layer) -> bool:
    """Whether it is a model whose operations are known, and no class of somebody's that computes what it likes."""
    is_keras = type(layer).__module__.startswith("keras.")
    return is_keras and isinstance(layer, keras.Model) and hasattr(layer, "operations")


def _joins_channels(layer: keras.Layer | None) -> bool:
    return layer is not None and type(layer) is layers.Concatenate and layer.axis in (-1, 3)


def _is_interpolated_convolution(enlarging: layers.UpSampling2D, layer: keras.Layer) -> bool:
    return (
        type(layer) is layers.Conv2D
        and tuple(enlarging.size) == (2, 2)
        and layer.kernel_size == (TAPS, TAPS)
        and layer.strides == (1, 1)
        and layer.padding == "same"
        and layer.dilation_rate == (1, 1)
        and layer.groups == 1
        and layer.activation is keras.activations.linear
    )


def _is_transposed_convolution(layer: keras.Layer) -> bool:
    return (
        type(layer) is layers.Conv2DTranspose
        and layer.strides == (2, 2)
        and layer.padding == "same"
        and layer.output_padding is None
        and layer.dilation_rate == (1, 1)
        and layer.activation is keras.activations.linear
    )


def _is_product(layer: keras.Layer) -> bool:
    return (
        type(layer) is layers.Conv2D
        and layer.kernel_size == layer.strides == (1, 1)
        and layer.groups == 1
        and layer.activation is keras.activations.linear
    )


def _is_dilated_beyond(layer: keras.Layer, inputs: Sequence[Any]) -> bool:
    return (
        type(layer) is layers.DepthwiseConv2D
        and layer.padding == "same"
        and layer.strides == (1, 1)
        and layer.depth_multiplier == 1
        and all(side % 2 and side <= 3 for side in layer.kernel_size)
        and all(rate >= size for rate, size in zip(layer.dilation_rate, inputs[0].shape[1:3], strict=True))
        and layer.activation is keras.activations.linear
    )


def _can_be_folded(before: keras.Layer | None, layer: layers.BatchNormalization, learns: bool) -> bool:
    """Whether ``layer`` scales with what it has, and ``before`` is a convolution that can do so in its place."""
    return (
        before is not None
        and type(before) in (layers.Conv2D, layers.DepthwiseConv2D)
        and _is_plain(layer)
        and not (learns and layer.trainable)
        and getattr(before, "groups", 1) == 1
        and before.activation is keras.activations.linear
    )


def _is_better_fused(layer: layers.BatchNormalization, x: Any) -> bool:
    """With frozen statistics Keras's operations have the cheaper gradient."""
    return _is_plain(layer) and layer.trainable and len(x.shape) == 4


def _is_plain(layer: layers.BatchNormalization) -> bool:
    return layer.axis in (-1, 3) and layer.scale and layer.center and not layer.synchronized
