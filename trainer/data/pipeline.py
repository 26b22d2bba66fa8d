"""Batches as a pure function of the step.

Training reads one endless stream of positions: step s of global batch B covers positions s·B to s·B + B − 1, and
position p is in epoch p // N, where a permutation of that epoch's own tells its example. So each batch is full,
each example is seen exactly once an epoch whatever the batch size and the number of workers, and a run that is
resumed at any step goes on with the right example. Workers agree without talking to each other.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.data.augmentation import Augmentation
from trainer.data.cache import Arrays

_ROUNDS = 16
"""Of the cipher that shuffles: with the 4 of tf.random.experimental.index_shuffle, epochs of some hundred examples
were found to have half of their positions in common."""
_PREFETCH = 2
"""Batches that wait for their step."""


def worker_slices(global_batch: int, workers: int) -> list[slice]:
    """Which positions of each global batch belong to each worker; sizes differ by one at most."""
    ends = [global_batch * worker // workers for worker in range(workers + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


def training_batches(
    arrays: Arrays,
    *,
    global_batch: int,
    worker_slice: slice,
    seed: int,
    first_step: int,
    last_step: int,
    augmentation: Augmentation,
    features: Sequence[NDArray[Any]] = (),
) -> tf.data.Dataset:
    """Batches of the steps ``first_step`` (included) to ``last_step`` (excluded).

    Args:
        worker_slice: this worker's positions within the global batch, from :func:`worker_slices`.
        features: arrays (N, sides, h, w, c) of all images and, as side 1, their mirror images. If there are some,
            they come in the images' place; the augmentation must be no more than a flip.

    Returns:
        Tuples of images uint8 (b, S, S, 3) or a tuple of features (b, h, w, c), masks uint8 (b, S, S) and examples
        int64 (b,), the indices into ``arrays``.
    """
    offsets = tf.range(worker_slice.start, worker_slice.stop, dtype=tf.int64)

    @tf.autograph.experimental.do_not_convert  # it has nothing to convert, and looking for it takes a second
    def batch(step: tf.Tensor) -> tuple[Any, tf.Tensor, tf.Tensor]:
        positions = step * global_batch + offsets
        examples = _shuffled(positions, len(arrays), seed)
        if features:
            flips = augmentation.flipped(seed=seed, positions=positions, examples=examples)
            (masks,) = _read([arrays.masks], examples)
            masks = tf.where(flips[:, None, None], tf.reverse(masks, [2]), masks)
            return _read(features, examples, tf.cast(flips, tf.int64)), masks, examples
        images, masks = _read([arrays.images, arrays.masks], examples)
        images, masks = augmentation(images, masks, seed=seed, positions=positions, examples=examples)
        return images, masks, examples

    # Beside a GPU, augmentation on one thread (some 2 ms an image) would set the pace.
    parallel = max(1, len(os.sched_getaffinity(0)) // 2)
    return _finish(tf.data.Dataset.range(first_step, last_step).map(batch, num_parallel_calls=parallel))


def evaluation_batches(
    arrays: Arrays, *, batch: int, worker: int, workers: int, features: Sequence[NDArray[Any]] = ()
) -> tf.data.Dataset:
    """Batches of images uint8 (b, S, S, 3) and masks uint8 (b, S, S) in order; the last one may be smaller.

    Each example comes once over all workers. A worker has no batch at all if there are fewer examples than workers.

    Args:
        features: arrays (N, h, w, c) of all images; if there are some, a tuple of them comes in the images' place.
    """
    mine = worker_slices(len(arrays), workers)[worker]
    steps = tf.data.Dataset.range(mine.start, mine.stop, batch)

    @tf.autograph.experimental.do_not_convert
    def examples(start: tf.Tensor) -> tuple[Any, tf.Tensor]:
        indices = tf.range(start, tf.minimum(start + batch, mine.stop))
        *inputs, masks = _read([*(features or [arrays.images]), arrays.masks], indices)
        return tuple(inputs) if features else inputs[0], masks

    return _finish(steps.map(examples))


def example_indices(step: int, *, global_batch: int, count: int, seed: int) -> list[int]:
    """Which of ``count`` examples the global batch of ``step`` holds, over all workers."""
    positions = tf.range(step * global_batch, (step + 1) * global_batch, dtype=tf.int64)
    return _shuffled(positions, count, seed).numpy().tolist()


def _shuffled(positions: tf.Tensor, count: int, seed: int) -> tf.Tensor:
    """The example at each position of the stream."""
    epochs = positions // count
    # The raw op, as index_shuffle also pads the wrong axis where each position has its own seed.
    seeds = tf.stack([tf.zeros_like(epochs), tf.fill(tf.shape(epochs), tf.constant(seed, tf.int64)), epochs], axis=1)
    last = tf.constant(count - 1, tf.int64)
    return tf.raw_ops.RandomIndexShuffle(index=positions % count, seed=seeds, max_index=last, rounds=_ROUNDS)


def _read(arrays: Sequence[NDArray[Any]], *indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Copies entries out of memory-mapped files, whose pages all local workers share.

    Args:
        indices: int64 (b,), one for each of the first axes.
    """

    def copy(*indices: NDArray[np.int64]) -> list[NDArray[Any]]:
        return [np.asarray(array[indices]) for array in arrays]

    read = tf.numpy_function(copy, indices, [tf.as_dtype(array.dtype) for array in arrays], stateful=False)
    for tensor, array in zip(read, arrays, strict=True):
        tensor.set_shape([indices[0].shape[0], *array.shape[len(indices) :]])
    return tuple(read)


def _finish(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    # Every worker makes its own batches: Keras and tf.distribute shall not shard them again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(_PREFETCH).with_options(options)
