"""preflight: what would keep a job from starting."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from launcher import operations
from launcher.job import TrainingJob
from launcher.kubernetes_api import Cluster
from launcher.preflight import Check, preflight


def job(*flags: str) -> TrainingJob:
    return TrainingJob.from_sources(None, TrainingJob.parse_flags(["--name", "job", "--cpu", "100m", *flags]))


def results(checks: list[Check]) -> dict[str, str]:
    return {check.what: check.result for check in checks}


def test_a_job_that_would_start(cluster: Cluster) -> None:
    checks = preflight(job(), cluster)
    assert set(results(checks).values()) == {"ok"}, checks
    assert operations.list_jobs(cluster) == []


@pytest.mark.parametrize(
    ("flags", "what", "detail"),
    [
        (["--workers", "1000"], "room for all workers", "of 1000 worker(s) now"),
        (["--gpus-per-worker", "1"], "room for all workers", "room for 0 of 1 worker(s) now"),
        (["--node-selector", "a=b"], "room for all workers", "nodes lack the label a=b"),
        (["--image-pull-secret", "registry"], "Secret registry", "is missing"),
        (["--env-from-secret", "KEY=store/key"], "Secret store", "is missing"),
        (["--data", "pvc:pets"], "PersistentVolumeClaim pets", "is missing"),
        (["--data", "host:/srv"], "pods are admitted", "Pod Security restricted:latest refuses its pods"),
        (["--priority", "high"], "pods are admitted", "PriorityClass high is missing"),
        (["--output", "s3://no-such-bucket/runs"], "--output s3://no-such-bucket/runs", ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_would_keep_a_job_from_starting(
    flags: list[str], what: str, detail: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody is
    check = next(check for check in preflight(job(*flags), cluster) if check.what == what)
    assert check.result == "no"
    assert detail in check.detail


def test_the_command_says_no_by_its_exit_code(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "launcher.cli", "preflight", "-n", cluster.namespace, "-o", "json"]
    done = subprocess.run([*command, "--gpus-per-worker", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert {"what", "result", "detail"} == set(json.loads(done.stdout)[0])
