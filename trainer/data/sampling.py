"""Which example stands at a position of training's stream, as a pure function of (seed, position)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.cgroup import cpu_limit
from trainer.data.cropping import ANY
from trainer.data.images import label_counts

_ROUNDS = 16
"""Of the cipher that shuffles: with the 4 of tf.random.experimental.index_shuffle, epochs of some hundred examples
were found to have half of their positions in common."""
_TEMPERATURE = 0.01
"""Of the softmax by which classes are drawn: classes of less than a hundredth of the pixels are drawn about equally
often, those of a tenth or more hardly ever (Hoyer, Dai, Van Gool, "DAFormer", CVPR 2022, section 3.3)."""
_SHARE = 0.75
"""Of the examples that are drawn for a class. The others come in their order, so that no example is lost."""


def shuffled(positions: tf.Tensor, count: int, seed: int) -> tf.Tensor:
    """The example at each position of the stream, int64: a permutation of ``count`` examples in each epoch."""
    epochs = positions // count
    # The raw op, as index_shuffle also pads the wrong axis where each position has its own seed.
    seeds = tf.stack([tf.zeros_like(epochs), tf.fill(tf.shape(epochs), tf.constant(seed, tf.int64)), epochs], axis=1)
    last = tf.constant(count - 1, tf.int64)
    return tf.raw_ops.RandomIndexShuffle(index=positions % count, seed=seeds, max_index=last, rounds=_ROUNDS)


def draws(positions: tf.Tensor, count: int, seed: int) -> tf.Tensor:
    """float32 (b, count) in 0..1 for int64 (b,) positions; other numbers than those that augmentation draws."""
    key = tf.constant(-1 - seed, tf.int64)

    def draw(position: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform([count], [key, position])

    return tf.map_fn(draw, positions, fn_output_signature=tf.TensorSpec([count], tf.float32))


@dataclass(frozen=True)
class Balance:
    """Rare class sampling: three of four examples are drawn for a class, and rare classes are drawn most.

    Attributes:
        cumulative: float32 (C,), the probability of a class or one before it.
        members: int64, the examples that hold each class, class after class.
        ends: int64 (C,), where each class ends in them.
    """

    cumulative: NDArray[np.float32]
    members: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, masks: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], classes: int) -> Balance | None:
        """From all masks of the training split; None if none has a pixel that counts."""
        with ThreadPoolExecutor(cpu_limit()) as threads:
            counts = np.array([*threads.map(label_counts, masks)])[:, :classes]
        pixels = counts.sum(axis=0)
        if not pixels.any():
            return None
        frequencies = pixels / pixels.sum()
        weights = np.where(pixels > 0, np.exp((frequencies[pixels > 0].min() - frequencies) / _TEMPERATURE), 0)
        holding, members = np.nonzero(counts.T)
        ends = np.searchsorted(holding, np.arange(classes), side="right")
        return cls((np.cumsum(weights) / weights.sum()).astype(np.float32), members, ends)

    def choose(self, examples: tf.Tensor, drawn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Examples int64 (b,) in the place of those in their order, and the class int64 (b,) that each is drawn for.

        Args:
            drawn: float32 (b, 3), uniform in 0..1.
        """
        balanced = drawn[:, 0] < _SHARE
        label = tf.searchsorted(self.cumulative, drawn[:, 1], side="right", out_type=tf.int64)
        label = tf.minimum(label, int(np.flatnonzero(np.diff(self.ends, prepend=0))[-1]))
        ends = tf.constant(self.ends, tf.int64)
        end = tf.gather(ends, label)
        start = tf.where(label == 0, tf.constant(0, tf.int64), tf.gather(ends, tf.maximum(label - 1, 0)))
        place = start + tf.minimum(tf.cast(drawn[:, 2] * tf.cast(end - start, tf.float32), tf.int64), end - start - 1)
        chosen = tf.gather(tf.constant(self.members, tf.int64), place)
        return tf.where(balanced, chosen, examples), tf.where(balanced, label, tf.constant(ANY, tf.int64))
