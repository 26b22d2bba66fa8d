"""SegFormer's decoder: features of all strides, each through one product, joined at stride 4."""

from __future__ import annotations

from collections.abc import Sequence

from keras import KerasTensor, layers

from maskfleet.config import TrainConfig
from trainer.models.blocks import convolution_block, dropped, enlarge_features, scores
from trainer.models.upsampling import enlarge_scores

_FILTERS = 256
_FILTERS_OF_LARGE = 768
"""Over MiT-B2 and larger ones."""


def segformer(features: Sequence[KerasTensor], classes: int, config: TrainConfig) -> KerasTensor:
    """Features of strides 4..32, finest first -> logits float32 [b, P, Q, classes] at the padded input's size.

    Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", NeurIPS 2021.
    """
    filters = config.decoder_filters or (_FILTERS_OF_LARGE if config.encoder == "mit_b2" else _FILTERS)
    parts = []
    for number, feature in enumerate(features):
        stride = 4 << number
        part = layers.Conv2D(filters, 1, name=f"linear_{stride}")(feature)
        parts.append(enlarge_features(part, stride // 4, config, f"up_{stride}"))
    x = convolution_block(layers.Concatenate(name="join")(parts[::-1]), filters, 1, config, "fuse")
    return enlarge_scores(scores(dropped(x, config), classes, "score"), 4, config, "logits")
