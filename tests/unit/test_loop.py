"""What the loop does when it is told to stop."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training_steps import losses, set_up
from trainer import loop
from trainer.config import TrainConfig
from trainer.data.cache import load_dataset
from trainer.steps import make_evaluation_function, make_sum_over_workers


def test_a_long_validation_saves_the_state_and_not_the_averages(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(
        image_size=32, encoder_weights="none", unfreeze_from="none", batch_per_replica=16, ema_decay=0.9
    )
    training = set_up(config, load_dataset("synthetic", None, 32))
    steps = losses(training)
    for _ in range(2):
        next(steps)
    weights = training.network.model.trainable_variables[0]
    own, saved = weights.numpy(), []
    functions = make_evaluation_function(training), make_sum_over_workers(training)
    undisturbed = loop.validate(training, *functions)
    training.stop.tell()
    monkeypatch.setattr(loop, "SECONDS_TO_VALIDATE", -1.0)

    found = loop.validate(training, *functions, save=lambda: saved.append(weights.numpy()))
    assert len(saved) == 1
    np.testing.assert_array_equal(saved[0], own)
    assert found.loss == undisturbed.loss
    np.testing.assert_array_equal(found.scores.matrix, undisturbed.scores.matrix)
