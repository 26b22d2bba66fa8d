"""Training on parts of pictures, rare classes first, by an input that is no square: from the run to its prediction."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfleet.records import FinalScores, RunRecord
from maskfleet.run_directory import RunDirectory
from tests.helpers.processes import LocalRun, inspect, launcher, losses, trainer

# Small windows would be many; the rest as in test_workers.
SETTINGS = (
    "--fit=crop", "--balance", "--image-size=64x96",
    "--normalization=frozen", "--optimizer=sgd", "--learning-rate=0.01",
)  # fmt: skip


def trained(path: Path, workers: int) -> RunDirectory:
    with LocalRun.start(path, *SETTINGS, workers=workers) as run:
        assert run.wait() == 0, run.output.read_text()
    return run.directory


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return trained(tmp_path_factory.mktemp("alone") / "run", 1)


def test_two_workers_train_on_the_same_parts(alone: RunDirectory, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", 2)
    expected, found = losses(alone), losses(run)
    assert found.keys() == expected.keys()
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, abs=1e-4), f"step {step}"
    (ours, theirs) = FinalScores.read(alone), FinalScores.read(run)
    assert ours is not None
    assert theirs is not None
    assert theirs.miou == pytest.approx(ours.miou, abs=1e-3)


def test_a_run_that_was_stopped_ends_with_the_same_bits(alone: RunDirectory, tmp_path: Path) -> None:
    with LocalRun.start(tmp_path / "run", *SETTINGS, workers=1) as run:
        run.wait_for_step(15)
        assert run.interrupt() == 130
    with LocalRun.resume(tmp_path / "run", "--fit=squash", workers=1) as refused:
        assert refused.wait() == 2
    assert "--fit squash: the run began with crop" in refused.output.read_text()
    with LocalRun.resume(tmp_path / "run", workers=1) as run:
        assert run.wait() == 0, run.output.read_text()
    assert inspect(run.directory)["sha256"] == inspect(alone)["sha256"]


def test_whole_pictures_are_scored_and_predicted_by_windows(alone: RunDirectory, tmp_path: Path) -> None:
    record, scores = RunRecord.read(alone), FinalScores.read(alone)
    assert record.resolved is not None
    assert scores is not None
    assert (record.settings["image_size"], record.resolved.fit, record.resolved.test_examples) == ("64x96", "crop", 60)
    own = json.loads(trainer("evaluate", str(alone.path), "-o", "json").stdout)
    assert (own["images"], own["of_these_trained_on"]) == (60, 0)
    assert np.sum(own["confusion"]) == np.sum(scores.confusion), "each pixel of each picture once, in both"
    assert own["miou"] == pytest.approx(scores.miou, abs=0.05)
    assert launcher("estimate", str(alone.path)).returncode == 0
    Image.fromarray(np.zeros((150, 70, 3), np.uint8)).save(tmp_path / "a.png")
    done = trainer("predict", str(alone.path), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out" / "a.png") as mask:
        assert mask.size == (70, 150)
