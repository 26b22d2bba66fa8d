"""The U-Net decoder of TensorFlow's segmentation tutorial."""

from __future__ import annotations

from collections.abc import Sequence

from keras import KerasTensor, layers

from trainer.config import TrainConfig
from trainer.models.upsampling import enlarging_convolution, upsampling_block

_FILTERS = (512, 256, 128, 64)


def unet(features: Sequence[KerasTensor], classes: int, config: TrainConfig) -> KerasTensor:
    """Features of strides 2..32, finest first -> logits float32 [b, P, P, classes] at the padded input's size P.

    Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015, with the blocks of pix2pix.
    """
    x = features[-1]
    for number, (filters, skip) in enumerate(zip(_FILTERS, reversed(features[:-1]), strict=True), start=1):
        x = upsampling_block(x, filters, config, f"up_{number}")
        x = layers.Concatenate(name=f"skip_{number}")([x, skip])
    return enlarging_convolution(x, classes, config, "logits", use_bias=True, dtype="float32")
