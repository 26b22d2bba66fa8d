"""Runs with a user's own network, loss, data, augmentation and tracker: the examples, and what goes wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from maskfleet.own_code import fingerprint, read_sources
from maskfleet.records import RunRecord
from maskfleet.run_directory import RunDirectory
from tests.helpers.processes import launcher, trainer

EXAMPLES = Path(__file__).parents[2] / "examples" / "own"
SETTINGS = (
    "--model=small_network:network", "--loss=cross_entropy+tversky:loss", "--data=python:discs:discs",
    "--augmentation=noise:noise", "--tracker=to_file:Tracker", "--image-size=32", "--threads=1",
    "--batch-per-replica=8",
)  # fmt: skip


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLES, tmp_path / "code", ignore=shutil.ignore_patterns("__pycache__")))


def test_the_examples_train_are_resumed_and_can_be_scored_without_their_folder(code: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    done = launcher("run", f"--run-dir={run.path}", "--", f"--code={code}", *SETTINGS, "--epochs=1", "--no-export")
    assert done.returncode == 0, done.stdout
    first = fingerprint(read_sources(code))
    assert RunRecord.read(run).code_fingerprint == first
    assert read_sources(run.code) == read_sources(code)
    lines = [json.loads(line) for line in (run.path / "tracked.jsonl").read_text().splitlines()]
    assert lines[0]["settings"]["model"] == "small_network:network"
    assert [line.get("step") for line in lines[1:]] == [10, 10, None]
    assert lines[1]["iou/disc"] == lines[2]["final/iou/disc"]
    assert lines[3] == {"state": "done"}

    (code / "tversky.py").write_text((code / "tversky.py").read_text() + "# changed\n")
    done = launcher("run", f"--resume={run.path}", "--", "--epochs=2", "--no-export")
    assert done.returncode == 0, done.stdout
    second = fingerprint(read_sources(code))
    warning = f"warning: your own code is not what the run began with: fingerprint {first}, now {second}"
    assert warning in done.stdout
    assert RunRecord.read(run).code_fingerprint == second

    shutil.rmtree(code)  # as on another machine
    scored = trainer("evaluate", str(run.path), "--size=network", "-o", "json")
    assert scored.returncode == 0, scored.stderr
    last = json.loads(run.metrics.read_text().splitlines()[-1])
    assert json.loads(scored.stdout)["miou"] == pytest.approx(last["miou"], abs=1e-6)


def test_a_broken_one_ends_the_run_in_one_line_and_leaves_nothing(code: Path, tmp_path: Path) -> None:
    (code / "tversky.py").write_text("def loss(masks, logits):\n    return masks @ logits\n")
    run = tmp_path / "run"
    done = launcher("run", f"--run-dir={run}", "--", f"--code={code}", *SETTINGS)
    assert done.returncode == 2, done.stdout
    assert f"error: --loss tversky:loss: {code}/tversky.py:2: " in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout
    assert not run.exists()


def test_the_traceback_is_shown_to_who_asks_for_it(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code / "discs.py").write_text("def discs(data_dir):\n    return 1 / 0\n")
    arguments = ("verify-data", f"--code={code}", "--data=python:discs:discs")
    line = f"error: --data python:discs:discs: {code}/discs.py:2: ZeroDivisionError: division by zero\n"
    assert (trainer(*arguments).returncode, trainer(*arguments).stderr) == (2, line)
    monkeypatch.setitem(os.environ, "MASKFLEET_DEBUG", "1")
    shown = trainer(*arguments).stderr
    assert "Traceback" in shown
    assert shown.endswith(line)
