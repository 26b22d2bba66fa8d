"""Metrics of segmentation: one confusion matrix over a whole split, and the scores that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from maskfleet.config import TrainConfig
from trainer.data.source import IGNORED

MEANS = tuple(name for name in get_args(TrainConfig.model_fields["best_by"].annotation) if name != "loss")
"""The scores that are one number: those by which a checkpoint can be the best."""
FEW_CLASSES = 16
"""Up to which planes of one class each are worth it on a processor: with 21 they take as long as TensorFlow's kernels,
which go from pixel to pixel and leave registers empty where the classes are few."""


def most_likely(logits: tf.Tensor) -> tf.Tensor:
    """The class of the largest logit at each place, int32 [..., H, W] of [..., H, W, classes]; of equals the first."""
    classes = logits.shape[-1]
    if classes > FEW_CLASSES:
        return tf.argmax(logits, axis=-1, output_type=tf.int32)
    most, *others = tf.unstack(tf.transpose(logits, (logits.shape.rank - 1, *range(logits.shape.rank - 1))))
    found = tf.zeros_like(most, tf.int32)
    for number, plane in enumerate(others, start=1):
        found = tf.where(plane > most, number, found)
        most = tf.maximum(most, plane)
    return found


def confusion_matrix(labels: tf.Tensor, predictions: tf.Tensor, classes: int) -> tf.Tensor:
    """Counts of pixels, int64 [classes, classes]: rows are the truth, columns the prediction.

    ``labels`` and ``predictions`` are integers of the same shape; pixels labelled 255 do not count. Matrices
    of parts of a split add up to that of the split.
    """
    labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    cells = labels * classes + tf.reshape(tf.cast(predictions, tf.int32), [-1])
    cells = tf.where(labels == IGNORED, classes * classes, cells)
    # The last bin takes the ignored pixels.
    counts = tf.math.bincount(cells, minlength=classes * classes + 1, maxlength=classes * classes + 1)
    return tf.cast(tf.reshape(counts[:-1], (classes, classes)), tf.int64)


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix (rows truth, columns prediction) says about each of ``class_names`` and all of them.

    A class that is in neither truth nor prediction has no score (nan) and does not count in a mean.
    """

    matrix: npt.NDArray[np.int64]
    class_names: Sequence[str]
    background: str | None = None

    @cached_property
    def _ious(self) -> npt.NDArray[np.float64]:
        return _divide(self._hits, self._truth + self._predicted - self._hits)

    @cached_property
    def _hits(self) -> npt.NDArray[np.float64]:
        return np.diag(self.matrix).astype(np.float64)

    @cached_property
    def _truth(self) -> npt.NDArray[np.float64]:
        return np.asarray(self.matrix.sum(axis=1), np.float64)

    @cached_property
    def _predicted(self) -> npt.NDArray[np.float64]:
        return np.asarray(self.matrix.sum(axis=0), np.float64)

    @property
    def iou(self) -> dict[str, float]:
        """Intersection over union of each class."""
        return self._by_class(self._ious)

    @property
    def dice(self) -> dict[str, float]:
        """2 |truth and prediction| / (|truth| + |prediction|) of each class."""
        return self._by_class(_divide(2 * self._hits, self._truth + self._predicted))

    @property
    def precision(self) -> dict[str, float]:
        """|truth and prediction| / |prediction| of each class; nan for one that is never predicted."""
        return self._by_class(_divide(self._hits, self._predicted))

    @property
    def recall(self) -> dict[str, float]:
        """|truth and prediction| / |truth| of each class; nan for one that never occurs."""
        return self._by_class(_divide(self._hits, self._truth))

    @property
    def miou(self) -> float:
        """Mean of the classes' IoU."""
        return _mean(self._ious)

    @property
    def miou_without_background(self) -> float:
        """Mean of the IoU of all classes but ``background``; :attr:`miou` if there is none."""
        return _mean(self._ious[[name != self.background for name in self.class_names]])

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of the classes' IoU weighted with their share of the true pixels."""
        present = self._truth > 0
        return float(_divide(np.sum(self._truth[present] * self._ious[present]), self._truth.sum()))

    @property
    def pixel_accuracy(self) -> float:
        """Share of the pixels that are right."""
        return float(_divide(self._hits.sum(), self._truth.sum()))

    @property
    def mean_class_accuracy(self) -> float:
        """Mean over the classes in the truth of the share of their pixels that are right."""
        return _mean(_divide(self._hits, self._truth))

    @property
    def mean_dice(self) -> float:
        """Mean of the classes' Dice coefficients."""
        return _mean(_divide(2 * self._hits, self._truth + self._predicted))

    @property
    def means(self) -> dict[str, float]:
        """Every score that is one number, by its name."""
        return {name: float(getattr(self, name)) for name in MEANS}

    def _by_class(self, values: npt.NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(self.class_names, values.tolist(), strict=True))


def _divide(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """nan where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.true_divide(numerator, denominator))


def _mean(values: npt.NDArray[np.float64]) -> float:
    """Mean of what is not nan; nan if there is nothing."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
