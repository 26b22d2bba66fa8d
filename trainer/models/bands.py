"""An encoder whose weights were trained on three bands, for pictures of other than three.

Only the first convolution sees the bands. Of its kernel K (h, w, 3, filters), in the order red, green, blue, and of B
bands in the place of three, the new kernel is

    K'[:, :, b] = 3 / B * K[:, :, b]               for b < 3, where B > 3: the first three bands are red, green, blue
    K'[:, :, b] = 3 / B * mean of K over its bands for every other band

So the magnitude that all later layers were trained on stays: a picture whose bands are all alike gives just what it
gave in grey, where the encoder scales all bands alike (mobilenet_v2, mobilenet_v3). It is the rule of timm's
``adapt_input_conv``, with the mean in the place of red, green and blue in turn for what is neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray


def adapted_kernel(kernel: NDArray[np.float32], bands: int) -> NDArray[np.float32]:
    """(h, w, 3, filters) -> (h, w, bands, filters), see above."""
    adapted = np.repeat(kernel.mean(axis=2, keepdims=True), bands, axis=2)
    if bands > 3:
        adapted[:, :, :3] = kernel
    return adapted * np.float32(3 / bands)


def of_bands(values: Sequence[float], bands: int) -> list[float]:
    """Numbers for red, green and blue as numbers for each band: their mean for what is none of these."""
    mean = sum(values) / len(values)
    return [*values, *[mean] * (bands - 3)] if bands > 3 else [mean] * bands


def take_weights(encoder: keras.Model, trained: keras.Model, *, blue_first: bool) -> None:
    """Gives ``encoder`` the weights of ``trained``, which is the same network on three bands.

    Args:
        blue_first: ``trained`` was shown blue, green, red; ``encoder`` is shown its bands in the order of the files.
    """
    ours, theirs = ([layer for layer in model.layers if layer.weights] for model in (encoder, trained))
    for layer, source in zip(ours, theirs, strict=True):
        weights = source.get_weights()
        if [weight.shape for weight in layer.get_weights()] != [weight.shape for weight in weights]:
            kernel = weights[0][:, :, ::-1] if blue_first else weights[0]
            weights[0] = adapted_kernel(kernel, layer.get_weights()[0].shape[2])
        layer.set_weights(weights)
