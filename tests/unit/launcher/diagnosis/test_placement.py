"""What is said of workers that find no node: of a gang as a whole, and of jobs that take the room from each other."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from launcher.diagnosis.job_status import job_status
from launcher.job.training_job import TrainingJob
from launcher.operations import following
from launcher.operations.submission import submit
from tests.fakes.cluster import CREATED, FakeCluster, worker_pod
from tests.unit.launcher.diagnosis.test_job_status import job

# As Kubernetes 1.36 says it of three workers of 700m on a node with 2 CPUs.
IN_GANG = (
    "pod group is unschedulable, waiting for minCount pods from a gang to be scheduled, one or more plugins asked to "
    "wait and no plugin rejected pod"
)
NO_ROOM = (
    "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: "
    "1 No preemption victims found for incoming pod."
)
TOO_LITTLE = "no node can take it (1 node with too little free cpu); a worker asks for cpu 700m"
GANG_TOO_LITTLE = "the gang of 3 does not fit: 1 node with too little free cpu; a worker asks for cpu 700m"


def pending(worker: int, message: str, *, of: str = "pets", gang: bool = False) -> Any:
    pod = copy.deepcopy(worker_pod(worker, job=of))
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    pod["status"] = {"phase": "Pending", "conditions": [condition]}
    del pod["spec"]["nodeName"]
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "700m"}}
    if gang:
        pod["spec"]["schedulingGroup"] = {"podGroupName": "pets-6646ff9c97-pets-pgt-0-756d74f88c"}
    return pod


def placed(worker: int, of: str = "pets", **state: Any) -> Any:
    pod = worker_pod(worker, job=of, **state)
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "700m"}}
    return pod


def test_a_gang_that_does_not_fit_has_one_reason() -> None:
    pods = [pending(0, IN_GANG, gang=True), pending(1, IN_GANG, gang=True), pending(2, NO_ROOM, gang=True)]
    now = job_status(job(3), pods)
    assert (now.phase, now.reason) == ("Pending", GANG_TOO_LITTLE)
    assert [worker.reason for worker in now.workers] == [*["waits until its whole gang finds room"] * 2, TOO_LITTLE]


def test_a_gang_that_has_trained_before_says_the_same() -> None:
    pods = [pending(worker, NO_ROOM, gang=True) for worker in range(3)]
    assert job_status(job(3, failed=1), pods).reason == GANG_TOO_LITTLE
    assert job_status(job(3, failed=1), pods).phase == "Restarting"


def test_what_stops_one_of_a_gang_stops_it_whole_though_the_others_only_wait() -> None:
    not_looked_at = [copy.deepcopy(pending(worker, "", gang=True)) for worker in range(2)]
    for pod in not_looked_at:
        del pod["status"]["conditions"]
    about = {"involvedObject": {"kind": "Job", "name": "pets"}, "lastTimestamp": CREATED, "reason": "FailedCreate"}
    refused = {
        **about,
        "message": 'pods "pets-2-x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2',
    }
    now = job_status(job(3), not_looked_at, [refused])
    assert now.reason.startswith("the gang of 3 does not fit: quota small refuses its pods: requested: pods=1")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (NO_ROOM, "1 node with too little free cpu"),
        ("0/3 nodes are available: 3 Insufficient cpu.", "3 nodes with too little free cpu"),
        ("0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {a: b}.",
         "1 of 3 nodes with too little free cpu, 2 had untolerated taint {a: b}"),
        ("0/9 nodes are available: 9 node(s) didn't match Pod's node affinity/selector.",
         "9 nodes didn't match Pod's node affinity/selector"),
    ],
)  # fmt: skip
def test_how_many_nodes_lack_what(message: str, words: str) -> None:
    (worker,) = job_status(job(1), [pending(0, message)]).workers
    assert worker.reason == f"no node can take it ({words}); a worker asks for cpu 700m"


def test_a_gang_whose_workers_would_each_fit_waits_for_all() -> None:
    now = job_status(job(2), [pending(worker, IN_GANG, gang=True) for worker in range(2)])
    assert now.reason == "the gang of 2 waits until all of it finds room at once"


def test_without_a_gang_the_commonest_reason_stands() -> None:
    now = job_status(job(2), [worker_pod(0), pending(1, NO_ROOM)])
    assert (now.phase, now.reason) == ("Pending", f"worker 1: {TOO_LITTLE}")


def with_two_jobs(*cats: Any) -> Any:
    """Of pets' two workers one has found a node."""
    cluster = FakeCluster()
    for name in ("pets", "cats"):
        submit(TrainingJob(name=name, workers=2), cluster)
    for pod in (placed(0), pending(1, NO_ROOM), *cats):
        cluster.objects["Pod", pod["metadata"]["name"]] = pod
    return cluster


def test_two_jobs_that_each_hold_what_the_other_needs_name_each_other() -> None:
    cluster = with_two_jobs(placed(0, "cats"), pending(1, NO_ROOM, of="cats"))
    for name, other in (("pets", "cats"), ("cats", "pets")):
        expected = f"it and {other} block each other: each holds room that the other waits for, cancel one"
        assert following.status(name, cluster).reason.endswith(f"; {expected}")
    assert all("block each other" in now.reason for now in following.list_jobs(cluster))


@pytest.mark.parametrize(
    "cats",
    [
        [placed(0, "cats"), placed(1, "cats")],
        [pending(0, NO_ROOM, of="cats"), pending(1, NO_ROOM, of="cats")],
        [placed(0, "cats", phase="Failed"), pending(1, NO_ROOM, of="cats")],
        [placed(0, "cats"), pending(1, NO_ROOM.replace("cpu", "nvidia.com/gpu"), of="cats")],
        [placed(0, "cats"), pending(1, "0/1 nodes are available: 1 node(s) were unschedulable.", of="cats")],
        [],
    ],
    ids=[
        "has all it needs",
        "holds nothing",
        "holds nothing any more",
        "lacks what pets has not",
        "lacks no room",
        "is not there",
    ],
)
def test_a_job_that_waits_for_others_to_end_is_in_no_deadlock(cats: list[Any]) -> None:
    cluster = with_two_jobs(*cats)
    assert following.status("pets", cluster).reason == f"worker 1: {TOO_LITTLE}"
    assert all("block each other" not in now.reason for now in following.list_jobs(cluster))
