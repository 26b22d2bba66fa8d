"""Losses, each per example, so that their sum over a global batch is the same however it is spread over workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from trainer.data.source import IGNORED
from trainer.objective.metrics import FEW_CLASSES
from trainer.objective.own import OwnTerm

Masks = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
"""uint8 [N, H, W], or N of [H, W] that differ in size."""
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Labels uint8 or int [b, H, W] and logits float32 [b, H, W, C] -> loss float32 [b].

An example's loss is about its own valid pixels alone; without any it is 0, and so is its gradient.
"""


@dataclass(frozen=True)
class _Target:
    """What an example's pixels should become.

    Attributes:
        labels: int32 [b, N], 0 where ignored.
        valid: float32 [b, N], 1 or 0.
        weights: float32 [b, N], the pixels' class weights, 0 where ignored.
    """

    labels: tf.Tensor
    valid: tf.Tensor
    weights: tf.Tensor

    def mean(self, pixels: tf.Tensor) -> tf.Tensor:
        """Weighted sum of a loss [b, N] over the number of valid pixels, [b]."""
        return tf.math.divide_no_nan(tf.reduce_sum(pixels * self.weights, 1), tf.reduce_sum(self.valid, 1))

    def one_hot(self, classes: int) -> tf.Tensor:
        """float32 [b, N, C], nothing but zeros where ignored."""
        return tf.one_hot(self.labels, classes) * self.valid[..., None]


def build_loss(config: TrainConfig, classes: int, masks: Masks, frequencies: NDArray[np.float64] | None = None) -> Loss:
    """The sum of the losses that ``config.loss`` names.

    Args:
        masks: of the training split; looked at only for median-frequency class weights.
        frequencies: as :func:`class_frequencies`, where they are known without that.

    Raises:
        BadSettings: there is another number of class weights than of classes, or no loss that would heed them; a loss
            of the user's own can't be imported.
    """
    terms = {
        "cross_entropy": lambda target, logits: _cross_entropy(target, logits, config.label_smoothing),
        "focal": lambda target, logits: _focal(target, logits, config.focal_gamma),
        "dice": _dice,
        "jaccard": _jaccard,
        "lovasz": _lovasz,
    }
    names = config.loss.split("+")
    if config.class_weights is not None and not {"cross_entropy", "focal"}.intersection(names):
        raise BadSettings(
            f"--class-weights {config.class_weights}: expected a loss that weighs classes (cross_entropy, focal), "
            f"found --loss {config.loss}; leave the weights out, or add one: --loss {config.loss}+cross_entropy"
        )
    chosen = [terms[name] for name in names if name in terms]
    own = [OwnTerm(name) for name in names if name not in terms]
    class_weights = _class_weights(config, classes, masks, frequencies)

    def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        batch = tf.shape(logits)[0]
        mine = [term(labels, logits) for term in own]
        labels = tf.reshape(tf.cast(labels, tf.int32), (batch, -1))
        ignored = labels == IGNORED
        valid = tf.cast(~ignored, tf.float32)
        labels = tf.where(ignored, 0, labels)
        weights = valid if class_weights is None else valid * tf.gather(class_weights, labels)
        target = _Target(labels, valid, weights)
        flat = tf.reshape(logits, (batch, -1, classes))
        return tf.add_n([*mine, *(term(target, flat) for term in chosen)])

    return loss


def class_frequencies(masks: Masks, classes: int) -> NDArray[np.float64]:
    """How frequent each class is in the images that show it; 0 for one that none shows."""
    counts = np.array([np.bincount(mask.ravel(), minlength=256)[:classes] for mask in masks], np.float64)
    shown = counts > 0
    pixels_where_shown = (counts.sum(axis=1, keepdims=True) * shown).sum(axis=0)
    frequencies = np.zeros(classes)
    np.divide(counts.sum(axis=0), pixels_where_shown, where=pixels_where_shown > 0, out=frequencies)
    return frequencies


def _class_weights(
    config: TrainConfig, classes: int, masks: Masks, frequencies: NDArray[np.float64] | None
) -> NDArray[np.float32] | None:
    if config.class_weights is None:
        return None
    if config.class_weights == "median_frequency":
        # Eigen, Fergus, ICCV 2015, section 4.3.2. A class that is never shown has no pixel to weigh.
        if frequencies is None:
            frequencies = class_frequencies(masks, classes)
        median = np.median(frequencies[frequencies > 0])
        return np.divide(median, frequencies, where=frequencies > 0, out=np.zeros(classes)).astype(np.float32)
    weights = np.array([float(weight) for weight in config.class_weights.split(",")], np.float32)
    if len(weights) != classes:
        raise BadSettings(
            f"--class-weights {config.class_weights}: expected {classes} numbers, one for each class, "
            f"found {len(weights)}"
        )
    return weights


