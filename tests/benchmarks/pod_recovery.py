"""From the deletion of a worker's pod to the next new step, in parts. Needs a cluster, as tests/cluster does."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from launcher.cluster.kubernetes_api import Cluster, Object
from launcher.job.labels import instance
from launcher.job.training_job import TrainingJob
from launcher.operations import ending, submission
from launcher.operations import following as operations
from launcher.operations.logs import logs
from launcher.operations.pod_log import LogRequest
from maskfleet.errors import NotFound
from tests.benchmarks.row import Row
from tests.helpers.processes import SETTINGS

T = TypeVar("T")


def rows() -> Iterable[Row]:
    image = os.environ.get("MASKFLEET_TRAINER_IMAGE")
    if os.environ.get("MASKFLEET_TEST_CLUSTER") != "1" or not image:
        yield Row("pod recovery", float("nan"), "s", "not run: MASKFLEET_TEST_CLUSTER, MASKFLEET_TRAINER_IMAGE")
        return
    cluster = Cluster.connect(f"maskfleet-{uuid.uuid4().hex[:8]}")
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace}})
    try:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o777)
            try:
                yield from _measured(cluster, image, folder)
            finally:
                # Before the namespace, or its controller goes on replacing the pods; before the folder, or they would
                # wait all their grace for it to come back.
                with contextlib.suppress(NotFound):
                    ending.delete("job", cluster)
    finally:
        cluster.delete("Namespace", cluster.namespace)


def _measured(cluster: Cluster, image: str, folder: str) -> Iterable[Row]:
    flags = ["--name", "job", "--workers", "2", "--image", image, "--cpu", "900m", "--memory", "2500Mi", "--output",
             f"host:{folder}"]  # fmt: skip
    submission.submit(
        TrainingJob.from_sources(None, TrainingJob.parse_flags(flags), [*SETTINGS, "--epochs=200"]), cluster
    )
    step = _until(lambda: _step(cluster) > 20 and _step(cluster))
    old = _pod(cluster)
    assert old is not None
    deleted = time.time()
    cluster.delete("Pod", old["metadata"]["name"])
    new = _until(lambda: (pod := _pod(cluster)) and pod["metadata"]["uid"] != old["metadata"]["uid"] and pod)
    created = _time(new["metadata"]["creationTimestamp"])
    started = _until(lambda: _started(cluster))
    restored = _until(lambda: _goes_on(cluster, deleted))
    _until(lambda: _step(cluster) > step)
    stepped = time.time()
    yield Row("pod recovery, saved, ended, replaced", created - deleted, "s", "until the new pod is made")
    yield Row("pod recovery, container starts", started - created, "s", "scheduled, restored, started")
    yield Row("pod recovery, import, data, network", restored - started, "s", "until the chief goes on from a step")
    yield Row("pod recovery, first new step is told", stepped - restored, "s", "the Job is updated every 5 s")
    yield Row("pod recovery, in all", stepped - deleted, "s", "30 s or less is wanted")


def _step(cluster: Cluster) -> int:
    return int(operations.status("job", cluster).details.get("step", 0))


def _pod(cluster: Cluster) -> Object | None:
    pods = cluster.list("Pod", labels=f"{instance('job')},batch.kubernetes.io/job-completion-index=1")
    return max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)


def _started(cluster: Cluster) -> float | None:
    pod = _pod(cluster)
    for status in (pod or {}).get("status", {}).get("containerStatuses", []):
        if running := status["state"].get("running"):
            return _time(running["startedAt"])
    return None


def _goes_on(cluster: Cluster, since: float) -> float | None:
    for line in logs("job", cluster, LogRequest(workers=frozenset({0}))):
        if "goes on from step" in line.text and (at := _time(line.time)) > since:
            return at
    return None


def _time(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _until(condition: Callable[[], T | bool | None]) -> T:
    deadline = time.monotonic() + 900
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return value  # type: ignore[return-value]
