"""Rare classes come more often, by a function of seed and position alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from maskfleet.image_size import Size
from trainer.data.augmentation import Augmentation
from trainer.data.cache import Arrays, Pictures
from trainer.data.pipeline import example_indices, training_batches, worker_slices
from trainer.data.sampling import Balance
from trainer.data.source import IGNORED

COUNT = 20
RARE = {3: 1, 7: 1, 11: 2}
"""The examples that have one pixel of a rare class."""


def masks() -> NDArray[np.uint8]:
    """Half of class 0, half of class 3, a pixel of classes 1 and 2 in few, and some that do not count."""
    labels = np.zeros((COUNT, 24, 24), np.uint8)
    labels[:, 12:] = 3
    labels[:, 0] = IGNORED
    for example, label in RARE.items():
        labels[example, 5, 17] = label
    return labels


def arrays() -> Arrays:
    labels = masks()
    images = np.repeat(labels[..., None], 3, axis=-1)
    images[..., 2] = np.arange(COUNT)[:, None, None]
    return Arrays(tuple(map(str, range(COUNT))), images, labels)


def pictures() -> Pictures:
    whole = arrays()
    sizes = np.full((COUNT, 2), 24)
    return Pictures(whole.names, sizes, whole.images.reshape(-1, 3), whole.masks.reshape(-1), Size(8, 12), {})


def stream(train: Any, batch: int, first: int, last: int, workers: int = 1, seed: int = 0) -> list[list[Any]]:
    """Images, masks and examples of each step, put together from all workers."""
    balance = Balance.of(train.masks, 5)
    parts = [
        list(
            training_batches(
                train,
                global_batch=batch,
                worker_slice=part,
                seed=seed,
                first_step=first,
                last_step=last,
                augmentation=Augmentation(flip="random", colour=0.1),
                balance=balance,
            ).as_numpy_iterator()
        )
        for part in worker_slices(batch, workers)
    ]
    return [[np.concatenate(arrays) for arrays in zip(*step, strict=True)] for step in zip(*parts, strict=True)]


@pytest.mark.parametrize("train", [arrays(), pictures()], ids=["squash", "crop"])
def test_batches_have_the_same_bits_on_any_workers_and_after_a_stop(train: Any) -> None:
    alone = stream(train, 6, 0, 8)
    for other in (stream(train, 6, 0, 8, workers=2), stream(train, 6, 0, 3) + stream(train, 6, 3, 8, workers=3)):
        for found, expected in zip(other, alone, strict=True):
            for one, two in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, two)
    balance = Balance.of(train.masks, 5)
    told = [example_indices(step, global_batch=6, count=COUNT, seed=0, balance=balance) for step in range(8)]
    assert told == [step[2].tolist() for step in alone]
    assert told != [step[2].tolist() for step in stream(train, 6, 0, 8, seed=1)]


def test_most_examples_hold_a_rare_class_and_none_is_lost() -> None:
    counts = Counter(np.concatenate([step[2] for step in stream(arrays(), 10, 0, 60)]).tolist())
    assert set(counts) == set(range(COUNT))
    assert 0.7 < sum(counts[example] for example in RARE) / 600 < 0.9
    assert counts[11] > 1.5 * max(counts[3], counts[7]), "each class as often, and its examples share that"


def test_crops_that_are_drawn_for_a_class_hold_it() -> None:
    steps = stream(pictures(), 10, 0, 30)
    labels, examples = (np.concatenate([step[i] for step in steps]) for i in (1, 2))
    having = [set(np.unique(mask)) & {1, 2} for mask in labels]
    # Three of four are drawn for one; of these half are shrunk, and may lose a single pixel.
    assert 0.45 < np.mean([bool(rare) for rare in having]) < 0.8
    assert all(rare <= {RARE.get(int(example))} for rare, example in zip(having, examples, strict=True))


def test_classes_are_drawn_by_their_rarity_and_never_one_that_nobody_shows() -> None:
    balance = Balance.of(masks(), 5)
    assert balance is not None
    probabilities = np.diff(balance.cumulative, prepend=0)
    assert probabilities[1] == pytest.approx(0.5, abs=0.05)
    assert probabilities[2] == pytest.approx(0.5, abs=0.05)
    assert probabilities[[0, 3]].max() < 1e-6
    assert probabilities[4] == 0
    drawn = np.array([[0.0, share, 0.999] for share in (0.0, 0.3, 0.7, 0.9999999)], np.float32)
    examples, labels = balance.choose(np.zeros(4, np.int64), drawn)
    assert labels.numpy().tolist() == [0, 1, 2, 2]
    assert all(label in masks()[example] for label, example in zip(labels.numpy(), examples.numpy(), strict=True))
    assert Balance.of(np.full((2, 4, 4), IGNORED, np.uint8), 3) is None
