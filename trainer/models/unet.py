"""The U-Net decoder of TensorFlow's segmentation tutorial."""

from __future__ import annotations

from collections.abc import Sequence

from keras import KerasTensor, layers

from maskfleet.config import TrainConfig
from trainer.models.upsampling import enlarging_convolution, upsampling_block

_FILTERS = 128


def unet(features: Sequence[KerasTensor], classes: int, config: TrainConfig) -> KerasTensor:
    """Features of strides 2..32, finest first -> logits float32 [b, P, Q, classes] at the padded input's size.

    Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015, with the blocks of pix2pix. The tutorial has 512, 256, 128 and
    64 filters.
    """
    x = features[-1]
    filters = config.decoder_filters or _FILTERS
    for number, skip in enumerate(reversed(features[:-1]), start=1):
        x = upsampling_block(x, filters >> (number - 1), config, f"up_{number}")
        x = layers.Concatenate(name=f"skip_{number}")([x, skip])
    return enlarging_convolution(x, classes, config, "logits", use_bias=True, dtype="float32")
