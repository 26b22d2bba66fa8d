"""What is said of a job that is deleted, suspended or stopped, and what the verbs do with it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from launcher.cli import main
from launcher.cluster.kubernetes_api import ApiError, Cluster, Unreachable
from launcher.job.manifests import base_folder
from launcher.job.training_job import TrainingJob
from launcher.operations import ending, following
from launcher.operations.description import describe
from launcher.operations.logs import follow_logs
from launcher.operations.pod_log import LogRequest
from launcher.operations.submission import LeftBehind, submit
from launcher.operations.tensorboard import in_cluster
from maskfleet.errors import BadInput, MaskfleetError, NotFound, TimedOut
from tests.fakes.cluster import CREATED, FakeCluster, Object, worker_pod

HOLD = "example.com/hold"


def submitted(**settings: Any) -> Any:
    cluster = FakeCluster({"kind": "Node", "metadata": {"name": "node-1"}})
    submit(TrainingJob(name="pets", **settings), cluster)
    return cluster


def job_of(cluster: FakeCluster) -> Object:
    return cluster.objects["Job", "pets"]


def run_pods(cluster: FakeCluster, *workers: int) -> None:
    for worker in workers:
        pod = worker_pod(worker)
        cluster.objects["Pod", pod["metadata"]["name"]] = pod


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A command as it is typed, for a cluster that is but kept in memory."""

    def run(cluster: FakeCluster, *arguments: str) -> Result:
        monkeypatch.setattr(Cluster, "connect", lambda *_, **__: cluster)
        return CliRunner().invoke(main, arguments)

    return run


def held(kind: str) -> Any:
    """A job that is being deleted while a finalizer holds its Job or a pod."""
    cluster = submitted()
    run_pods(cluster, 0)
    name = "pets" if kind == "Job" else "pets-0-abcde"
    cluster.objects[kind, name]["metadata"]["finalizers"] = [HOLD]
    job = job_of(cluster)["metadata"]
    job["finalizers"] = [*job.get("finalizers", []), "foregroundDeletion"]
    cluster.delete("Job", "pets")
    return cluster


@pytest.mark.parametrize("kind", ["Job", "Pod"])
def test_a_job_that_is_being_deleted_says_so_and_for_what_it_waits(kind: str) -> None:
    cluster = held(kind)
    name = "Job pets" if kind == "Job" else "Pod pets-0-abcde"
    for now in (following.status("pets", cluster), *following.list_jobs(cluster)):
        assert now.phase == "Deleting"
        assert f"is being deleted: waits for the finalizer {HOLD} of {name}" in now.reason
    assert describe("pets", cluster)["status"]["phase"] == "Deleting"


def test_pods_that_take_their_time_are_named_with_it() -> None:
    cluster = submitted(workers=40)
    run_pods(cluster, *range(40))
    for (kind, _), each in cluster.objects.items():
        if kind in ("Job", "Pod"):
            each["metadata"]["deletionTimestamp"] = CREATED
    reason = following.status("pets", cluster).reason
    assert reason.startswith(f"is being deleted: waits for Pod pets-0-abcde to end (by {CREATED}), ")
    assert reason.endswith(" and 37 more")


def test_no_verb_pretends_to_change_a_job_that_is_being_deleted() -> None:
    cluster = held("Job")
    before = len(cluster.requests)

    def board() -> None:
        with in_cluster(TrainingJob(name="pets", output="pvc:runs"), job_of(cluster), cluster):
            raise AssertionError

    for verb in (lambda: ending.cancel("pets", cluster), lambda: ending.resume("pets", cluster), board):
        with pytest.raises(BadInput, match="job pets is being deleted"):
            verb()
    assert {each for each in cluster.requests[before:] if not each.startswith("get ")} == set()


