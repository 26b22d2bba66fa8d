"""Batches as a pure function of the step.

Training reads one endless stream of positions: step s of global batch B covers positions s·B to s·B + B − 1, and
position p is in epoch p // N, where a permutation of that epoch's own tells its example. So each batch is full,
each example is seen exactly once an epoch whatever the batch size and the number of workers, and a run that is
resumed at any step goes on with the right example. Workers agree without talking to each other. With a
:class:`~trainer.data.sampling.Balance` three of four positions have another example, which seed and position tell too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.cgroup import cpu_limit
from trainer.data.augmentation import Augmentation
from trainer.data.cache import Arrays, Pictures
from trainer.data.cropping import ANY, CropDraws, crop
from trainer.data.read_ahead import ReadAhead
from trainer.data.sampling import Balance, draws, shuffled
from trainer.data.stream import Stream

_PREFETCH = 2
"""Batches that wait for their step."""
_DRAWS_OF_BALANCE = 3
_DRAWS = _DRAWS_OF_BALANCE + len(CropDraws._fields)
"""Of each position, which example it has and what is cut out of it: each number has one use."""


def worker_slices(global_batch: int, workers: int) -> list[slice]:
    """Which positions of each global batch belong to each worker; sizes differ by one at most."""
    ends = [global_batch * worker // workers for worker in range(workers + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


def training_batches(
    arrays: Arrays | Pictures,
    *,
    global_batch: int,
    worker_slice: slice,
    seed: int,
    first_step: int,
    last_step: int,
    augmentation: Augmentation,
    features: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, ...]] | None = None,
    ahead: ReadAhead | None = None,
    balance: Balance | None = None,
) -> tf.data.Dataset:
    """Batches of the steps ``first_step`` (included) to ``last_step`` (excluded).

    Args:
        worker_slice: this worker's positions within the global batch, from :func:`worker_slices`.
        features: of examples int64 (b,), mirrored where bool (b,) says so, to come in the images' place. The
            augmentation must be no more than a flip.
        ahead: of a stream, :func:`read_ahead` of the same steps; by default one of their own.
        balance: has most of the examples drawn for a class.

    Returns:
        Tuples of images uint8 (b, H, W, 3) or a tuple of features (b, h, w, c), masks uint8 (b, H, W) and examples
        int64 (b,), the indices into ``arrays``.
    """
    offsets = tf.range(worker_slice.start, worker_slice.stop, dtype=tf.int64)
    if ahead is None and arrays.stream is not None:
        ahead = read_ahead(
            arrays.stream,
            global_batch=global_batch,
            worker_slice=worker_slice,
            seed=seed,
            first_step=first_step,
            last_step=last_step,
        )

    @tf.autograph.experimental.do_not_convert  # it has nothing to convert, and looking for it takes a second
    def batch(step: tf.Tensor) -> tuple[Any, tf.Tensor, tf.Tensor]:
        positions = step * global_batch + offsets
        drawn = draws(positions, _DRAWS, seed) if balance or isinstance(arrays, Pictures) else positions
        examples, wanted = _examples(positions, len(arrays), seed, drawn, balance)
        if isinstance(arrays, Pictures):
            images, masks = _cropped(arrays, examples, drawn[:, _DRAWS_OF_BALANCE:], wanted)
            images, masks = augmentation(images, masks, seed=seed, positions=positions, examples=examples)
            return images, masks, examples
        if features is not None:
            flips = augmentation.flipped(seed=seed, positions=positions, examples=examples)
            (masks,) = _read(examples, arrays.masks)
            masks = tf.where(flips[:, None, None], tf.reverse(masks, [2]), masks)
            return features(examples, flips), masks, examples
        images, masks = _read(examples, arrays.images, arrays.masks) if ahead is None else _taken(step, ahead, arrays)
        images, masks = augmentation(images, masks, seed=seed, positions=positions, examples=examples)
        return images, masks, examples

    # Beside a GPU, augmentation on one thread (some 2 ms an image) would set the pace.
    parallel = max(1, cpu_limit() // 2)
    return _finish(tf.data.Dataset.range(first_step, last_step).map(batch, num_parallel_calls=parallel))


def evaluation_batches(
    arrays: Arrays,
    *,
    batch: int,
    worker: int,
    workers: int,
    features: Callable[[tf.Tensor], tuple[tf.Tensor, ...]] | None = None,
) -> tf.data.Dataset:
    """Batches of images uint8 (b, H, W, 3) and masks uint8 (b, H, W) in order; the last one may be smaller.

    Each example comes once over all workers. A worker has no batch at all if there are fewer examples than workers.

    Args:
        features: of examples int64 (b,), to come in the images' place.
    """
    mine = worker_slices(len(arrays), workers)[worker]
    steps = tf.data.Dataset.range(mine.start, mine.stop, batch)
    starts = range(mine.start, mine.stop, batch)
    ahead = None
    if arrays.stream is not None:
        # The batches are numbered from 0 on.
        ahead = ReadAhead(
            arrays.stream,
            lambda numbers: [range(start, min(start + batch, mine.stop)) for start in map(starts.__getitem__, numbers)],
            0,
            len(starts),
        )

    @tf.autograph.experimental.do_not_convert
    def examples(start: tf.Tensor) -> tuple[Any, ...]:
        indices = tf.range(start, tf.minimum(start + batch, mine.stop))
        if features is not None:
            return features(indices), *_read(indices, arrays.masks)
        if ahead is not None:
            return _taken((start - mine.start) // batch, ahead, arrays)
        return _read(indices, arrays.images, arrays.masks)

    return _finish(steps.map(examples))


def example_indices(
    step: int, *, global_batch: int, count: int, seed: int, balance: Balance | None = None
) -> list[int]:
    """Which of ``count`` examples the global batch of ``step`` holds, over all workers."""
    positions = tf.range(step * global_batch, (step + 1) * global_batch, dtype=tf.int64)
    drawn = positions if balance is None else draws(positions, _DRAWS, seed)
    indices: list[int] = _examples(positions, count, seed, drawn, balance)[0].numpy().tolist()
    return indices


def _examples(
    positions: tf.Tensor, count: int, seed: int, drawn: tf.Tensor, balance: Balance | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """The example at each position of the stream, and the class that it is drawn for, or -1; both int64 (b,)."""
    examples = shuffled(positions, count, seed)
    if balance is None:
        return examples, tf.fill(tf.shape(examples), tf.constant(ANY, tf.int64))
    return balance.choose(examples, drawn[:, :_DRAWS_OF_BALANCE])


def _cropped(pictures: Pictures, examples: tf.Tensor, drawn: tf.Tensor, wanted: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """A part of each picture; ``drawn`` are float32 (b, 4)."""

    def cut(indices: NDArray[np.int64], draws: NDArray[np.float32], labels: NDArray[np.int64]) -> list[Any]:
        parts = [
            crop(pictures.image(i), pictures.mask(i), pictures.window, CropDraws(*numbers), label)
            for i, numbers, label in zip(indices.tolist(), draws.tolist(), labels.tolist(), strict=True)
        ]
        return [np.stack(arrays) for arrays in zip(*parts, strict=True)]

    parts = tf.numpy_function(cut, [examples, drawn, wanted], [tf.uint8] * 2, stateful=False)
    for part, channels in zip(parts, (pictures.pixels.shape[1:], ()), strict=True):
        part.set_shape([examples.shape[0], *pictures.window, *channels])
    return tuple(parts)


def read_ahead(
    stream: Stream, *, global_batch: int, worker_slice: slice, seed: int, first_step: int, last_step: int
) -> ReadAhead:
    """What reads the examples of :func:`training_batches` with the same arguments ahead of them."""
    offsets = tf.range(worker_slice.start, worker_slice.stop, dtype=tf.int64)

    def examples(steps: range) -> NDArray[np.int64]:
        positions = tf.range(steps.start, steps.stop, dtype=tf.int64)[:, None] * global_batch + offsets
        found: NDArray[np.int64] = shuffled(tf.reshape(positions, [-1]), len(stream.split), seed).numpy()
        return found.reshape(len(steps), -1)

    return ReadAhead(stream, examples, first_step, last_step)


def _taken(number: tf.Tensor, ahead: ReadAhead, arrays: Arrays) -> tuple[tf.Tensor, tf.Tensor]:
    """A batch that is read ahead."""
    images, masks = tf.numpy_function(
        lambda number: ahead.take(int(number)), [number], [tf.uint8, tf.uint8], stateful=False
    )
    for copy, array in ((images, arrays.images), (masks, arrays.masks)):
        copy.set_shape([None, *array.shape[1:]])
    return images, masks


def _read(examples: tf.Tensor, *arrays: NDArray[np.uint8]) -> tuple[tf.Tensor, ...]:
    """Copies examples out of the memory-mapped files, whose pages all local workers share."""

    def read(indices: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        return [np.asarray(array[indices]) for array in arrays]

    copies = tf.numpy_function(read, [examples], [tf.uint8] * len(arrays), stateful=False)
    for copy, array in zip(copies, arrays, strict=True):
        copy.set_shape([examples.shape[0], *array.shape[1:]])
    return tuple(copies)


def _finish(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    # Every worker makes its own batches: Keras and tf.distribute shall not shard them again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.prefetch(_PREFETCH).with_options(options)
