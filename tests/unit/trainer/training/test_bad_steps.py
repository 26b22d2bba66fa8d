"""What becomes of a step whose loss or gradients are not finite."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import MOST_BAD_STEPS, TrainConfig
from maskfleet.errors import TrainingFailed
from tests.helpers.training_steps import batches, set_up
from trainer.data.cache import Dataset, load_dataset
from trainer.training import loop
from trainer.training.state import Training
from trainer.training.steps import make_step_function


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("synthetic", None, 32)


def spoilt(dataset: Dataset, bad: frozenset[int], kind: str, **settings: Any) -> Training:
    """Training of which the steps ``bad``, from 0 on, have a loss ("loss") or gradients ("gradients") that are nan."""
    small = {"image_size": 32, "batch_per_replica": 2, "unfreeze_from": "none", "decoder_filters": 8}
    config = TrainConfig(**small, encoder_weights="none", **settings)
    training = set_up(config, dataset)
    numbers = tf.constant(sorted(bad), tf.int64)

    @tf.custom_gradient
    def spoil(loss: tf.Tensor) -> tuple[tf.Tensor, Any]:
        wrong = tf.reduce_any(training.state.step == numbers)
        nothing = tf.where(wrong, np.nan, 0.0)
        return (loss + nothing if kind == "loss" else loss), lambda upstream: upstream + nothing

    return dataclasses.replace(training, loss=lambda masks, logits: spoil(training.loss(masks, logits)))


def state(training: Training) -> list[np.ndarray]:
    """Weights, moving statistics and moments."""
    return [variable.numpy() for variable in (*training.network.model.variables, *training.optimizer.variables)]


@pytest.mark.parametrize(("kind", "settings"), [
    ("gradients", {"accumulate": 2, "ema_decay": 0.9}),
    ("loss", {"precision": "float16"}),
])  # fmt: skip
def test_a_step_that_is_skipped_leaves_everything_as_it_was(
    dataset: Dataset, kind: str, settings: dict[str, Any]
) -> None:
    training = spoilt(dataset, frozenset({1}), kind, on_bad_step="skip", normalization="batch", **settings)
    take_steps, data = make_step_function(training), iter(batches(training))
    one, stop = tf.constant(1), tf.constant(0.0, tf.float64)
    states, sums = [state(training)], []
    for taken in (True, False, True):
        _, _, good, _, _ = take_steps(data, one, stop)
        assert good.numpy().tolist() == [taken]
        states.append(state(training))
        sums.append((float(training.state.loss_sum), int(tf.reduce_sum(training.state.confusion))))
    changed = [
        any(not np.array_equal(old, new) for old, new in zip(before, after, strict=True))
        for before, after in itertools.pairwise(states)
    ]
    assert changed == [True, False, True]
    assert all(np.isfinite(value).all() for value in states[-1])
    assert sums[0] == sums[1] != sums[2]
    assert (int(training.state.skipped), int(training.state.step)) == (1, 3)


def run(training: Training, steps: int) -> None:
    object.__setattr__(training, "plan", dataclasses.replace(training.plan, epochs=1, examples=2 * steps))
    loop.train(training, 0.0)


def test_more_bad_steps_in_a_row_than_may_be_end_the_run(dataset: Dataset) -> None:
    bad = frozenset({1, *range(3, 3 + MOST_BAD_STEPS)})
    training = spoilt(dataset, bad, "loss", on_bad_step="skip", steps_per_call=4)
    with pytest.raises(TrainingFailed, match=r"step 13: the loss is nan.*, as in 10 steps in a row.*files: train-"):
        run(training, 30)
