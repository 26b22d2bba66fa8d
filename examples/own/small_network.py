"""--model small_network:network: a small network of one's own, from pixels to logits."""

from __future__ import annotations

from keras import KerasTensor, layers

from maskfleet.config import TrainConfig


def network(pixels: KerasTensor, classes: int, config: TrainConfig) -> KerasTensor:
    """Pixels float32 [b, H, W, 3] of 0..255 -> logits float32 [b, H, W, classes]."""
    x = layers.Rescaling(1 / 127.5, -1)(pixels)
    skips = []
    for filters in (16, 32, 64):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    for skip in reversed(skips):
        x = layers.Concatenate()([layers.UpSampling2D()(x), skip])
        x = layers.Conv2D(skip.shape[-1], 3, padding="same", activation="relu")(x)
    return layers.Conv2D(classes, 1, dtype="float32")(x)
