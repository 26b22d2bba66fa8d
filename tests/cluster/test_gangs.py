"""Jobs that each fit alone and not together: a gang waits whole where there are gangs; where there are none, jobs that
each hold a part of the room are told apart from those that wait for others to end.

Sizes are shares of the CPU that is free on the node.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from launcher.cluster.kubernetes_api import Cluster
from launcher.diagnosis.capacity import places_on
from launcher.job.training_job import TrainingJob
from launcher.operations import ending, submission
from launcher.operations import following as operations
from launcher.operations.preflight import preflight
from launcher.operations.scaling import scale
from maskfleet.errors import BadInput, NotFound
from tests.cluster.conftest import Scripted, defined, until

TRAINS = "print('trains', flush=True); time.sleep(3600)"
COSCHEDULED = "scheduling.x-k8s.io/pod-group"
BLOCK = "block each other"


def has_gangs(cluster: Cluster) -> bool:
    try:
        cluster.list("PodGroup")
    except NotFound:
        return False
    return True


def free_millicpu(cluster: Cluster) -> int:
    """Of the emptiest node that is not a simulated one, once the pods of earlier tests have made room."""
    deadline = time.monotonic() + 60
    pods = cluster.list("Pod", everywhere=True)
    while any(pod["metadata"].get("deletionTimestamp") for pod in pods):
        assert time.monotonic() < deadline
        time.sleep(0.5)
        pods = cluster.list("Pod", everywhere=True)
    nodes = [node for node in cluster.list("Node") if not node["spec"].get("taints")]
    return max(places_on(node, pods, {"cpu": 0.001}) for node in nodes)


def share(part: float, free: int) -> str:
    """The --cpu of a worker that takes this share of what is free together with its streamer's 50m."""
    return f"{int(part * free) - 50}m"


def running(count: int, name: str, cluster: Cluster) -> None:
    until(name, cluster, lambda now: sum(worker.phase == "Running" for worker in now.workers) == count, 120)


def checked(job: TrainingJob, cluster: Cluster) -> tuple[str, str]:
    (found,) = [check for check in preflight(job, cluster) if check.what == "gang"]
    return found.result, found.detail


@pytest.fixture
def gangs(cluster: Cluster) -> Cluster:
    if not has_gangs(cluster):
        pytest.skip("not run: needs a cluster with the gates GenericWorkload, GangScheduling and WorkloadWithJob")
    return cluster


@pytest.mark.long  # an ordinary cluster has no gangs
def test_of_two_gangs_that_do_not_fit_together_one_trains_and_the_other_waits_whole(
    gangs: Cluster, scripted: Scripted
) -> None:
    cpu = share(0.28, free_millicpu(gangs))
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    gangs.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "runs"}, "spec": spec})
    one, two = [scripted(TRAINS, name=name, workers=3, cpu=cpu, output="pvc:runs") for name in ("one", "two")]
    assert checked(one, gangs)[0] == "unknown"
    submission.submit(one, gangs)
    running(3, "one", gangs)
    made = "all 3 workers are placed at once or none: Kubernetes makes PodGroups of Jobs here"
    assert checked(two, gangs) == ("ok", made)
    submission.submit(two, gangs)
    now = until("two", gangs, lambda now: "does not fit" in now.reason)
    fits = f"the gang of 3 does not fit: 1 node with too little free cpu; a worker asks for cpu {cpu}, memory 256Mi"
    assert (now.phase, now.reason) == ("Pending", fits)
    assert all(worker.node is None for worker in now.workers)
    stays = "job one is placed as a gang of 3, whose number can't be changed"
    with pytest.raises(BadInput, match=stays):
        scale("one", 2, gangs)
    ending.cancel("one", gangs)
    running(3, "two", gangs)
    with pytest.raises(BadInput, match=stays):
        scale("one", 2, gangs)  # it has no pods by now
    ending.resume("one", gangs)
    again = until("one", gangs, lambda now: "does not fit" in now.reason)
    assert (again.phase, again.reason) == ("Restarting", fits)


@pytest.mark.long
def test_a_gang_that_may_not_have_all_its_pods_says_so(gangs: Cluster, scripted: Scripted) -> None:
    hard = {"pods": "2"}
    gangs.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": hard}})
    submission.submit(scripted(TRAINS, workers=3), gangs)
    now = until("job", gangs, lambda now: "quota" in now.reason)
    assert now.reason.startswith("the gang of 3 does not fit: quota small refuses its pods: requested: pods=1")


