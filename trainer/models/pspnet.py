"""PSPNet: what stands in whole regions of the image, at four sizes of region."""

from __future__ import annotations

from collections.abc import Sequence

from keras import KerasTensor, layers

from maskfleet.config import TrainConfig
from trainer.models.blocks import convolution_block, dropped, image_level, scores
from trainer.models.upsampling import enlarge_scores

_FILTERS = 512
_BINS = (2, 3, 6)
"""Regions along each side, beside the whole image."""


def pspnet(features: Sequence[KerasTensor], classes: int, config: TrainConfig) -> KerasTensor:
    """The features of the output stride -> logits float32 [b, P, Q, classes] at the padded input's size.

    Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017.
    """
    (x,) = features
    height, width, channels = x.shape[1:]
    filters = channels // (len(_BINS) + 1)
    parts = [x, image_level(x, filters, "region_1")]
    for bins in _BINS:
        pooled = layers.AdaptiveAveragePooling2D(bins, dtype="float32", name=f"region_{bins}_mean")(x)
        pooled = convolution_block(pooled, filters, 1, config, f"region_{bins}")
        parts.append(layers.Resizing(height, width, dtype="float32", name=f"region_{bins}_enlarged")(pooled))
    x = layers.Concatenate(name="regions")(parts)
    x = convolution_block(x, config.decoder_filters or _FILTERS, 3, config, "join")
    return enlarge_scores(scores(dropped(x, config), classes, "score"), config.output_stride, config, "logits")
