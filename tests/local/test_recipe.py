"""Steps in parts, and steps that are skipped, on several workers and over a restart."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.processes import LocalRun, trainer
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
    assert (
        len(re.findall(r"step \d+: the (loss|gradients) .*: it is skipped \(\d so far\); the batch's files: ", said))
        == 9
    )


@pytest.mark.long
def test_a_learning_rate_is_suggested_and_nothing_stays_but_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    settings = ("--image-size=32", "--unfreeze-from=none", "--steps=60", "--out=lr.png", "-o", "json")
    found = trainer("find-lr", *settings)
    assert found.returncode == 0, found.stderr
    curve = json.loads(found.stdout.splitlines()[-1])
    assert 1e-5 < curve["suggestion"] < 1
    assert [path.name for path in tmp_path.iterdir()] == ["lr.png"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("--steps=3",), "--steps"),
        (("--data=/nowhere",), "/nowhere"),
        (("--start-from=gs://bucket/run",), "--start-from gs://bucket/run: expected a place on this machine"),
        (("--out=/tmp",), "--out /tmp: can't be written: Is a directory"),
    ],
)
def test_a_range_test_that_can_t_be_made_is_refused_in_one_line(settings: tuple[str, ...], message: str):
    refused = trainer("find-lr", *settings)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
