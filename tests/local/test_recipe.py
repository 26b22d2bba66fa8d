"""Steps in parts, and steps that are skipped, on several workers and over a restart."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.processes import LocalRun
from tests.local.test_workers import INVARIANT, weights


@pytest.mark.long
def test_steps_in_parts_on_two_workers_and_over_a_stop_give_the_same_weights(tmp_path: Path):
    with LocalRun.start(tmp_path / "alone", *INVARIANT, workers=1) as run:
        assert run.wait() == 0, run.output.read_text()
    alone = weights(run.directory)
    with LocalRun.start(tmp_path / "run", *INVARIANT, "--accumulate=3", "--learning-rate=0.03", workers=2) as run:
        run.wait_for_step(8)
        assert run.interrupt() == 130
    with LocalRun.resume(tmp_path / "run", "--steps-per-call=4", workers=2) as run:
        assert run.wait() == 0, run.output.read_text()
    assert "learning rate 0.015" in run.output.read_text()
    for name, value in weights(run.directory).items():
        np.testing.assert_allclose(value, alone[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.long
def test_workers_skip_the_same_steps_and_end_alike(tmp_path: Path):
    """With float16 a worker's share of the gradients may overflow where the others' do not."""
    settings = ("--precision=float16", "--on-bad-step=skip", "--learning-rate=1", "--optimizer=sgd")
    with LocalRun.start(tmp_path / "run", *settings, workers=2) as run:
        assert run.wait() == 0, run.output.read_text()
    logs = "".join(run.directory.worker_log(worker).read_text() for worker in (0, 1))
    states = re.findall(r"ends with step 40 and the state sha256 (\w+)", logs)
    assert len(states) == 2, logs
    assert states[0] == states[1]


@pytest.mark.long
def test_too_many_bad_steps_in_a_row_end_all_workers(tmp_path: Path):
    settings = ("--on-bad-step=skip", "--learning-rate=1e38", "--optimizer=sgd", "--warmup-epochs=0")
    with LocalRun.start(tmp_path / "run", *settings, workers=2) as run:
        assert run.wait() == 1
    said = run.output.read_text()
    assert "as in 10 steps in a row" in said
    assert len(re.findall(r"step \d+: the loss is nan; expected a finite number: it is skipped", said)) == 9
