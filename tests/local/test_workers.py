"""The number of workers changes neither the result nor the order of the examples."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskfleet.run_directory import RunDirectory
from tests.helpers.processes import INVARIANT, LocalRun, losses


def weights(run: RunDirectory) -> dict[str, np.ndarray]:
    """The weights of the newest checkpoint."""
    reader = tf.train.load_checkpoint(str(run.checkpoint_prefix(run.checkpoint_steps()[0])))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith("weights/")]
    return {name: reader.get_tensor(name) for name in names}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    with LocalRun.start(tmp_path_factory.mktemp("alone") / "run", *INVARIANT, workers=1) as run:
        assert run.wait() == 0, run.output.read_text()
    return run.directory


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_weights(workers: int, alone: RunDirectory, tmp_path: Path):
    with LocalRun.start(tmp_path / "run", *INVARIANT, workers=workers) as run:
        assert run.wait() == 0, run.output.read_text()
    expected, found = weights(alone), weights(run.directory)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5, err_msg=name)


def test_a_run_goes_on_with_other_numbers_of_workers(alone: RunDirectory, tmp_path: Path):
    path = tmp_path / "run"
    with LocalRun.start(path, *INVARIANT, workers=2) as run:
        run.wait_for_step(8)
        assert run.interrupt() == 130
    with LocalRun.resume(path, workers=3) as run:
        run.wait_for_step(20)
        assert run.interrupt() == 130
    assert "workers 2 -> 3" in run.output.read_text()
    assert "global batch 6 (2 + 2 + 2)" in run.output.read_text()
    with LocalRun.resume(path, workers=1) as run:
        assert run.wait() == 0, run.output.read_text()
    expected, found = losses(alone), losses(run.directory)
    assert sorted(found) == list(range(1, 41))
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, abs=1e-4), f"step {step}"


def test_all_workers_end_with_the_same_bits(undisturbed: RunDirectory, undisturbed_state: str):
    for worker in range(2):
        log = undisturbed.worker_log(worker).read_text()
        found = re.search(rf"worker {worker} ends with step 40 and the state sha256 (\w+)", log)
        assert found, log
        assert found[1] == undisturbed_state


def test_more_workers_than_examples_in_a_batch_are_refused(tmp_path: Path):
    with LocalRun.start(tmp_path / "run", "--global-batch=1", workers=2) as run:
        assert run.wait() == 2
    assert "--global-batch 1: expected at least one example for each of 2 replicas" in run.output.read_text()
