"""Encoders that keep a finer grid: where their features would become coarser, convolutions reach further instead."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers


def dilate(classifier: keras.Model, taps: Sequence[str], output_stride: int) -> keras.Model:
    """A model of the same weights whose features are nowhere coarser than ``output_stride``.

    "Atrous convolution" of Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation" (2017),
    section 3: strides beyond ``output_stride`` become 1, and all kernels after them are dilated by what is left out.

    Args:
        taps: names of the layers that give the features of strides 2, 4, 8, ….
    """
    names = [layer.name for layer in classifier.layers]
    rates: dict[str, tuple[int, int]] = {}
    for number, tap in enumerate(taps[:-1]):
        stride = 2 ** (number + 1)
        if stride >= output_stride:
            after = names[names.index(tap) + 1 :]
            rates |= dict.fromkeys(after, (stride // output_stride, 2 * stride // output_stride))

    def remade(layer: keras.Layer) -> keras.Layer:
        if not isinstance(layer, layers.Layer):
            return layer  # an operation, which has neither name of its own nor weights
        config = layer.get_config()
        if layer.name in rates:
            config |= _finer(layer, *rates[layer.name])
        return type(layer).from_config(config)

    dilated = keras.models.clone_model(classifier, clone_function=remade)
    dilated.set_weights(classifier.get_weights())
    return dilated


def _finer(layer: keras.Layer, rate: int, next_rate: int) -> dict[str, object]:
    """What changes in the layer's configuration: ``rate`` up to a stride that is left out, ``next_rate`` after it."""
    if isinstance(layer, layers.ZeroPadding2D):
        return {"padding": 0}  # for the kernel after it, which will pad by itself
    if isinstance(layer, layers.MaxPooling2D | layers.AveragePooling2D):
        return {"strides": (1, 1), "padding": "same"}
    if not isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D) or max(layer.kernel_size + layer.strides) == 1:
        return {}
    found = rate if max(layer.strides) > 1 else next_rate
    dilation = found if max(layer.kernel_size) > 1 else 1
    return {"strides": (1, 1), "dilation_rate": (dilation, dilation), "padding": "same"}
