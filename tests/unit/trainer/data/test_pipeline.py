"""Batches are a function of the step: whatever the batch, the workers and the interruptions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.augmentation import Augmentation
from trainer.data.cache import Arrays
from trainer.data.pipeline import evaluation_batches, example_indices, training_batches, worker_slices

FLIP = Augmentation(flip="random")


def numbered(count: int, size: int = 4) -> Arrays:
    """Example i holds i in all its pixels, but for a mark in the upper left corner that shows a flip."""
    images = np.zeros((count, size, size, 3), np.uint8) + np.arange(count, dtype=np.uint8)[:, None, None, None]
    masks = images[..., 0].copy()
    images[:, 0, 0] = masks[:, 0, 0] = 255
    return Arrays(tuple(f"example-{i}" for i in range(count)), images, masks)


def stream(arrays: Arrays, batch: int, first: int, last: int, workers: int = 1, seed: int = 0) -> list[list[int]]:
    """The examples of each global batch, put together from all workers."""
    parts = [
        [
            examples.tolist()
            for _, _, examples in training_batches(
                arrays,
                global_batch=batch,
                worker_slice=part,
                seed=seed,
                first_step=first,
                last_step=last,
                augmentation=Augmentation(),
            ).as_numpy_iterator()
        ]
        for part in worker_slices(batch, workers)
    ]
    return [[*itertools.chain(*step)] for step in zip(*parts, strict=True)]


@settings(deadline=None)
@given(batch=st.integers(1, 200), workers=st.integers(1, 9))
def test_slices_cover_the_batch_and_differ_by_one_at_most(batch: int, workers: int) -> None:
    slices = worker_slices(batch, workers)
    assert [i for part in slices for i in range(batch)[part]] == list(range(batch))
    sizes = [part.stop - part.start for part in slices]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=12, deadline=None)
@given(data=st.data(), workers=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_each_example_comes_once_an_epoch(data: st.DataObject, workers: int, seed: int) -> None:
    count = data.draw(st.integers(workers, 25))
    batch = data.draw(st.integers(workers, count))
    steps = -(-3 * count // batch)
    batches = stream(numbered(count), batch, 0, steps, workers, seed)
    assert all(len(examples) == batch for examples in batches)
    seen = [*itertools.chain(*batches)]
    for epoch in range(3):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_workers_see_what_one_process_sees() -> None:
    arrays = numbered(23)
    alone = stream(arrays, 10, 0, 9)
    assert stream(arrays, 10, 0, 9, workers=3) == alone
    assert stream(arrays, 10, 4, 9, workers=2) == alone[4:], "a resume goes on with the right example"
    assert [example_indices(step, global_batch=10, count=23, seed=0) for step in range(9)] == alone
    assert stream(arrays, 10, 0, 9, seed=1) != alone


def test_epochs_are_in_unrelated_order() -> None:
    """As many of 300 examples keep their place from one epoch to another as by chance: one, on average."""
    epochs = np.array([example_indices(epoch, global_batch=300, count=300, seed=7) for epoch in range(30)])
    same = [(a == b).sum() for i, a in enumerate(epochs) for b in epochs[:i]]
    assert np.mean(same) == pytest.approx(1, abs=0.2)
    assert max(same) < 10
    neighbours = (np.diff(epochs, axis=1) == 1).sum(axis=1)
    assert neighbours.mean() == pytest.approx(1, abs=0.6)


@pytest.mark.parametrize("flip", ["random", "frozen"])
def test_batches_hold_their_examples_mirrored_or_not(flip: str) -> None:
    arrays = numbered(40)
    batches = training_batches(
        arrays,
        global_batch=16,
        worker_slice=slice(0, 16),
        seed=3,
        first_step=0,
        last_step=20,
        augmentation=Augmentation(flip=flip),  # type: ignore[arg-type]
    )
    flips: dict[int, list[bool]] = {i: [] for i in range(40)}
    for images, masks, examples in batches.as_numpy_iterator():
        assert (images.dtype, masks.dtype, examples.dtype) == (np.uint8, np.uint8, np.int64)
        np.testing.assert_array_equal(images[..., 0], masks)  # together, or not at all
        for image, example in zip(images, examples, strict=True):
            mirrored = bool(image[0, -1, 0] == 255)
            np.testing.assert_array_equal(image, arrays.images[example][:, :: -1 if mirrored else 1])
            flips[int(example)].append(mirrored)
    assert np.mean([*itertools.chain(*flips.values())]) == pytest.approx(0.5, abs=0.15)
    changes = [len(set(seen)) == 2 for seen in flips.values()]
    assert not any(changes) if flip == "frozen" else np.mean(changes) > 0.9


def test_batches_have_a_static_shape() -> None:
    batches = training_batches(
        numbered(9), global_batch=6, worker_slice=slice(0, 4), seed=0, first_step=0, last_step=2, augmentation=FLIP
    )
    assert batches.element_spec == (
        tf.TensorSpec((4, 4, 4, 3), tf.uint8),
        tf.TensorSpec((4, 4, 4), tf.uint8),
        tf.TensorSpec((4,), tf.int64),
    )


@settings(max_examples=10, deadline=None)
@given(count=st.integers(1, 30), batch=st.integers(1, 12), workers=st.integers(1, 4))
def test_evaluation_sees_each_example_once(count: int, batch: int, workers: int) -> None:
    arrays = numbered(count)
    parts = [
        list(evaluation_batches(arrays, batch=batch, worker=worker, workers=workers).as_numpy_iterator())
        for worker in range(workers)
    ]
    assert all(len(images) <= batch for part in parts for images, _ in part)
    images, masks = (np.concatenate([pair[i] for part in parts for pair in part]) for i in (0, 1))
    np.testing.assert_array_equal(images, arrays.images)
    np.testing.assert_array_equal(masks, arrays.masks)
