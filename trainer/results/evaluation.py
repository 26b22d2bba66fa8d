"""How good a trained network is on a test split."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.errors import BadSettings
from trainer.data.cache import Arrays, Dataset
from trainer.data.source import IGNORED, Source
from trainer.models.inference import logits_of
from trainer.objective.boundary import boundary_f1
from trainer.objective.metrics import Scores, most_likely
from trainer.results.legend import Legend

Masker = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""Images uint8 [b, H, W, 3] -> class indices uint8 [b, H, W], of the network's size."""


BATCH = 16
"""Images that are scored at a time, unless somebody says otherwise."""


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found.

    Attributes:
        boundary_f1: of each class, mean over the images in which it has a boundary (nan if there is none).
        image_miou: [N], of each image by itself, in the order of the split.
        images_per_second: of the prediction alone, without its first batch, while images are read and scored beside it.
    """

    scores: Scores
    boundary_f1: dict[str, float]
    image_miou: NDArray[np.float64]
    images_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Means and values by class, None for what has no value."""
        scores = self.scores
        return {
            "miou": _or_none(scores.miou),
            "miou_without_background": _or_none(scores.miou_without_background),
            "frequency_weighted_iou": _or_none(scores.frequency_weighted_iou),
            "pixel_accuracy": _or_none(scores.pixel_accuracy),
            "mean_class_accuracy": _or_none(scores.mean_class_accuracy),
            "mean_boundary_f1": _or_none(_nanmean(np.array(list(self.boundary_f1.values())))),
            "iou": _by_class(scores.iou),
            "dice": _by_class(scores.dice),
            "precision": _by_class(scores.precision),
            "recall": _by_class(scores.recall),
            "boundary_f1": _by_class(self.boundary_f1),
            "confusion": scores.matrix.tolist(),
            "images_per_second": round(self.images_per_second, 2),
        }


