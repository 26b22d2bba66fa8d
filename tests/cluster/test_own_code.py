"""A network, a loss and a data set of one's own train in pods of the project's own image, brought by --code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from launcher.cluster.kubernetes_api import Cluster
from launcher.job.training_job import TrainingJob
from launcher.operations import following as operations
from launcher.operations import submission
from maskfleet.own_code import read_sources
from maskfleet.records import RunRecord
from maskfleet.run_directory import RunDirectory
from tests.helpers.processes import inspect, launcher

EXAMPLES = Path(__file__).parents[2] / "examples" / "own"
SETTINGS = (
    "--model=small_network:network", "--loss=cross_entropy+tversky:loss", "--data=python:discs:discs",
    "--augmentation=noise:noise", "--tracker=to_file:Tracker", "--image-size=32", "--epochs=1", "--threads=1",
    "--no-export",
)  # fmt: skip


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLES, tmp_path / "code", ignore=shutil.ignore_patterns("__pycache__")))


def job(image: str, code: Path, output: Path) -> TrainingJob:
    flags = ["--name", "job", "--image", image, "--cpu", "900m", "--memory", "2500Mi", "--grace", "40",
             "--code", str(code), "--output", f"host:{output}"]  # fmt: skip
    return TrainingJob.from_sources(None, TrainingJob.parse_flags(flags), SETTINGS)


def test_they_end_with_the_weights_of_a_local_run(
    open_cluster: Cluster, trainer_image: str, code: Path, output: Path, tmp_path: Path
) -> None:
    submission.submit(job(trainer_image, code, output), open_cluster)
    end = operations.wait("job", open_cluster, timeout=900)
    assert end.phase == "Succeeded", end
    there = RunDirectory(output / "job")
    assert read_sources(there.code) == read_sources(code)
    assert '"state": "done"' in (there.path / "tracked.jsonl").read_text()

    here = RunDirectory(tmp_path / "here")
    done = launcher("run", f"--run-dir={here.path}", "--", f"--code={code}", *SETTINGS)
    assert done.returncode == 0, done.stdout
    assert inspect(there)["sha256"] == inspect(here)["sha256"]
    assert RunRecord.read(there).code_fingerprint == RunRecord.read(here).code_fingerprint


def test_a_broken_one_fails_the_job_in_one_line_with_its_file_and_line(
    open_cluster: Cluster, trainer_image: str, code: Path, output: Path
) -> None:
    (code / "tversky.py").write_text("def loss(masks, logits):\n    return masks @ logits\n")
    submission.submit(job(trainer_image, code, output), open_cluster)
    end = operations.wait("job", open_cluster, timeout=900)
    assert end.phase == "Failed"
    assert "--loss tversky:loss: /etc/maskfleet/code.zip/tversky.py:2: " in end.reason, end
