"""Each way in which a job can fail to start or end badly, made to happen, and the one line that tells it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from launcher import JobStatus
from launcher.cluster.kubernetes_api import Cluster
from launcher.job.training_job import TrainingJob
from launcher.operations import ending, submission
from launcher.operations import following as operations
from launcher.operations.logs import logs
from launcher.operations.pod_log import LogRequest
from maskfleet.config import TrainConfig
from maskfleet.errors import BadInput, MaskfleetError
from maskfleet.goodput import IMAGE_PULL, VOLUMES
from tests.cluster.conftest import Kit, Scripted, defined, until

FOREVER = "time.sleep(3600)"


@pytest.mark.parametrize(
    ("settings", "phase", "reason"),
    [
        ({"cpu": "500"}, "Pending", r"no node can take it \(.*with too little free cpu.*\); a worker asks for cpu 500"),
        ({"memory": "100Ti"}, "Pending", r"no node can take it \(.*with too little free memory"),
        ({"gpus_per_worker": 1}, "Pending", r"no node can take it \(.*with too little free nvidia.com/gpu"),
        ({"node_selector": ("no=such",)}, "Pending", r"no node can take it \(.*didn't match Pod's node affinity"),
        ({"image": "maskfleet/no-such-image:1"}, "Pulling", r"image maskfleet/no-such-image:1 can't be pulled: "),
        ({"env_from_secret": ("no-such",)}, "Starting", "Secret no-such is missing"),
        ({"mount": ("secret:no-such=/secrets",)}, "Starting", "Secret no-such is missing"),
        ({"mount": ("configmap:no-such=/settings",)}, "Starting", "ConfigMap no-such is missing"),
        ({"mount": ("pvc:no-such=/claim",)}, "Pending", "PersistentVolumeClaim no-such is missing"),
        ({"service_account": "no-such"}, "Pending", "ServiceAccount no-such is missing"),
        ({"priority": "no-such"}, "Pending", "PriorityClass no-such is missing"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_worker_that_can_not_start(
    settings: dict[str, Any], phase: str, reason: str, cluster: Cluster, scripted: Scripted
) -> None:
    submission.submit(scripted(FOREVER, **settings), cluster)
    now = until("job", cluster, lambda now: re.search(reason, now.reason) is not None)
    assert now.phase == phase
    assert "\n" not in now.reason


def test_the_wait_for_a_volume_is_booked_as_such(cluster: Cluster, scripted: Scripted) -> None:
    submission.submit(scripted("print(open('/files/key').read())", mount=("secret:late=/files",)), cluster)
    waiting = until("job", cluster, lambda now: spent_on(VOLUMES, now) > 5)
    assert waiting.reason == "Secret late is missing"
    assert spent_on(IMAGE_PULL, waiting) == 0
    metadata = {"name": "late"}
    cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"key": "here"}})
    assert operations.wait("job", cluster, timeout=300).phase == "Succeeded"
    assert [line.text for line in logs("job", cluster, LogRequest())] == ["here"]


def spent_on(cause: str, now: JobStatus) -> float:
    return float((now.time_spent or {"seconds": {}})["seconds"].get(cause, 0))


def test_a_folder_that_is_a_file_can_not_be_mounted(open_cluster: Cluster, scripted: Scripted) -> None:
    submission.submit(scripted(FOREVER, mount=("host:/etc/passwd=/files",)), open_cluster)
    reason = "volume /files can't be mounted: hostPath type check failed: /etc/passwd is not a directory"
    now = until("job", open_cluster, lambda now: now.reason == reason)
    assert now.phase == "Starting"


def test_a_quota_refusal(cluster: Cluster, scripted: Scripted) -> None:
    hard = {"requests.cpu": "100m"}
    cluster.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": hard}})
    until_in_force(cluster)
    submission.submit(scripted(FOREVER, cpu="500m"), cluster)
    now = until("job", cluster, lambda now: "quota" in now.reason)
    assert now.phase == "Pending"
    assert re.match(r"quota small refuses its pods: requested: requests.cpu=550m, used: .*limited: .*100m", now.reason)


def until_in_force(cluster: Cluster) -> None:
    deadline = time.monotonic() + 30
    while not cluster.list("ResourceQuota")[0].get("status", {}).get("used"):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_pod_security_refuses_a_folder_of_the_node(cluster: Cluster) -> None:
    with pytest.raises(BadInput, match=r"Pod Security restricted:latest refuses .*hostPath.*instead of host:"):
        submission.submit(TrainingJob(name="job", data="host:/srv"), cluster)
    with pytest.raises(MaskfleetError, match="there is no job job"):
        operations.status("job", cluster)


@pytest.mark.parametrize(
    ("script", "settings", "reason"),
    [
        ("x = bytearray(10**9)", {"memory": "64Mi"}, "out of memory: trainer was killed at its limit of 64Mi"),
        ("print('error: --epochs: too many'); sys.exit(2)", {"max_restarts": 6}, "--epochs: too many"),
        ("sys.exit(7)", {}, "trainer ended with exit code 7 (gave up after 1 failed pod)"),
        ("print('warming up'); {}['loss']", {}, "KeyError: 'loss' (<string>, line 1)"),
        (FOREVER, {"deadline": 3}, "took longer than its deadline of 3s"),
        (FOREVER, {"deadline": 3, "cpu": "500"}, "never scheduled within its deadline: 0/1 nodes are available"),
    ],
    ids=["out of memory", "bad settings", "exit code", "traceback", "deadline", "never scheduled"],
)  # fmt: skip
def test_a_job_that_failed(
    script: str, settings: dict[str, Any], reason: str, cluster: Cluster, scripted: Scripted
) -> None:
    submission.submit(scripted(script, **settings), cluster)
    end = operations.wait("job", cluster, timeout=120)
    assert (end.phase, end.exit_code) == ("Failed", 1)
    assert reason in end.reason


def test_of_many_tracebacks_the_first_is_the_cause(cluster: Cluster, scripted: Scripted) -> None:
    script = (
        "time.sleep(4 * worker)\n"
        "if worker == 1: print('error: lost a peer'); sys.exit(75)\n"
        "raise ValueError(f'of worker {worker}')"
    )
    submission.submit(scripted(script, workers=3, max_restarts=2), cluster)
    now = until("job", cluster, lambda now: now.phase in ("Failed", "Restarting") and bool(now.evidence))
    assert "ValueError: of worker 0" in now.reason
    assert now.evidence[0] == "Traceback (most recent call last):"


LOSES_ITS_PEER = """
import signal, socket
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
if worker == 0:
    server = socket.create_server(('', 2223))
    connections = []
    while True:
        connections.append(server.accept())
