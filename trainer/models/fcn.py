"""Fully convolutional networks: FCN-32s, FCN-16s, FCN-8s (Long, Shelhamer, Darrell, CVPR 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from keras import KerasTensor, layers

from maskfleet.config import TrainConfig
from trainer.models.upsampling import enlarge_scores

Decoder = Callable[[Sequence[KerasTensor], int, TrainConfig], KerasTensor]


def _fcn(finest: int, features: Sequence[KerasTensor], classes: int, config: TrainConfig) -> KerasTensor:
    """Features of strides ``finest``..32, finest first -> logits float32 [b, P, Q, classes] at the padded input's size.

    The scores of stride 32 are enlarged step by step to those of stride ``finest`` and added to them, and at
    last enlarged to the input's size. Score layers start from zero, as in the paper.
    """
    *finer, coarsest = features
    stride = 32
    x = _score(coarsest, classes, stride)
    for feature in reversed(finer):
        x = enlarge_scores(x, 2, config, f"up_{stride}")
        stride //= 2
        x = layers.Add(dtype="float32", name=f"fuse_{stride}")([x, _score(feature, classes, stride)])
    return enlarge_scores(x, finest, config, "logits")


def _score(features: KerasTensor, classes: int, stride: int) -> KerasTensor:
    return layers.Conv2D(classes, 1, kernel_initializer="zeros", dtype="float32", name=f"score_{stride}")(features)


fcn32s: Decoder = partial(_fcn, 32)
fcn16s: Decoder = partial(_fcn, 16)
fcn8s: Decoder = partial(_fcn, 8)
