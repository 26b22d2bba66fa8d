"""A run with a validation split: what is chosen on it, on any number of workers and after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskfleet.records import Examples, FinalScores, MetricsLine, RunRecord
from maskfleet.run_directory import RunDirectory
from tests.helpers.processes import LocalRun, inspect
from trainer.training.hyperparameters import SETTINGS_AND_SCORES

# A rate at which some epoch is worse than the one before; the rest as in test_workers.
DIVIDED = ("--validation-share=.1", "--epochs=3", "--normalization=frozen", "--optimizer=sgd", "--learning-rate=0.5")


def trained(path: Path, workers: int) -> RunDirectory:
    with LocalRun.start(path, *DIVIDED, workers=workers) as run:
        assert run.wait() == 0, run.output.read_text()
    return run.directory


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return trained(tmp_path_factory.mktemp("alone") / "run", 1)


def test_validation_chooses_and_the_test_split_is_scored_once(alone: RunDirectory) -> None:
    epochs, scores, record = MetricsLine.read_all(alone), FinalScores.read(alone), RunRecord.read(alone).resolved
    assert scores is not None
    assert record is not None
    assert (record.training_examples, record.validation_examples, record.test_examples) == (216, 24, 60)
    best = max(epochs, key=lambda line: line.miou)
    assert (scores.split, scores.examples, scores.chosen_on) == ("test", 60, "validation")
    assert (scores.step, scores.epoch) == (best.step, best.epoch)
    assert scores.size == "own"
    assert scores.at_network_size is not None
    assert sum(map(sum, scores.confusion)) == 60 * 128**2
    pixels = [sum(map(sum, each.confusion)) for each in (*epochs, scores.at_network_size)]
    assert len(set(pixels[:-1])) == 1
    assert pixels[-1] * 24 == pixels[0] * 60
    log = alone.worker_log(0).read_text()
    assert "216 training, 24 validation and 60 test examples" in log
    assert f"IoU on the test split, of epoch {best.epoch}, which was chosen on the validation split" in log
    assert {entry.name for entry in alone.tensorboard.iterdir()} == {"train", "validation", "test", SETTINGS_AND_SCORES}
    examples = Examples.read(alone)
    assert examples is not None
    assert [len(split) for split in (examples.train, examples.validation, examples.test)] == [216, 24, 60]


def test_two_workers_choose_and_score_alike(alone: RunDirectory, tmp_path: Path) -> None:
    found, expected = FinalScores.read(trained(tmp_path / "run", 2)), FinalScores.read(alone)
    assert found is not None
    assert expected is not None
    assert (found.step, found.chosen_on, found.examples) == (expected.step, expected.chosen_on, expected.examples)
    assert found.miou == pytest.approx(expected.miou, abs=1e-3)
    assert sum(map(sum, found.confusion)) == sum(map(sum, expected.confusion))


def test_a_run_that_was_stopped_ends_with_the_same_bits_and_scores(alone: RunDirectory, tmp_path: Path) -> None:
    with LocalRun.start(tmp_path / "run", *DIVIDED, workers=1) as run:
        run.wait_for_step(40)
        assert run.interrupt() == 130
    assert not run.directory.scores.exists()
    with LocalRun.resume(tmp_path / "run", workers=1) as run:
        assert run.wait() == 0, run.output.read_text()
    assert inspect(run.directory)["sha256"] == inspect(alone)["sha256"]
    assert json.loads(run.directory.scores.read_text()) == json.loads(alone.scores.read_text())
