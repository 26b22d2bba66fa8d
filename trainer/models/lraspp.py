"""LR-ASPP, the light head of MobileNetV3."""

from __future__ import annotations

from collections.abc import Sequence

from keras import KerasTensor, layers

from maskfleet.config import TrainConfig
from trainer.models.blocks import convolution_block, enlarge_features, scores
from trainer.models.upsampling import enlarge_scores

_FILTERS = 128


def lraspp(features: Sequence[KerasTensor], classes: int, config: TrainConfig) -> KerasTensor:
    """Features of stride 8 and of the output stride -> logits float32 [b, P, Q, classes] at the padded input's size.

    Howard et al., "Searching for MobileNetV3", ICCV 2019, section 6.4; the pooling is over the whole image, as in
    torchvision's, so that every size of input has it.
    """
    fine, coarse = features
    filters = config.decoder_filters or _FILTERS
    x = convolution_block(coarse, filters, 1, config, "context")
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="gate_mean")(coarse)
    gate = layers.Conv2D(filters, 1, use_bias=False, activation="sigmoid", name="gate")(gate)
    x = layers.Multiply(name="gated")([x, gate])
    x = enlarge_features(x, fine.shape[1] // x.shape[1], config, "up")
    x = layers.Add(dtype="float32", name="fuse")([scores(fine, classes, "score_fine"), scores(x, classes, "score")])
    return enlarge_scores(x, 8, config, "logits")
