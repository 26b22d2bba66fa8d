"""DeepLabV3+: context at several scales over a dilated encoder, and a decoder that brings back outlines."""

from __future__ import annotations

from collections.abc import Sequence

from keras import KerasTensor, layers

from maskfleet.config import TrainConfig
from trainer.models.blocks import convolution_block, dropped, enlarge_features, image_level, scores
from trainer.models.upsampling import enlarge_scores

_FILTERS = 256
_SKIP_FILTERS = 48
_RATES = (6, 12, 18)
"""At output stride 16; at 8 they are twice that."""


def deeplabv3plus(features: Sequence[KerasTensor], classes: int, config: TrainConfig) -> KerasTensor:
    """Features of stride 4 and of the output stride -> logits float32 [b, P, Q, classes] at the padded input's size.

    Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018, with
    separable convolutions.
    """
    skip, x = features
    filters = config.decoder_filters or _FILTERS
    x = _pyramid(x, filters, config)
    x = enlarge_features(x, skip.shape[1] // x.shape[1], config, "up")
    skip = convolution_block(skip, _SKIP_FILTERS, 1, config, "skip")
    x = layers.Concatenate(name="join")([x, skip])
    for number in (1, 2):
        x = convolution_block(x, filters, 3, config, f"refine_{number}", separable=True)
    return enlarge_scores(scores(dropped(x, config), classes, "score"), 4, config, "logits")


def _pyramid(x: KerasTensor, filters: int, config: TrainConfig) -> KerasTensor:
    """Atrous spatial pyramid pooling: [b, h, w, c] -> [b, h, w, filters]."""
    parts = [convolution_block(x, filters, 1, config, "aspp_1")]
    for rate in _RATES:
        rate *= 16 // config.output_stride
        parts.append(convolution_block(x, filters, 3, config, f"aspp_{rate}", rate=rate, separable=True))
    parts.append(image_level(x, filters, "aspp_image"))
    return convolution_block(layers.Concatenate(name="aspp")(parts), filters, 1, config, "aspp_join")