def test_jobs_that_hold_room_from_each_other_say_so_until_one_is_cancelled(
    open_cluster: Cluster, scripted: Scripted, scripted_image: str
) -> None:
    """Something else has half of the node, ``one`` gets a worker on what is left, then ``two`` gets one."""
    cluster = open_cluster
    if has_gangs(cluster):
        pytest.skip("not run: needs a cluster without gangs, whose workers are placed one by one")
    free = free_millicpu(cluster)
    half = {"name": "half", "image": scripted_image, "command": ["sleep", "3600"],
            "resources": {"requests": {"cpu": f"{free // 2}m"}}}  # fmt: skip
    pod = {"containers": [half], "terminationGracePeriodSeconds": 0}
    cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "half"}, "spec": pod})
    submission.submit(scripted(TRAINS, name="one", workers=2, cpu=share(0.3, free)), cluster)
    ordinary = until("one", cluster, lambda now: now.phase == "Pending" and now.reason.startswith("worker "))
    assert BLOCK not in ordinary.reason
    submission.submit(scripted(TRAINS, name="three", workers=2, cpu=share(0.3, free)), cluster)
    submission.submit(scripted(TRAINS, name="two", workers=2, cpu=share(0.15, free)), cluster)
    for name, other in (("one", "two"), ("two", "one")):
        now = until(name, cluster, lambda now: BLOCK in now.reason)
        assert now.phase == "Pending"
        assert now.reason.endswith(
            f"; it and {other} block each other: each holds room that the other waits for, cancel one"
        )
        assert "\n" not in now.reason
    blocked = {now.name for now in operations.list_jobs(cluster) if BLOCK in now.reason}
    assert blocked == {"one", "two"}, "three holds nothing and waits for the others to end"
    ending.cancel("two", cluster)
    until("one", cluster, lambda now: now.phase == "Pending" and BLOCK not in now.reason)
    cluster.delete("Pod", "half")
    running(2, "one", cluster)


@pytest.mark.parametrize(
    ("settings", "group", "version", "title"),
    [
        ({"scheduler_name": "volcano"}, "scheduling.volcano.sh", "v1beta1", "volcano"),
        ({"scheduler_name": "kai-scheduler"}, "scheduling.run.ai", "v2alpha2", "kai-scheduler"),
        ({"scheduler_name": "mine", "pod_label": (f"{COSCHEDULED}=gang",)}, "scheduling.x-k8s.io", "v1alpha1",
         "coscheduling"),
    ],
    ids=["Volcano", "KAI", "coscheduling"],
)  # fmt: skip
def test_a_scheduler_of_gangs_is_told_by_the_podgroups_that_the_server_has(
    settings: dict[str, Any], group: str, version: str, title: str, cluster: Cluster, scripted: Scripted
) -> None:
    job = scripted(TRAINS, workers=2, **settings)

    def said(namespace: Cluster) -> tuple[str, str]:
        name = f"scheduler {settings['scheduler_name']}"
        (found,) = [check for check in preflight(job, namespace) if check.what == name]
        return found.result, found.detail

    assert said(cluster) == ("no", f"the server has no PodGroups of {group}: {title} is not installed")
    with defined(f"PodGroup.{group}", "PodGroup", "podgroups", group, version):
        after = Cluster.connect(cluster.namespace)
        if title != "coscheduling":
            assert said(after)[1].startswith("places all 2 workers at once or none; nothing tells whether")
            return
        assert said(after) == ("no", "PodGroup gang is missing; there is none in this namespace")
        path = f"/apis/{group}/{version}/namespaces/{cluster.namespace}/podgroups"
        gang = {"apiVersion": f"{group}/{version}", "kind": "PodGroup", "metadata": {"name": "gang"}}
        cluster._json("POST", path, {}, {**gang, "spec": {"minMember": 3}})
        assert said(after) == ("no", "PodGroup gang has minMember 3, expected the workers, 2")
        change = {"spec": {"minMember": 2}}
        cluster._json("PATCH", f"{path}/gang", {}, change, "application/merge-patch+json")
        assert said(after)[1].startswith("PodGroup gang is a gang of 2; nothing tells whether")


def test_without_gangs_preflight_says_so(cluster: Cluster, scripted: Scripted) -> None:
    if has_gangs(cluster):
        pytest.skip("not run: needs a cluster without gangs")
    said = "none: the server has no PodGroups, so workers are placed one by one, as room appears"
    assert checked(scripted(TRAINS, workers=2), cluster) == ("ok", said)