def masker(model: keras.Model) -> Masker:
    """The network as a function from images to masks of its input's size."""
    logits = logits_of(model)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8)])
    def run(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(most_likely(logits(images)), tf.uint8)

    return lambda images: run(tf.constant(images)).numpy()


_PIXELS_AT_ONCE, _NUMBERS_AT_ONCE = 1 << 20, 1 << 23
"""Of the images that a network is given together, and of pixels times classes that it gives: 32 MiB, in some copies."""


def batch_that_fits(batch_size: int, pixels: int, classes: int) -> int:
    """``batch_size``, or as many images of ``pixels`` as the memory that is meant for them holds."""
    return max(1, min(batch_size, _PIXELS_AT_ONCE // pixels, _NUMBERS_AT_ONCE // (pixels * classes)))


def evaluate(predict: Masker, split: Arrays, legend: Legend, batch_size: int = BATCH) -> Evaluation:
    """Scores over all of ``split``, at the network's input size, as training's validation has them.

    Args:
        batch_size: images at a time; fewer where so many would take too much memory.
    """
    batch_size = batch_that_fits(batch_size, split.masks[0].size, len(legend.classes))
    tally, seconds = Tally(legend), []
    for start in range(0, len(split), batch_size):
        images, masks = split.images[start : start + batch_size], split.masks[start : start + batch_size]
        began = time.monotonic()
        predictions = predict(images)
        seconds.append((time.monotonic() - began) / len(images))
        for mask, prediction in zip(masks, predictions, strict=True):
            tally.add(tally.judgement(mask, prediction))
    return tally.evaluation(seconds[1:] or seconds)


def whole_matrix(truth: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """The confusion matrix, int64 [classes, classes], of one image [H, W] of any size: a part of it at a time."""
    counts = np.zeros((IGNORED + 1) * classes, np.int64)
    rows = max(1, _PIXELS_AT_ONCE // truth.shape[1])
    for top in range(0, len(truth), rows):
        cells = truth[top : top + rows].astype(np.uint16) * classes + prediction[top : top + rows]
        counts += np.bincount(cells.ravel(), minlength=len(counts))
    return counts.reshape(-1, classes)[:classes]


class Judgement(NamedTuple):
    """Of one image: its confusion matrix, int64 [classes, classes], and the boundary F1 of each class."""

    matrix: NDArray[np.int64]
    boundary_f1: NDArray[np.float64]


class Tally:
    """Predictions held against the truth, one image after another."""

    def __init__(self, legend: Legend):
        self._legend = legend
        self._matrix = np.zeros((len(legend.classes),) * 2, np.int64)
        self._mious: list[float] = []
        self._boundaries: list[NDArray[np.float64]] = []

    def judgement(self, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> Judgement:
        """Of class indices [H, W] of one image, of any size; several threads may ask."""
        classes = len(self._legend.classes)
        return Judgement(whole_matrix(truth, prediction, classes), boundary_f1(truth, prediction, classes))

    def add(self, judgement: Judgement) -> None:
        """That of the next image."""
        self._matrix += judgement.matrix
        self._mious.append(Scores(judgement.matrix, self._legend.classes).miou)
        self._boundaries.append(judgement.boundary_f1)

    def evaluation(self, seconds: Sequence[float]) -> Evaluation:
        """What follows from all of them; ``seconds`` are those that the prediction of an image took."""
        by_class = [_nanmean(scores) for scores in np.transpose(self._boundaries)]
        return Evaluation(
            Scores(self._matrix, self._legend.classes, self._legend.background),
            dict(zip(self._legend.classes, by_class, strict=True)),
            np.array(self._mious),
            1 / float(np.mean(seconds)),
        )


def check_classes(legend: Legend, dataset: Dataset | Source, place: str) -> str | None:
    """Whether the network's labels are those of the data; returns a warning if they may mean something else.

    Raises:
        BadSettings: there are more or fewer classes, or one of the network's has another label in the data.
    """
    ours, theirs = legend.classes, dataset.classes
    expected = f"expected the {len(ours)} classes of {place} ({', '.join(ours)})"
    found = f"found {len(theirs)} in {dataset.name} ({', '.join(theirs)})"
    if len(ours) != len(theirs):
        raise BadSettings(f"--data: {expected}, {found}")
    if ours == theirs or ours == Legend.unnamed(len(ours)).classes:
        return None
    if any(name in ours and ours.index(name) != label for label, name in enumerate(theirs)):
        raise BadSettings(
            f"--data: {expected} in this order, {found}; give each class the label that it was trained by"
        )
    return f"--data: {expected}, {found}: they are taken for the same, in this order"


def table(evaluation: Evaluation) -> str:
    """The scores as lines of text: a row for each class, then what follows from all of them."""
    facts = evaluation.to_json()
    width = max(map(len, [*facts["iou"], "mean class accuracy"]))
    lines = [f"{'class':{width}}     IoU    Dice  boundary F1"]
    for name in facts["iou"]:
        values = (facts["iou"][name], facts["dice"][name], facts["boundary_f1"][name])
        lines.append(f"{name:{width}}  {_text(values[0]):>6}  {_text(values[1]):>6}  {_text(values[2]):>11}")
    lines.append("")
    for key, title in (
        ("miou", "mIoU"),
        ("miou_without_background", "mIoU without background"),
        ("frequency_weighted_iou", "frequency-weighted IoU"),
        ("pixel_accuracy", "pixel accuracy"),
        ("mean_class_accuracy", "mean class accuracy"),
        ("mean_boundary_f1", "mean boundary F1"),
    ):
        lines.append(f"{title:24} {_text(facts[key])}")
    lines.append(f"{'images/s':24} {facts['images_per_second']:.1f}")
    return "\n".join(lines)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _by_class(values: dict[str, float]) -> dict[str, float | None]:
    return {name: _or_none(value) for name, value in values.items()}


def _or_none(value: float) -> float | None:
    """JSON has no nan."""
    return None if math.isnan(value) else value


def _nanmean(values: NDArray[np.float64]) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else math.nan
