"""What training does when it is told to stop, and when there is no room."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.errors import FAILED
from maskfleet.records import write_settings
from maskfleet.run_directory import RunDirectory
from tests.helpers.training_steps import losses, set_up
from trainer.data.cache import load_dataset
from trainer.training import assembly, loop
from trainer.training import process as process
from trainer.training.collectives import make_sum_over_workers
from trainer.training.steps import make_evaluation_function


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
    training.stop.set()
    monkeypatch.setattr(loop, "SECONDS_TO_VALIDATE", -1.0)

    found = loop.validate(training, *functions, save=lambda: saved.append(weights.numpy()))
    assert len(saved) == 1
    np.testing.assert_array_equal(saved[0], own)
    assert found.loss == undisturbed.loss
    np.testing.assert_array_equal(found.scores.matrix, undisturbed.scores.matrix)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(28, "No space left on device", "RUN/progress.json"),
            "error: RUN/progress.json: No space left on device; free some space, if that is it, and resume the run",
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "{{node a}} OOM when allocating tensor with shape[64]"),
            "OOM when allocating tensor with shape[64]; lower --batch-per-replica or --image-size, or free some space",
        ),
    ],
)
def test_no_room_is_told_in_one_line(
    error: Exception, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    run = RunDirectory(tmp_path)
    write_settings(run, TrainConfig(image_size=32, encoder_weights="none").model_dump(mode="json"))
    monkeypatch.setattr(assembly, "train_and_leave_results", fail)
    monkeypatch.setattr(process, "configure_threads", lambda threads: None)  # TensorFlow runs here already
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    assert process.main([str(tmp_path)]) == FAILED
    assert message in capsys.readouterr().out
