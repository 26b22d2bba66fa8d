"""What training does when it is told to stop, and when there is no room."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.errors import FAILED, Stopped, TrainingFailed
from maskfleet.records import Event, write_settings
from maskfleet.run_directory import RunDirectory
from tests.helpers.training_steps import losses, set_up
from trainer.cgroup import cpu_limit
from trainer.checkpoints.interval import best_interval
from trainer.checkpoints.reading import manifests_of, optimizer_by_path, weights_by_path
from trainer.checkpoints.store import CheckpointStore
from trainer.data.cache import load_dataset
from trainer.training import assembly, loop
from trainer.training import process as process
from trainer.training.collectives import make_sum_over_workers
from trainer.training.plan import Plan
from trainer.training.saving import FIRST_SECONDS, Saver
from trainer.training.state import Training
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


def saving(run: RunDirectory) -> tuple[Training, CheckpointStore]:
    """Training of two epochs, of ten steps each."""
    config = TrainConfig(image_size=32, encoder_weights="none", batch_per_replica=24, epochs=2, keep=3)
    training = set_up(config, load_dataset("synthetic", None, 32))
    state = tf.train.Checkpoint(
        weights=weights_by_path(training.network.model),
        optimizer=optimizer_by_path(training.optimizer),
        state=training.state,
    )
    store = CheckpointStore(run, state, config.keep)
    plan = Plan(len(training.dataset.train), 24, 2, (slice(0, 24),))
    return replace(training, plan=plan, checkpoints=store), store


class Killed(Exception):
    pass


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_saved_during_a_validation_gets_its_score(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the process that validates on, and by the one that goes on from the checkpoint."""
    run = RunDirectory(tmp_path)
    training, store = saving(run)
    make = loop.make_evaluation_function
    seen = 0

    def stopping(training: Training) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        evaluate = make(training)

        def count(inputs: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
            nonlocal seen
            training.stop.set()
            seen += 1
            if killed and seen == 2:
                raise Killed
            return evaluate(inputs, masks)

        return count

    with monkeypatch.context() as patch:
        patch.setattr(loop, "SECONDS_TO_VALIDATE", 0.0)
        patch.setattr(loop, "make_evaluation_function", stopping)
        with pytest.raises(Killed if killed else Stopped):
            loop.train(training, 0.0)
    if killed:
        store.wait()
        assert {step: each.score for step, each in manifests_of(run).items()} == {10: None}
        training, store = saving(run)
        assert store.restore() is not None
        loop.train(training, 0.0)
    manifests = manifests_of(run)
    score = manifests[10].score
    assert score is not None
    assert score == manifests[10].miou
    best = max(each.score for each in manifests.values() if each.score is not None)
    assert float(training.state.best.numpy()) == best
    assert store.restore_best(best) is None
    assert manifests[10].problem(run.checkpoints) is None


def test_a_checkpoint_that_could_not_be_written_ends_the_run_at_the_next_step(tmp_path: Path) -> None:
    training, store = saving(RunDirectory(tmp_path))
    store.run.checkpoints.mkdir(parents=True)
    (store.run.checkpoints / "manifests").touch()  # no folder
    training = replace(training, config=training.config.model_copy(update={"checkpoint_steps": 1}))
    with pytest.raises(TrainingFailed, match="step-00000001: the checkpoint could not be written"):
        loop.train(training, 0.0)
    assert int(training.state.step.numpy()) < 5


def test_automatic_checkpoints_follow_what_they_cost_and_the_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, store = saving(RunDirectory(tmp_path))
    training = replace(training, config=training.config.model_copy(update={"checkpoint_seconds": "auto"}))
    monkeypatch.setattr(store, "save", lambda *_: None)

    def interval(seconds: float, cpu_seconds: float) -> float:
        """After a checkpoint that was being written for so long."""
        saver = Saver(training, 0)
        store.writing_seconds, store.writing_cpu_seconds = seconds, cpu_seconds * cpu_limit()
        saver.save(1, 0.0, None)
        return saver.interval

    assert Saver(training, 0).interval == FIRST_SECONDS
    assert interval(0.5, 0.2) == pytest.approx(best_interval(0.2, 3600), rel=0.3)
    for _ in range(99):
        Event.append(store.run, "restart", "attempt 1 ended: worker 1 was lost")
    assert interval(0.5, 0.2) == pytest.approx(best_interval(0.2, 9), rel=0.3)
    assert interval(30, 0.2) == 30, "no step shall wait for the one before"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(28, "No space left on device", "RUN/progress.json"),
            "error: RUN/progress.json: No space left on device; free some space, if that is it, and resume the run",
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "{{node a}} OOM when allocating tensor with shape[64]"),
            "a step does not fit the memory of the GPU or the machine: OOM when allocating tensor with shape[64]",
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