def test_the_outcome_of_an_ended_job_stays_while_it_is_deleted() -> None:
    cluster = held("Job")
    cluster.objects["Pod", "pets-0-abcde"]["status"] = {"phase": "Succeeded"}
    job_of(cluster)["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    now = following.status("pets", cluster)
    assert (now.phase, now.exit_code) == ("Succeeded", 0)
    assert f"is being deleted: waits for the finalizer {HOLD}" in now.reason


def test_delete_names_the_finalizer_that_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.operations.ending._NOTICE_SECONDS", 0.1)
    cluster = submitted()
    job_of(cluster)["metadata"]["finalizers"] = [HOLD]
    said: list[str] = []
    with pytest.raises(TimedOut, match=f"its Job is still there after 1 s: it waits for the finalizer {HOLD} of Job"):
        ending.delete("pets", cluster, timeout=1, report_line=said.append)
    assert said == [f"waits for the finalizer {HOLD} of Job pets, which whoever set it takes away"]


@pytest.mark.parametrize(
    ("condition", "phases"),
    [
        ("Complete", ["Succeeded"] * 3),
        ("Failed", ["Succeeded", "Failed", "Stopped"]),
        (None, ["Succeeded", "Stopped", "Stopped"]),  # cancelled
    ],
)
def test_of_a_job_that_is_over_no_worker_waits_for_a_pod(condition: str | None, phases: list[str]) -> None:
    cluster = submitted(workers=3)
    status: Object = {"completedIndexes": "0", "failedIndexes": "1" if condition == "Failed" else ""}
    job_of(cluster)["status"] = status
    if condition:
        status["conditions"] = [{"type": condition, "status": "True", "lastTransitionTime": CREATED}]
    else:
        ending.cancel("pets", cluster)
    workers = following.status("pets", cluster).workers
    assert [worker.phase for worker in workers] == phases
    assert not [worker for worker in workers if "waits for" in worker.reason]


def suspend(cluster: FakeCluster, manager: str = "kubectl-patch") -> None:
    cluster.manager, before = manager, cluster.manager
    cluster.patch("Job", "pets", {"spec": {"suspend": True}})
    cluster.manager = before


@pytest.mark.parametrize("manager", ["kubectl-patch", "kueue"])
def test_a_job_that_another_has_suspended_says_so_and_resume_goes_on(manager: str) -> None:
    cluster = submitted()
    suspend(cluster, manager)
    now = following.status("pets", cluster)
    assert (now.phase, now.reason) == ("Suspended", f"suspended by {manager}; 'launcher resume pets' goes on")
    assert now.workers[0].reason == "waits for the job to be released"
    with pytest.raises(BadInput, match=f"this job is suspended by {manager}: 'launcher resume pets' goes on with it"):
        submit(TrainingJob(name="pets"), cluster)
    assert job_of(cluster)["spec"]["suspend"] is True
    ending.resume("pets", cluster)
    assert job_of(cluster)["spec"]["suspend"] is False
    assert following.status("pets", cluster).phase == "Pending"


def test_a_job_without_a_queue_that_kueue_has_suspended_waits_for_it() -> None:
    cluster = submitted()
    suspend(cluster, "kueue")
    cluster.objects["Workload", "w"] = {
        "kind": "Workload",
        "metadata": {"name": "w", "ownerReferences": [{"uid": job_of(cluster)["metadata"]["uid"]}]},
        "spec": {"queueName": "default", "active": True},
        "status": {"conditions": [{"type": "QuotaReserved", "status": "False", "message": "no quota for cpu"}]},
    }
    now = following.status("pets", cluster)
    assert (now.phase, now.reason) == ("Queued", "queue default: no quota for cpu")
    with pytest.raises(BadInput, match="job pets has not begun: queue default: no quota for cpu"):
        ending.resume("pets", cluster)


def test_a_job_that_has_run_was_suspended_though_nobody_says_by_whom() -> None:
    cluster = submitted()
    suspend(cluster)
    del job_of(cluster)["metadata"]["managedFields"]
    job_of(cluster)["status"] = {"startTime": CREATED}
    assert following.status("pets", cluster).reason.startswith("suspended by somebody")
    ending.resume("pets", cluster)
    assert job_of(cluster)["spec"]["suspend"] is False


def interrupted() -> Any:
    cluster: Any = FakeCluster()

    def interrupt(request: str) -> None:
        if request == "patch Job":
            raise KeyboardInterrupt

    cluster.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        submit(TrainingJob(name="pets"), cluster)
    cluster.before = lambda request: None
    return cluster


def test_an_interrupted_submit_is_none() -> None:
    cluster = interrupted()
    assert following.status("pets", cluster).reason.startswith("submit was interrupted: ")
    with pytest.raises(BadInput, match="job pets has not begun: submit was interrupted: 'launcher submit'"):
        ending.resume("pets", cluster)


def test_a_cancelled_job_that_another_releases_runs() -> None:
    cluster = submitted()
    ending.cancel("pets", cluster)
    assert following.status("pets", cluster).phase == "Cancelled"
    first = job_of(cluster)["metadata"]["annotations"]["maskfleet/cancelled"]
    job_of(cluster)["metadata"]["annotations"]["maskfleet/cancelled"] = "before"
    ending.cancel("pets", cluster)
    assert job_of(cluster)["metadata"]["annotations"]["maskfleet/cancelled"] == "before" != first
    cluster.manager = "kubectl-patch"
    cluster.patch("Job", "pets", {"spec": {"suspend": False}})
    assert following.status("pets", cluster).phase == "Pending"
    with pytest.raises(BadInput, match="has not ended: there is nothing to resume"):
        ending.resume("pets", cluster)


def test_the_times_that_a_job_was_cancelled_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 11, 23, 10, 1, tzinfo=UTC).timestamp()
    cluster = submitted()
    for cancelled, total in (("2026-11-23T10:00:00Z", 60), ("2026-11-23T10:00:30Z", 90), ("before", 90)):
        ending.cancel("pets", cluster)
        job_of(cluster)["metadata"]["annotations"]["maskfleet/cancelled"] = cancelled
        monkeypatch.setattr("time.time", lambda: now)
        ending.resume("pets", cluster)
        monkeypatch.undo()
        assert job_of(cluster)["metadata"]["annotations"]["maskfleet/stopped-seconds"] == str(total)


