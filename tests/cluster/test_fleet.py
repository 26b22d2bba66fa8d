"""A job of a thousand workers with a GPU each, on simulated nodes: what does not grow, and what stays quick."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from launcher.cluster.kubernetes_api import Cluster
from launcher.diagnosis.job_status import JobStatus
from launcher.diagnosis.tables import describe_status
from launcher.job.training_job import TrainingJob
from launcher.operations import ending, submission
from launcher.operations import following as operations
from tests.cluster.conftest import Kit, until
from tests.cluster.test_verbs import Counting

pytestmark = pytest.mark.long

NODES, GPUS = 125, 8
WORKERS = NODES * GPUS


@pytest.fixture(scope="module")
def fleet(kit: Kit) -> Iterator[None]:
    kit("fleet", str(NODES), "--gpus", str(GPUS))
    try:
        yield
    finally:
        kit("fleet", "0")


def test_a_thousand_workers(fleet: None, cluster: Cluster, kit: Kit) -> None:
    def job(name: str, workers: int) -> TrainingJob:
        flags = ["--name", name, "--workers", str(workers), "--gpus-per-worker", "1", "--cpu", "1", "--memory", "1Gi",
                 "--toleration", "simulated=true:NoSchedule", "--node-selector", "simulated=true"]  # fmt: skip
        return TrainingJob.from_sources(None, TrainingJob.parse_flags(flags))

    counts = {}
    for name, workers in (("small", 4), ("large", WORKERS)):
        counting = Counting.connect(cluster.namespace)
        submission.submit(job(name, workers), counting)
        counts[workers] = counting.sent
    assert counts == {4: 9, WORKERS: 9}
    ending.delete("small", cluster)

    seen: list[JobStatus] = []
    ages = []
    started = time.monotonic()
    for now in operations.follow("large", cluster):  # what status --watch shows
        seen.append(now)
        if all(worker.phase == "Running" for worker in now.workers):
            break
        ages.append(time.monotonic())
        assert time.monotonic() - started < 400, now.reason
    assert len(now.workers) == WORKERS
    gaps = [later - earlier for earlier, later in pairwise(ages)]
    assert max(gaps, default=0) < 10
    assert len(describe_status(now)) < 20  # those in the same state share a row

    took, own = [], []
    for _ in range(3):
        before, before_own = time.monotonic(), time.process_time()
        operations.status("large", cluster)
        took.append(time.monotonic() - before)
        own.append(time.process_time() - before_own)
    print(f"status of {WORKERS} workers: {min(took):.2f} s, {min(own):.2f} s of them the launcher's own")
    # How long the API server takes depends on what else runs on this machine.
    assert min(own) < 1

    node = now.workers[0].node
    assert node
    cluster.delete("Node", node)
    lost = until("large", cluster, lambda now: any(worker.node == node or worker.attempt > 1 for worker in now.workers))
    assert any(worker.phase in ("Lost", "Failed", "Stopping", "Pending") for worker in lost.workers)
    assert node in lost.reason or "node lost" in lost.reason or "no node can take it" in lost.reason