while True:
    try:
        peer = socket.create_connection(('job-0.job', 2223), timeout=5)
        break
    except OSError:
        time.sleep(.2)
print('connected', flush=True)
peer.settimeout(None)
peer.recv(1)
print('error: worker 1 lost a peer')
sys.exit(75)
"""


def test_the_worker_whose_pod_was_deleted_is_named_and_not_the_one_that_follows(
    cluster: Cluster, scripted: Scripted
) -> None:
    submission.submit(scripted(LOSES_ITS_PEER, workers=2, max_restarts=3), cluster)
    up = until("job", cluster, lambda now: all(worker.phase == "Running" for worker in now.workers))
    deadline = time.monotonic() + 60
    while not any(line.text == "connected" for line in logs("job", cluster, LogRequest())):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    cluster.delete("Pod", str(up.workers[0].pod))
    told = []
    for now in operations.follow("job", cluster, seconds=0.2):
        told.append(now.reason)
        if [worker.phase for worker in now.workers] == ["Running"] * 2 and now.workers[1].attempt > 1:
            break
        assert time.monotonic() < deadline + 120, told
    restarting = [reason for reason in told if "no step yet" not in reason]
    assert restarting
    assert [reason for reason in restarting if "worker 0" not in reason or "lost a peer" in reason] == []
    assert any("its pod was deleted" in reason for reason in restarting), restarting


def test_a_peer_that_never_comes(cluster: Cluster, scripted: Scripted) -> None:
    script = (
        "if worker: time.sleep(3600)\n"
        "os.execvp('python3', ['python3', '-m', 'trainer.cli', *sys.argv[1:]])  # the real supervisor"
    )
    job = scripted(script, workers=2, cpu="200m", training=TrainConfig(start_timeout=11))
    submission.submit(job, cluster)
    now = until("job", cluster, lambda now: "in vain" in now.reason, seconds=90)
    assert "in vain for worker 1 (job-1.job:2222)" in now.reason


@pytest.mark.long
def test_a_worker_that_fills_its_disk_is_evicted(cluster: Cluster, scripted: Scripted) -> None:
    # The kubelet looks at the volumes' use once a minute or so.
    script = f"(run / 'much').write_bytes(bytes(64 << 20))\n{FOREVER}"
    submission.submit(scripted(script, scratch="16Mi"), cluster)
    reason = 'evicted by its node: Usage of EmptyDir volume "run" exceeds the limit "16Mi"'
    now = until("job", cluster, lambda now: reason in now.reason, seconds=300)
    assert now.phase in ("Failed", "Restarting")


@pytest.fixture
def drained(kit: Kit) -> Iterator[None]:
    try:
        yield
    finally:
        kit("fault", "uncordon")


def test_a_drained_node_evicts_and_the_worker_comes_back(
    cluster: Cluster, scripted: Scripted, kit: Kit, drained: None
) -> None:
    submission.submit(scripted("import signal\nsignal.signal(15, lambda *_: sys.exit(143))\n" + FOREVER), cluster)
    until("job", cluster, lambda now: now.workers[0].phase == "Running")
    kit("fault", "drain-node")
    now = until("job", cluster, lambda now: now.phase == "Restarting" and "no node can take it" in now.reason)
    assert "unschedulable" in now.reason
    kit("fault", "uncordon")
    until("job", cluster, lambda now: now.workers[0].phase == "Running", seconds=90)
    assert cluster.get("Job", "job")["status"].get("failed", 0) <= 1


@pytest.fixture
def queue_definitions() -> Iterator[None]:
    """Kueue's Workload as a definition of the same names and shape; what Kueue does, the test does.

    Newer ones no longer serve v1beta1.
    """
    with defined("Workload", "Workload", "workloads", "kueue.x-k8s.io", "v1beta2"):
        yield


def test_a_job_in_a_queue_says_why_it_waits_and_runs_once_admitted(
    cluster: Cluster, scripted: Scripted, queue_definitions: None
) -> None:
    submission.submit(scripted("print('ran')", queue="team"), cluster)
    job = cluster.get("Job", "job")
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    waiting = operations.status("job", cluster)
    assert (waiting.phase, waiting.reason) == ("Queued", "waits for queue team to admit it")

    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "job", "uid": job["metadata"]["uid"]}
    cluster.create(
        {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "Workload",
            "metadata": {"name": "job-job-1", "ownerReferences": [owner]},
            "spec": {"queueName": "team", "active": True},
        }
    )
    condition = {
        "type": "QuotaReserved", "status": "False", "reason": "Pending",
        "message": "couldn't assign flavors to pod set main: insufficient quota for cpu, 3 more needed",
    }  # fmt: skip
    path = cluster._path("Workload", "job-job-1") + "/status"
    cluster._json("PATCH", path, {}, {"status": {"conditions": [condition]}}, "application/merge-patch+json")
    queued = operations.status("job", cluster)
    assert queued.phase == "Queued"
    assert queued.reason == f"queue team: {condition['message']}"

    ending.cancel("job", cluster)
    assert cluster.get("Workload", "job-job-1")["spec"]["active"] is False
    ending.resume("job", cluster)
    assert cluster.get("Workload", "job-job-1")["spec"]["active"] is True
    assert operations.status("job", cluster).phase == "Queued"

    cluster.patch("Job", "job", {"spec": {"suspend": False}})  # what Kueue does when it admits
    assert operations.wait("job", cluster, timeout=60).phase == "Succeeded"