def _minus_log_probability(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """-log p of each pixel's true class, [b, N].

    In planes of one class each it takes half the time of TensorFlow's kernel, where the classes are few.
    """
    classes = logits.shape[-1]
    if classes > FEW_CLASSES:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    @tf.custom_gradient
    def of_logits(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        planes = tf.transpose(logits, (2, 0, 1))
        most = tf.reduce_max(planes, 0)
        exponentials = tf.exp(planes - most)
        total = tf.reduce_sum(exponentials, 0)
        true = tf.one_hot(labels, classes, True, False, axis=0)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.transpose((exponentials / total - tf.cast(true, logits.dtype)) * upstream, (1, 2, 0))

        # Not a product with ones and zeros: a class that a network rules out has the logit -inf.
        return tf.math.log(total) + most - tf.reduce_sum(tf.where(true, planes, 0.0), 0), gradient

    result: tf.Tensor = of_logits(logits)
    return result


def _cross_entropy(target: _Target, logits: tf.Tensor, smoothing: float) -> tf.Tensor:
    """-sum_c q_c log p_c with q = (1 - smoothing) one_hot + smoothing / C (Szegedy et al., CVPR 2016)."""
    pixels = _minus_log_probability(target.labels, logits)
    if smoothing > 0:
        pixels = (1 - smoothing) * pixels - smoothing * tf.reduce_mean(tf.nn.log_softmax(logits), -1)
    return target.mean(pixels)


def _focal(target: _Target, logits: tf.Tensor, gamma: float) -> tf.Tensor:
    """-(1 - p)^gamma log p of the true class (Lin et al., ICCV 2017)."""
    pixels = _minus_log_probability(target.labels, logits)
    return target.mean((1 - tf.exp(-pixels)) ** gamma * pixels)


def _dice(target: _Target, logits: tf.Tensor) -> tf.Tensor:
    """1 - 2 |p g| / (|p| + |g|), mean over the classes that an example shows (Milletari et al., 3DV 2016)."""
    truth, both, predicted = _areas(target, logits)
    return _mean_over_shown(1 - tf.math.divide_no_nan(2 * both, predicted + truth), truth)


def _jaccard(target: _Target, logits: tf.Tensor) -> tf.Tensor:
    """1 - |p g| / (|p| + |g| - |p g|), mean over the classes that an example shows (Rahman, Wang, ISVC 2016)."""
    truth, both, predicted = _areas(target, logits)
    return _mean_over_shown(1 - tf.math.divide_no_nan(both, predicted + truth - both), truth)


def _lovasz(target: _Target, logits: tf.Tensor) -> tf.Tensor:
    """Lovász-softmax, an image at a time, classes that it shows (Berman, Triki, Blaschko, CVPR 2018)."""
    classes = logits.shape[-1]
    truth = tf.transpose(target.one_hot(classes), (0, 2, 1))
    probabilities = tf.transpose(tf.nn.softmax(logits), (0, 2, 1))
    # Ignored pixels have no error, so they come last, where they add nothing.
    errors = tf.abs(truth - probabilities) * target.valid[:, None, :]
    errors, order = tf.math.top_k(errors, tf.shape(errors)[-1])
    truth = tf.gather(truth, order, batch_dims=2)
    area = tf.reduce_sum(truth, -1, keepdims=True)
    intersection = area - tf.cumsum(truth, -1)
    union = area + tf.cumsum(1 - truth, -1)
    jaccard = 1 - tf.math.divide_no_nan(intersection, union)
    slopes = jaccard - tf.concat([tf.zeros_like(area), jaccard[..., :-1]], -1)
    return _mean_over_shown(tf.reduce_sum(errors * tf.stop_gradient(slopes), -1), area[..., 0])


def _areas(target: _Target, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Areas [b, C] of truth, of truth and prediction, and of the prediction, the latter two by probability."""
    truth = target.one_hot(logits.shape[-1])
    probabilities = tf.nn.softmax(logits) * target.valid[..., None]
    return tf.reduce_sum(truth, 1), tf.reduce_sum(truth * probabilities, 1), tf.reduce_sum(probabilities, 1)


def _mean_over_shown(losses: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
    """Mean [b] of the classes' losses [b, C] over those with an area in the truth [b, C]; 0 if there is none."""
    shown = tf.cast(truth > 0, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(losses * shown, 1), tf.reduce_sum(shown, 1))
