"""Whose masks look wrong, by what a trained network makes of the pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.text import one_line
from trainer.data.cache import Arrays
from trainer.data.source import IGNORED
from trainer.models.inference import logits_of
from trainer.results.evaluation import BATCH, batch_that_fits
from trainer.results.legend import Legend

TEMPERATURE = 0.1
"""Of the softmin: what the paper's authors found best."""


@dataclass(frozen=True)
class Suspect:
    """A picture and how far its mask is to be believed.

    Attributes:
        split, index, name: which picture.
        score: from 0, wrong, to 1, right.
        given, found: the classes of the commonest disagreement, by the mask and by the network; None if they agree.
        share: of the picture's pixels at which the two disagree so.
    """

    split: str
    index: int
    name: str
    score: float
    given: str | None
    found: str | None
    share: float


def rank(model: keras.Model, splits: Mapping[str, Arrays], legend: Legend) -> list[Suspect]:
    """All pictures of ``splits``, that with the worst mask first. A picture without a labelled pixel is left out.

    One batch after another is in memory, and of each picture nothing stays but its line.
    """
    found = [suspect for name, split in splits.items() for suspect in _of_split(model, name, split, legend)]
    return sorted(found, key=lambda suspect: suspect.score)


def softmin_score(confidences: NDArray[np.floating]) -> float:
    """One score of the probabilities, of any shape, that a network gives to the labels of a mask's pixels.

    The softmin: their mean, each weighted by exp((1 - p) / T), so that few pixels that are surely wrong count more than
    many that are right. Lad and Mueller, "Estimating label quality and errors in semantic segmentation data via any
    model", 2023 (arXiv:2307.05080), section 3; cleanlab has it as ``segmentation.rank``.
    """
    values = np.asarray(confidences, np.float64).ravel()
    weights = np.exp((1 - values) / TEMPERATURE)
    return float(np.sum(weights * values) / np.sum(weights))


def _of_split(model: keras.Model, name: str, split: Arrays, legend: Legend) -> Iterator[Suspect]:
    classes = len(legend.classes)
    run = logits_of(model)
    at_once = batch_that_fits(BATCH, math.prod(model.input_shape[1:3]), classes)
    for start in range(0, len(split), at_once):
        stop = min(start + at_once, len(split))
        images, masks = split.read(slice(start, stop))
        outputs = tf.nn.softmax(run(tf.constant(images))).numpy()
        for index, mask, output in zip(range(start, stop), masks, outputs, strict=True):
            valid = mask != IGNORED
            if not valid.any():
                continue
            labels, output = mask[valid], output[valid]
            score = softmin_score(output[np.arange(len(labels)), labels])
            pairs = np.bincount(labels.astype(np.int64) * classes + output.argmax(-1), minlength=classes**2)
            pairs[:: classes + 1] = 0  # those that agree
            worst = int(pairs.argmax())
            share = float(pairs[worst] / len(labels))
            given, found = (legend.classes[label] if share else None for label in divmod(worst, classes))
            yield Suspect(name, index, split.names[index], score, given, found, share)


def table(suspects: Sequence[Suspect], top: int) -> str:
    """The first ``top`` as lines of text."""
    lines = [f"{'score':6}  {'split':10}  picture"]
    for suspect in suspects[:top]:
        why = f": {suspect.share:.0%} is {suspect.given} by the mask, {suspect.found} by the network"
        name = one_line(suspect.name) + (one_line(why) if suspect.given is not None else "")
        lines.append(f"{suspect.score:.4f}  {suspect.split:10}  {name}")
    return "\n".join(lines)
