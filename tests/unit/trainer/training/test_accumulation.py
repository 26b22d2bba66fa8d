"""A step in parts, one after another, is the step; a norm that is too large is shrunk."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from tests.helpers.training_steps import losses, set_up
from trainer.data.cache import Dataset, load_dataset
from trainer.training.state import Training

STEADY: dict[str, Any] = {
    "image_size": 32,
    "normalization": "frozen",
    "unfreeze_from": "none",
    "encoder_weights": "none",
    "decoder_filters": 8,
    "warmup_epochs": 0,
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("synthetic", None, 32)


def trained(dataset: Dataset, steps: int, **settings: Any) -> Training:
    training = set_up(TrainConfig(**STEADY | {"optimizer": "sgd", "learning_rate": 1e-2} | settings), dataset)
    assert np.isfinite(list(itertools.islice(losses(training), steps))).all()
    return training


def difference(one: Training, other: Training) -> float:
    pairs = zip(one.network.model.get_weights(), other.network.model.get_weights(), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def test_parts_give_the_weights_of_the_whole_batch(dataset: Dataset, tmp_path: Path) -> None:
    file = str(tmp_path / "encoder.weights.h5")
    keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3)).save_weights(file)
    settings = {"encoder_weights": file, "unfreeze_from": "stride-16"}
    at_once = trained(dataset, 30, **settings, batch_per_replica=16)
    in_parts = trained(dataset, 30, **settings, batch_per_replica=4, accumulate=4)
    assert difference(at_once, in_parts) < 1e-6
    assert difference(at_once, set_up(at_once.config, dataset)) > 1e-3  # it has learnt


def test_parts_of_cached_features_that_are_not_of_one_size_give_them_too(dataset: Dataset) -> None:
    settings = {"zoom": 0.0, "colour": 0.0, "steps_per_call": 4, "batch_per_replica": 10}
    at_once = trained(dataset, 4, **settings)
    in_parts = set_up(at_once.config, dataset)
    in_parts = dataclasses.replace(in_parts, config=in_parts.config.model_copy(update={"accumulate": 3}))
    list(itertools.islice(losses(in_parts), 4))
    assert difference(at_once, in_parts) < 1e-6


def test_parts_train_in_half_precision(dataset: Dataset) -> None:
    """To the losses of the whole batch, up to the precision's rounding."""
    found = [
        list(itertools.islice(losses(set_up(TrainConfig(**STEADY, precision="float16", **settings), dataset)), 4))
        for settings in ({"batch_per_replica": 4}, {"batch_per_replica": 2, "accumulate": 2})
    ]
    np.testing.assert_allclose(*found, rtol=0.02)


def test_the_learning_rate_is_that_of_the_whole_batch() -> None:
    config = TrainConfig(batch_per_replica=4, accumulate=4)
    assert config.effective_global_batch(2) == 32
    assert config.scaled_learning_rate(32) == TrainConfig(batch_per_replica=16).scaled_learning_rate(32)


def test_a_part_without_an_example_for_each_replica_is_refused() -> None:
    with pytest.raises(BadSettings, match="at least one example for each of 2 replicas in each of 4 parts"):
        TrainConfig(global_batch=7, accumulate=4).effective_global_batch(2)


def test_the_norm_of_all_gradients_is_cut(dataset: Dataset) -> None:
    """A step of plain gradient descent at rate 1 moves the weights by the gradient, whatever scales the loss."""
    settings = {"precision": "float16", "batch_per_replica": 2, "momentum": 0.0, "learning_rate": 1.0}
    moved = []
    for clip_norm in (None, 1e-3):
        training = set_up(TrainConfig(**STEADY, **settings, optimizer="sgd", clip_norm=clip_norm), dataset)
        before = [variable.numpy() for variable in training.network.model.trainable_variables]
        next(losses(training))
        after = [variable.numpy() for variable in training.network.model.trainable_variables]
        moved.append([a - b for a, b in zip(after, before, strict=True)])
    plain, cut = (float(tf.linalg.global_norm(steps)) for steps in moved)
    assert plain > 1e-2
    assert cut == pytest.approx(1e-3, rel=1e-3)
