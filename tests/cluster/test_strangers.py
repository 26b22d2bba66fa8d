"""Pods that are none of the job's knock at its workers' ports for minutes, and the run ends with the same bits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from launcher.cluster.kubernetes_api import Cluster
from launcher.job.training_job import TrainingJob
from launcher.operations import following as operations
from launcher.operations import submission
from maskfleet.run_directory import RunDirectory
from tests.cluster.conftest import until
from tests.helpers import strangers
from tests.helpers.processes import SETTINGS, LocalRun, inspect

EPOCHS = "--epochs=75"
"""More than five minutes of training beside the strangers."""


def stranger(number: int, image: str, address: str) -> dict[str, Any]:
    source = Path(strangers.__file__).read_text()
    container = {
        "name": "stranger", "image": image, "imagePullPolicy": "IfNotPresent",
        "args": ["python", "-c", source, address, "2222", "2223"],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "256Mi"}},
    }  # fmt: skip
    spec = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"stranger-{number}"}, "spec": spec}


@pytest.mark.long
@pytest.mark.timeout(7200)  # the images are built before, and two workers share a machine with two strangers
def test_strangers_in_the_cluster_change_nothing_of_a_run(
    open_cluster: Cluster, trainer_image: str, tmp_path: Path
) -> None:
    """Where the cluster enforces NetworkPolicies they reach no port; where not, the rendezvous refuses them."""
    output = tmp_path / "output"
    output.mkdir()
    output.chmod(0o777)
    flags = ["--name", "job", "--image", trainer_image, "--workers", "2", "--cpu", "900m", "--memory", "2500Mi",
             "--grace", "40", "--output", f"host:{output}"]  # fmt: skip
    asked = TrainingJob.from_sources(None, TrainingJob.parse_flags(flags), (*SETTINGS, EPOCHS))
    submission.submit(asked, open_cluster)
    now = until("job", open_cluster, lambda now: now.details.get("step", 0) > 7, seconds=900)
    for number, worker in enumerate(now.workers):
        address = open_cluster.get("Pod", str(worker.pod))["status"]["podIP"]
        open_cluster.create(stranger(number, trainer_image, address))
    for number in range(2):
        while open_cluster.get("Pod", f"stranger-{number}")["status"]["phase"] != "Running":
            time.sleep(1)
    began = time.monotonic()
    seen = until("job", open_cluster, lambda now: now.details.get("step", 0) > 100, seconds=900)
    open_cluster.delete("Pod", str(now.workers[1].pod))  # the next one makes its way through them
    until("job", open_cluster, lambda now: now.details.get("step") == seen.details["steps"], seconds=3600)
    assert time.monotonic() - began >= 300, "the strangers had too little time"
    end = operations.wait("job", open_cluster, timeout=600)
    assert end.phase == "Succeeded", end
    for number in range(2):
        assert open_cluster.get("Pod", f"stranger-{number}")["status"]["phase"] == "Running"

    with LocalRun.start(tmp_path / "local", EPOCHS) as run:
        assert run.process.wait(3600) == 0, run.output.read_text()
    assert inspect(RunDirectory(output / "job"))["sha256"] == inspect(run.directory)["sha256"]
