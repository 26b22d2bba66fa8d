"""Averages of weights: kept by the optimizer, lent to the network, read from a checkpoint."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from trainer.checkpoints.averaging import averaged_weights, load_averages
from trainer.checkpoints.reading import optimizer_by_path
from trainer.objective.optimizers import build_optimizer
from trainer.objective.schedules import learning_rate

VALUES = [1.0, 3.0, 2.0]


def trained(**settings: Any) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """A weight that takes the VALUES, a step each."""
    config = TrainConfig(**{"optimizer": "sgd", "momentum": 0, "schedule": "constant", "warmup_epochs": 0, **settings})
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    optimizer = build_optimizer(config, learning_rate(config, steps_per_epoch=1, total_steps=9, scale=1))
    optimizer.build(model.trainable_variables)
    weight = model.trainable_variables[0]
    for value in VALUES:
        gradient = (float(weight[0, 0]) - value) / config.learning_rate
        optimizer.apply_gradients([(optimizer.scale_loss(tf.constant([[gradient]])), weight)])
        assert float(weight[0, 0]) == pytest.approx(value)
    return model, optimizer


AVERAGE = 0.75 * (0.75 * 1 + 0.25 * 3) + 0.25 * 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"ema_decay": 0.75}, AVERAGE), ({"ema_decay": 0.75, "precision": "float16"}, AVERAGE), ({}, VALUES[-1])],
)
def test_the_network_has_the_averages_inside_and_its_own_weights_afterwards(
    settings: dict[str, Any], expected: float
) -> None:
    model, optimizer = trained(**settings)
    with averaged_weights(model, optimizer):
        assert float(model.trainable_variables[0][0, 0]) == pytest.approx(expected)
    assert float(model.trainable_variables[0][0, 0]) == pytest.approx(VALUES[-1])


def test_its_own_weights_come_back_after_an_error() -> None:
    model, optimizer = trained(ema_decay=0.75)
    with pytest.raises(RuntimeError), averaged_weights(model, optimizer):
        raise RuntimeError
    assert float(model.trainable_variables[0][0, 0]) == pytest.approx(VALUES[-1])


def test_averages_are_read_from_a_checkpoint(tmp_path: Path) -> None:
    model, optimizer = trained(ema_decay=0.75)
    prefix = tmp_path / "step-00000003"
    tf.train.Checkpoint(optimizer=optimizer_by_path(optimizer)).write(str(prefix))
    load_averages(prefix, model)
    np.testing.assert_allclose(model.trainable_variables[0], [[AVERAGE]], rtol=1e-6)
