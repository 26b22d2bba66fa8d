"""What the verbs ask of the API server and what they leave, on a cluster that is but kept in memory."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.cluster.kubernetes_api import ApiError
from launcher.job.manifests import manifests
from launcher.job.training_job import TrainingJob
from launcher.operations import ending, submission
from launcher.operations import following as operations
from launcher.operations.description import describe
from launcher.operations.submission import submit
from maskfleet.config import TrainConfig
from maskfleet.errors import BadInput, BadSettings, NotFound, TimedOut
from maskfleet.own_code import read_sources
from tests.fakes.cluster import FakeCluster, Object, worker_pod

WARNING = '299 - "would violate PodSecurity \\"restricted:latest\\": restricted volume types"'
REFUSAL = 'pods "pets-check" is forbidden: violates PodSecurity "restricted:latest": restricted volume types'


def submitted(*, cluster: FakeCluster | None = None, **settings: Any) -> FakeCluster:
    cluster = cluster or FakeCluster()
    submit(TrainingJob(name="pets", **settings), cluster)
    return cluster


def job_of(cluster: FakeCluster) -> Object:
    return cluster.objects["Job", "pets"]


def end(cluster: FakeCluster, kind: str = "Complete") -> None:
    job_of(cluster)["status"] = {"conditions": [{"type": kind, "status": "True", "lastTransitionTime": ""}]}


@pytest.mark.parametrize("data", [None, "host:/srv/pets"])
def test_submit_takes_nine_requests(data: str | None) -> None:
    assert len(submitted(data=data).requests) == 9


@pytest.mark.parametrize("made", range(1, 7))
def test_the_next_submit_finishes_an_interrupted_one_though_its_queue_has_released_the_job(made: int) -> None:
    cluster = FakeCluster()

    def interrupt(request: str) -> None:
        if request.startswith("create") and len(cluster.requests) == made:
            raise KeyboardInterrupt

    cluster.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        submitted(cluster=cluster, queue="team")
    cluster.before = lambda request: None
    job_of(cluster)["spec"]["suspend"] = False  # as Kueue does
    submitted(cluster=cluster, queue="team")
    assert {kind for kind, _ in cluster.objects} == {each["kind"] for each in manifests(TrainingJob(name="pets"))}
    assert "patch Job" not in cluster.requests


def refuse_pods(request: str) -> None:
    if request == "try Pod":
        raise ApiError(403, "Forbidden", REFUSAL)


def test_a_warning_of_pod_security_has_a_pod_tried_and_a_refusal_leaves_nothing() -> None:
    cluster = FakeCluster()
    cluster.warning = WARNING
    cluster.before = refuse_pods
    with pytest.raises(BadInput, match=r"Pod Security restricted:latest refuses .* instead of host:"):
        submitted(cluster=cluster, data="host:/srv/pets")
    assert cluster.objects == {}


def test_the_server_s_check_sees_what_submit_would() -> None:
    asked = TrainingJob(name="pets", data="host:/srv/pets")
    cluster = FakeCluster()
    cluster.before = refuse_pods
    with pytest.raises(BadInput, match="Pod Security restricted:latest refuses"):
        submit(asked, cluster, dry_run=True)
    assert cluster.objects == {}


def test_the_server_s_check_of_a_job_that_is_there_is_as_idempotent_as_submit() -> None:
    cluster = submitted(output="gs://bucket")
    before = dict(cluster.objects)
    done = submit(TrainingJob(name="pets", output="gs://bucket"), cluster, dry_run=True)
    assert done.new is False
    assert cluster.objects == before
    with pytest.raises(BadInput, match="a job of this name exists with --workers 1, not 2"):
        submit(TrainingJob(name="pets", output="gs://bucket", workers=2), cluster, dry_run=True)


def test_the_server_s_check_names_an_object_that_is_in_the_way() -> None:
    cluster = FakeCluster({"kind": "Service", "metadata": {"name": "pets"}})
    with pytest.raises(BadInput, match="there is a Service of this name which is not the job's"):
        submit(TrainingJob(name="pets"), cluster, dry_run=True)


def test_a_role_that_is_not_there_yet_is_no_reason_against_a_job() -> None:
    cluster = FakeCluster()

    def bind_nothing(request: str) -> None:
        if request == "try RoleBinding":
            raise NotFound('roles.rbac.authorization.k8s.io "pets" not found')

    cluster.before = bind_nothing
    assert submit(TrainingJob(name="pets"), cluster, dry_run=True).new


def test_a_webhook_that_bears_no_dry_run_is_no_reason_against_a_job() -> None:
    cluster = FakeCluster()

    def bear_none(request: str) -> None:
        if request.startswith("try "):
            raise ApiError(400, "BadRequest", 'admission webhook "policy" does not support dry run')

    cluster.before = bear_none
    assert submit(TrainingJob(name="pets"), cluster, dry_run=True).new


def queued() -> FakeCluster:
    cluster = submitted(queue="team")
    condition = {"type": "QuotaReserved", "status": "False", "message": "insufficient quota for cpu"}
    cluster.objects["Workload", "pets-1"] = {
        "kind": "Workload",
        "metadata": {"name": "pets-1", "ownerReferences": [{"uid": job_of(cluster)["metadata"]["uid"]}]},
        "status": {"conditions": [condition]},
    }
    return cluster


def test_describe_and_list_say_why_a_job_is_queued_as_status_does() -> None:
    cluster: Any = queued()
    told = "queue team: insufficient quota for cpu"
    assert operations.status("pets", cluster).reason == told
    assert [each.reason for each in operations.list_jobs(cluster)] == [told]
    assert describe("pets", cluster)["status"]["reason"] == told


def test_describe_and_list_say_that_a_node_is_gone() -> None:
    cluster: Any = submitted()
    cluster.objects["Pod", "p"] = worker_pod(0)
    cluster.objects["Node", "other"] = {"kind": "Node", "metadata": {"name": "other"}}
    told = "its node is gone from the cluster"
    assert operations.list_jobs(cluster)[0].reason == describe("pets", cluster)["status"]["reason"] == told


def test_wait_comes_to_what_a_pod_has_left_though_its_watch_is_behind() -> None:
    cluster: Any = submitted(output="gs://bucket")
    end(cluster)
    pod = worker_pod(0, phase="Succeeded", terminated={"exitCode": 0})
    cluster.remembered["Pod"] = [worker_pod(0)]
    ended = {"name": "streamer", "state": {"terminated": {"exitCode": 1, "message": "error: gs://bucket: 503"}}}
    pod["status"]["initContainerStatuses"] = [ended]
    cluster.objects["Pod", "p"] = worker_pod(0)
    said = []

    def settle() -> None:
        time.sleep(0.5)
        cluster.objects["Pod", "p"] = pod

    threading.Thread(target=settle).start()
    found = operations.wait("pets", cluster, timeout=20, on_change=said.append)
    assert found.exit_code == 1
    assert [each.reason for each in said] == [found.reason]
    assert found.reason.endswith("not all of the run was streamed: gs://bucket: 503")


def test_wait_does_not_take_what_the_server_remembers_for_an_end() -> None:
    cluster: Any = submitted()
    cluster.remembered["Job"] = []  # as right after a submit
    statuses = operations.follow("pets", cluster, seconds=0.1)
    assert [next(statuses).phase for _ in range(3)] == ["Pending"] * 3


@pytest.mark.parametrize(("output", "notes"), [(None, 1), ("pvc:runs", 0), ("gs://bucket", 0)])
def test_cancel_says_what_is_not_kept(output: str | None, notes: int) -> None:
    cluster: Any = submitted(output=output)
    said = ending.cancel("pets", cluster)
    assert len(said) == notes
    assert all("without --output its logs and checkpoints go with its pods" in note for note in said)


def test_resume_looks_at_the_settings_before_it_deletes_anything() -> None:
    cluster: Any = submitted(workers=4)
    end(cluster)
    with pytest.raises(BadSettings, match="--global-batch 3: expected at least one example for each of 4 replicas"):
        ending.resume("pets", cluster, training=["--global-batch", "3"])
    assert ("Job", "pets") in cluster.objects
    assert not any(request.startswith("delete") for request in cluster.requests)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (ApiError(403, "Forbidden", "exceeded quota: none"), 1, "exceeded quota: none"),
    ],
)
def test_a_job_that_was_deleted_and_not_submitted_again_is_in_a_file(
    error: BaseException, code: int, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cluster: Any = submitted(training=TrainConfig(seed=7))
    end(cluster, "Failed")

    def fail(request: str) -> None:
        if request.startswith("create"):
            raise error

    cluster.before = fail
    with pytest.raises(ending.NotStartedAgain, match=f"job pets was being started again and is not .{told}.:") as lost:
        ending.resume("pets", cluster, training=["--epochs", "40"])
    assert lost.value.exit_code == code
    found = re.search(r"'launcher submit -n team -f (\S+)'", str(lost.value))
    assert found is not None
    again = TrainingJob.from_sources(Path(found[1]), TrainingJob.parse_flags([]))
    assert (again.name, again.training.epochs, again.training.seed) == ("pets", 40, 7)


def test_the_code_of_a_job_that_was_not_submitted_again_lies_beside_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (code := tmp_path / "code").mkdir()
    (code / "mine.py").write_text("x = 1\n")
    cluster: Any = submitted(code=code)
    end(cluster, "Failed")
    (code / "mine.py").write_text("x = 2\n")
    (kept := tmp_path / "kept").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(kept))

    def fail(request: str) -> None:
        if request.startswith("create"):
            raise KeyboardInterrupt

    cluster.before = fail
    with pytest.raises(ending.NotStartedAgain):
        ending.resume("pets", cluster)
    again = TrainingJob.from_sources(next(kept.glob("*.yaml")), TrainingJob.parse_flags([]))
    assert again.code is not None
    assert read_sources(again.code) == {"mine.py": b"x = 1\n"}


def test_a_resumed_job_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cluster: Any = submitted()
    end(cluster)
    assert ending.resume("pets", cluster, training=["--epochs", "40"]).new
    cluster.before = lambda request: None
    assert list(tmp_path.iterdir()) == []
    assert {kind for kind, _ in cluster.objects} == {each["kind"] for each in manifests(TrainingJob(name="pets"))}


def test_a_resume_that_the_server_refuses_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cluster: Any = submitted()
    end(cluster)

    def refuse(request: str) -> None:
        if request.startswith("delete"):
            raise ApiError(403, "Forbidden", "may not delete jobs")

    cluster.before = refuse
    with pytest.raises(ApiError, match="may not delete jobs"):
        ending.resume("pets", cluster)
    assert list(tmp_path.iterdir()) == []


def test_delete_leaves_a_job_alone_that_is_not_the_launcher_s() -> None:
    cluster: Any = FakeCluster({"kind": "Job", "metadata": {"name": "backup", "labels": {"app": "backup"}}})
    with pytest.raises(NotFound, match="job backup in namespace team is not a training job"):
        ending.delete("backup", cluster)
    assert ("Job", "backup") in cluster.objects


@pytest.mark.parametrize(("output", "grace"), [(None, 60), ("gs://bucket", 600)])
def test_delete_waits_for_as_long_as_the_pods_may_take(
    output: str | None, grace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now > end:
            cluster.objects.pop(("Pod", "p"), None)

    for module in ("launcher.operations.ending", "maskfleet.backoff"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    cluster: Any = submitted(output=output)
    cluster.objects["Pod", "p"] = worker_pod(0)
    end = grace + 5.0
    ending.delete("pets", cluster)
    assert cluster.objects == {}

    submitted(cluster=cluster, output=output)
    cluster.objects["Pod", "p"] = worker_pod(0)
    end = float("inf")
    with pytest.raises(TimedOut, match=f"its Pod is still there after {grace + 60} s"):
        ending.delete("pets", cluster)


@pytest.mark.parametrize(("flags", "training", "note"), [
    (["--data", "gs://b/pets"], [], "the trainer reads gs://b/pets as --data folder:/data"),
    (["--data", "pvc:pets"], ["--data", "voc:/data"], None),
    ([], ["--data", "folder:/pets"], "--data folder:/pets: nothing is mounted at /pets, so it has to be in the image"),
    ([], ["--data", "folder:/data"], "--data folder:/data: nothing is mounted at /data, so it has to be in the image"),
    (["--mount", "pvc:pets=/mnt"], ["--data", "folder:/mnt/pets"], None),
    ([], ["--data", "synthetic"], None),
])  # fmt: skip
def test_submit_says_where_the_trainer_s_data_comes_from(
    flags: list[str], training: list[str], note: str | None
) -> None:
    flags = ["--name", "pets", "--output", "gs://b/runs", *flags]
    job = TrainingJob.from_sources(None, TrainingJob.parse_flags(flags), training)
    assert submission.notes(job) == (() if note is None else (note,))