def test_a_workload_that_another_has_deactivated_says_so_and_resume_activates_it() -> None:
    cluster = submitted(queue="team")
    cluster.objects["Workload", "w"] = {
        "kind": "Workload",
        "metadata": {"name": "w", "ownerReferences": [{"uid": job_of(cluster)["metadata"]["uid"]}]},
        "spec": {"queueName": "team", "active": False},
    }
    told = "queue team: its Workload is deactivated; 'launcher resume pets' activates it"
    assert following.status("pets", cluster).reason == told
    ending.resume("pets", cluster)
    assert cluster.objects["Workload", "w"]["spec"]["active"] is True
    with pytest.raises(BadInput, match="job pets has not begun: waits for queue team to admit it"):
        ending.resume("pets", cluster)


@pytest.mark.parametrize("error", [ApiError(403, "Forbidden", "quota: none left"), Unreachable("no answer")])
def test_a_release_that_is_refused_leaves_nothing(error: MaskfleetError) -> None:
    cluster: Any = FakeCluster()

    def refuse(request: str) -> None:
        if request == "patch Job":
            raise error

    cluster.before = refuse
    with pytest.raises(type(error), match=str(error)):
        submit(TrainingJob(name="pets"), cluster)
    assert cluster.objects == {}


def test_what_a_refused_release_had_to_leave_is_said() -> None:
    cluster: Any = FakeCluster()

    def refuse(request: str) -> None:
        if request in ("patch Job", "delete Job"):
            raise ApiError(403, "Forbidden", f"may not {request}")

    cluster.before = refuse
    with pytest.raises(
        LeftBehind, match=r"^may not patch Job; job pets could not be deleted again \(may not delete Job"
    ):
        submit(TrainingJob(name="pets"), cluster)
    with pytest.raises(
        LeftBehind, match=r"^may not patch Job; job pets was there before, and stays, suspended: the same"
    ):
        submit(TrainingJob(name="pets"), cluster)


@pytest.fixture
def applied() -> Any:
    """What ``kubectl apply -k k8s/base`` makes: nothing owns the objects beside the Job."""
    cluster: Any = FakeCluster()
    cluster.manager = "kubectl-client-side-apply"
    for file in base_folder().glob("*.yaml"):
        manifest = yaml.safe_load(file.read_text())
        if manifest["kind"] != "Kustomization":
            cluster.create(manifest)
    return cluster


def test_delete_takes_away_all_that_kubectl_has_applied(applied: Any, typed: Any) -> None:
    assert len(applied.objects) == 8
    pod = worker_pod(0, job="maskfleet")
    applied.objects["Pod", "p"] = pod | {"metadata": pod["metadata"] | {"ownerReferences": [{"name": "maskfleet"}]}}
    applied.create(
        {"kind": "ConfigMap", "metadata": {"name": "mine", "labels": {"app.kubernetes.io/name": "maskfleet"}}}
    )
    done = typed(applied, "delete", "maskfleet", "--yes")
    assert (done.exit_code, done.stdout) == (0, "job maskfleet is deleted in namespace team of context here\n")
    assert list(applied.objects) == [("ConfigMap", "mine")]


def test_delete_takes_away_what_is_left_without_its_job(applied: Any, typed: Any) -> None:
    applied.delete("Job", "maskfleet")
    assert typed(applied, "delete", "maskfleet", "--yes").exit_code == 0
    assert applied.objects == {}
    missing = typed(applied, "delete", "maskfleet", "--yes")
    assert (missing.exit_code, missing.stderr.startswith("error: there is no job maskfleet")) == (3, True)


