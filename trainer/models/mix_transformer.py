"""Mix Transformers (MiT), SegFormer's encoders, of nothing but Keras's own layers: their files load anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import KerasTensor, layers

STAGES = (1, 2, 3, 4)
"""Their features have the strides 4, 8, 16 and 32; the last layer of each is called ``stage_N``."""
_HEADS = (1, 2, 5, 8)
_REDUCTIONS = (8, 4, 2, 1)
"""Of each side of keys and values: attention over all places of a fine grid would not fit."""
_EXPANSION = 4


def mix_transformer(
    widths: Sequence[int], depths: Sequence[int], *, input_tensor: KerasTensor, **keras_options: object
) -> keras.Model:
    """Image [b, H, W, 3], H and W multiples of 32 -> features [b, H/32, W/32, widths[3]].

    Xie et al., "SegFormer", NeurIPS 2021, section 3.1 and table 6, without stochastic depth.

    Args:
        widths: channels of the four stages.
        depths: blocks of each.
        keras_options: those that a classifier of keras.applications takes; there is no top, and there are no weights.
    """
    x = input_tensor
    for stage, width, depth, heads, reduction in zip(STAGES, widths, depths, _HEADS, _REDUCTIONS, strict=True):
        x = _patches(x, width, 7 if stage == 1 else 3, 4 if stage == 1 else 2, f"stage_{stage}_patches")
        for number in range(1, depth + 1):
            name = f"stage_{stage}_block_{number}"
            x = layers.Add(name=f"{name}_attended")([x, _attention(x, heads, reduction, f"{name}_attention")])
            x = layers.Add(name=f"{name}_fed")([x, _feed_forward(x, f"{name}_feed")])
        x = layers.LayerNormalization(epsilon=1e-6, name=f"stage_{stage}")(x)
    return keras.Model(keras.utils.get_source_inputs(input_tensor), x)


def _patches(x: KerasTensor, width: int, size: int, stride: int, name: str) -> KerasTensor:
    """Overlapping patches [b, h, w, c] -> [b, h / stride, w / stride, width]."""
    x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(width, size, strides=stride, name=f"{name}_conv")(x)
    return layers.LayerNormalization(epsilon=1e-5, name=f"{name}_norm")(x)


def _attention(x: KerasTensor, heads: int, reduction: int, name: str) -> KerasTensor:
    """Self-attention over all places, with keys and values of a grid that is coarser by ``reduction``."""
    height, width, channels = x.shape[1:]
    x = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)
    places = x
    if reduction > 1:
        places = layers.Conv2D(channels, reduction, strides=reduction, name=f"{name}_reduce")(places)
        places = layers.LayerNormalization(epsilon=1e-5, name=f"{name}_reduce_norm")(places)
    queries = layers.Reshape((height * width, channels), name=f"{name}_queries")(x)
    places = layers.Reshape((-1, channels), name=f"{name}_places")(places)
    attention = layers.MultiHeadAttention(heads, channels // heads, kernel_initializer=_initial(), name=name)
    return layers.Reshape((height, width, channels), name=f"{name}_grid")(attention(queries, places))


def _feed_forward(x: KerasTensor, name: str) -> KerasTensor:
    """The Mix-FFN: its depthwise convolution tells a place where it is, instead of a positional encoding."""
    channels = x.shape[-1]
    x = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)
    x = layers.Dense(_EXPANSION * channels, kernel_initializer=_initial(), name=f"{name}_wide")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name=f"{name}_mix")(x)
    x = layers.Activation("gelu", name=f"{name}_gelu")(x)
    return layers.Dense(channels, kernel_initializer=_initial(), name=f"{name}_narrow")(x)


def _initial() -> keras.Initializer:
    return keras.initializers.TruncatedNormal(stddev=0.02)
