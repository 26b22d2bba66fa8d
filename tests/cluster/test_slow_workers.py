"""A worker whose pod gets less of its CPU than the others' is named in ``status``, with its throttling."""

from __future__ import annotations

import re
from typing import Any

from launcher.cluster.kubernetes_api import Cluster
from launcher.diagnosis.tables import describe_status
from launcher.job.training_job import TrainingJob
from launcher.operations import submission
from tests.cluster.conftest import Scripted, until
from tests.cluster.test_range_of_workers import SUPERVISED

PROGRAM = """
import hashlib, json, os, sys, time
from pathlib import Path
from maskfleet.records import Progress
from maskfleet.run_directory import RunDirectory
run, step, data = RunDirectory(Path(sys.argv[1])), 0, bytes(1 << 20)
while True:
    began, used = time.monotonic(), time.process_time()
    while time.process_time() - used < .04:
        hashlib.sha256(data).digest()
    compute = time.monotonic() - began
    time.sleep(.4)
    step += 1
    seconds = time.monotonic() - began
    steps = {"count": 1, "seconds": seconds, "input": 0, "compute": compute, "all_reduce": seconds - compute}
    os.write(int(os.environ["MASKFLEET_HEARTBEAT_FD"]), json.dumps(steps).encode() + b"\\n")
    Progress("running", 0, 9, step, 10**6, loss=1.0).write(run)
"""
"""Stands in for a training process: it computes for 40 ms of CPU time a step, and is never told to stop."""


def limit_cpu(pod: str, cpu: str, cluster: Cluster) -> None:
    """As ``kubectl patch pod --subresource resize`` does, while the pod runs."""
    resources = {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}
    change: dict[str, Any] = {"spec": {"containers": [{"name": "trainer", "resources": resources}]}}
    path = cluster._path("Pod", pod) + "/resize"
    cluster._json("PATCH", path, {}, change, "application/strategic-merge-patch+json")


def test_a_worker_whose_cpu_limit_is_lowered_is_named_within_a_minute(cluster: Cluster, scripted: Scripted) -> None:
    job: TrainingJob = scripted(SUPERVISED, workers=3, cpu="400m").model_copy(
        update={"env": (f"SCRIPT={SUPERVISED}", f"PROGRAM={PROGRAM}")}
    )
    submission.submit(job, cluster)
    up = until("job", cluster, lambda now: now.phase == "Running" and now.details.get("step", 0) > 40, seconds=180)
    assert not up.details.get("slow")
    limit_cpu(str(up.workers[1].pod), "50m", cluster)
    named = until("job", cluster, lambda now: bool(now.details.get("slow")), seconds=60)
    (line,) = [line for line in describe_status(named) if line.startswith("slow: ")]
    print(line)
    found = re.fullmatch(
        r"slow: worker 1 takes [\d.]+ times the others' compute; its CPU is throttled (\d+)% of the time.*", line
    )
    assert found, line
    assert int(found[1]) > 20