def test_delete_takes_away_the_pods_that_a_deleted_job_has_orphaned() -> None:
    cluster = submitted(workers=2)
    run_pods(cluster, 0, 1)
    del cluster.objects["Job", "pets"]  # as kubectl delete --cascade=orphan does
    for each in cluster.objects.values():
        each["metadata"].pop("ownerReferences", None)
        if each["kind"] == "Pod":
            each["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "launcher"
    ending.delete("pets", cluster)
    assert [kind for kind, _ in cluster.objects] == ["Node"]


def test_what_of_it_may_not_be_deleted_is_said(applied: Any) -> None:
    def refuse(request: str) -> None:
        if request in ("list Role", "delete RoleBinding"):
            raise ApiError(403, "Forbidden", f"may not {request}")

    applied.before = refuse
    with pytest.raises(
        MaskfleetError, match="job maskfleet is deleted, but not all of its objects: Role: may not list"
    ):
        ending.delete("maskfleet", applied)
    assert {kind for kind, _ in applied.objects} == {"Role", "RoleBinding"}


@pytest.mark.parametrize(
    ("verb", "code", "told"),
    [
        (["status", "maskfleet"], 0, "maskfleet: Pending"),
        (["describe", "maskfleet"], 0, "maskfleet: Pending"),
        (["logs", "maskfleet"], 3, "if its streamer has a destination, its logs are there"),
        (["resume", "maskfleet"], 2, "has not ended: there is nothing to resume"),
        (["tensorboard", "maskfleet"], 2, "was not made by the launcher: its annotation maskfleet/job is missing, so"),
        (["cancel", "maskfleet"], 0, "job maskfleet is cancelled"),
    ],
)
def test_every_verb_answers_at_once_of_what_kubectl_has_applied(
    verb: list[str], code: int, told: str, applied: Any, typed: Any
) -> None:
    done = typed(applied, *verb)
    assert (done.exit_code, told in done.output) == (code, True), done.output


@pytest.mark.parametrize("verb", ["status", "cancel", "resume", "logs", "describe", "delete", "tensorboard", "wait"])
def test_a_job_that_is_called_otherwise_than_its_labels_say_is_refused_at_once(verb: str, typed: Any) -> None:
    # as a kustomization with a namePrefix makes it
    manifest = yaml.safe_load((base_folder() / "job.yaml").read_text())
    manifest["metadata"]["name"] = "team-maskfleet"
    done = typed(FakeCluster(manifest), verb, "team-maskfleet")
    assert done.exit_code == 3
    assert "is not the launcher's: expected its name in the label app.kubernetes.io/instance" in done.stderr


def test_a_list_knows_the_pods_of_a_job_that_is_called_otherwise_than_its_labels_say() -> None:
    manifest = yaml.safe_load((base_folder() / "job.yaml").read_text())
    manifest["metadata"] |= {"name": "team-maskfleet", "creationTimestamp": CREATED}
    pod = worker_pod(0, job="team-maskfleet")
    pod["metadata"]["labels"] |= {
        "app.kubernetes.io/instance": "maskfleet",
        "batch.kubernetes.io/job-name": "team-maskfleet",
    }
    cluster: Any = FakeCluster(manifest, {**pod, "kind": "Pod"}, {"kind": "Node", "metadata": {"name": "node-1"}})
    (found,) = following.list_jobs(cluster)
    assert [worker.phase for worker in found.workers] == ["Running"]


def test_a_resume_with_settings_that_can_not_be_kept_leaves_the_job() -> None:
    cluster = submitted()
    job_of(cluster)["status"] = {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": CREATED}]}
    with pytest.raises(BadInput, match="--class-weights: expected settings of at most"):
        ending.resume("pets", cluster, training=["--class-weights", ",".join(["1.2345678"] * 60_000)])
    assert ("Job", "pets") in cluster.objects


def test_a_job_that_was_made_by_create_is_started_again_without_a_wait(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cluster = submitted()
    for (kind, _), each in cluster.objects.items():
        each["metadata"].pop("ownerReferences", None)
        if kind == "Job":
            each["status"] = {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": CREATED}]}
    assert ending.resume("pets", cluster).new
    assert list(tmp_path.iterdir()) == []


def test_following_the_logs_of_a_job_that_is_being_deleted_ends() -> None:
    cluster = held("Job")
    cluster.objects.pop(("Pod", "pets-0-abcde"))
    with pytest.raises(NotFound, match="no pod of the worker asked for is there"):
        list(follow_logs("pets", cluster, LogRequest()))
