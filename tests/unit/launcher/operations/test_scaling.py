"""Another number of workers: what is changed, what stays, and what is refused before anything is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from launcher.cli import main
from launcher.cluster.kubernetes_api import ApiError, Cluster
from launcher.job.labels import JOB_ANNOTATION, WORKERS_ANNOTATION
from launcher.job.manifests import manifests
from launcher.job.training_job import TrainingJob
from launcher.operations import ending
from launcher.operations.scaling import scale
from launcher.operations.submission import submit
from launcher.operations.submitted import asked_job, is_cancelled
from maskfleet.errors import BadInput, BadSettings, NotFound, TimedOut
from tests.fakes.cluster import CREATED, FakeCluster, Object, bare, worker_pod

GANG = bare("PodGroup", "another")
GANG["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "another", "uid": "1"}]


def submitted(**settings: Any) -> Any:
    cluster = FakeCluster()
    submit(TrainingJob(**{"name": "pets", "workers": 2, "output": "pvc:runs", **settings}), cluster)
    cluster.requests.clear()
    return cluster


def job_of(cluster: FakeCluster) -> Object:
    return cluster.objects["Job", "pets"]


def settings_of(cluster: FakeCluster) -> Any:
    return json.loads(cluster.objects["ConfigMap", "pets"]["data"]["config.json"])["settings"]


@pytest.mark.parametrize("workers", [1, 3, 1000, 5000])
def test_it_takes_as_many_requests_whatever_the_number(workers: int) -> None:
    cluster = submitted(training={"global_batch": 6000})
    done = scale("pets", workers, cluster)
    assert (str(done.before), str(done.job.workers), done.goes_on) == ("2", str(workers), True)
    assert cluster.requests == [
        "get Job", "list PodGroup", "patch Job", "get Job", "patch ConfigMap", "patch Job", "patch Job",
    ]  # fmt: skip


@pytest.mark.parametrize("workers", ["1..3", "1..1000", 5, "2..2"])
def test_a_range_becomes_another_one_or_a_number_in_as_many_requests(workers: Any) -> None:
    cluster = submitted(workers="2..8", shrink_after="1m", training={"global_batch": 6000})
    done = scale("pets", workers, cluster)
    assert (str(done.before), done.goes_on) == ("2..8", True)
    assert len(cluster.requests) == 7
    job, asked = job_of(cluster), asked_job(job_of(cluster))
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == asked.count.most
    assert job["spec"]["template"]["metadata"]["annotations"] == {WORKERS_ANNOTATION: str(asked.workers)}
    assert settings_of(cluster)["global_batch"] == 6000


def test_the_job_is_what_one_submitted_with_that_number_would_be() -> None:
    cluster = submitted(training={"batch_per_replica": 8})
    scale("pets", 4, cluster)
    asked = asked_job(job_of(cluster))
    first = manifests(asked)[0]
    job = job_of(cluster)
    assert str(asked.workers) == "4"
    assert {**job["spec"], "suspend": True} == first["spec"]
    assert job["spec"]["suspend"] is False
    assert job["spec"]["template"]["metadata"]["annotations"] == {WORKERS_ANNOTATION: "4"}
    assert job["metadata"]["annotations"][JOB_ANNOTATION] == first["metadata"]["annotations"][JOB_ANNOTATION]
    assert not is_cancelled(job)


def test_a_step_keeps_its_examples_and_its_learning_rate() -> None:
    cluster = submitted(training={"batch_per_replica": 8, "learning_rate_scaling": "linear"})
    before = asked_job(job_of(cluster)).training
    rate = before.scaled_learning_rate(before.effective_global_batch(2))
    scale("pets", 4, cluster)
    scale("pets", 1, cluster)
    after = asked_job(job_of(cluster)).training
    assert settings_of(cluster)["global_batch"] == after.effective_global_batch(1) == 16
    assert after.scaled_learning_rate(16) == rate


def test_a_cancelled_job_stays_cancelled_until_it_is_resumed() -> None:
    cluster = submitted()
    ending.cancel("pets", cluster)
    assert not scale("pets", 3, cluster).goes_on
    assert is_cancelled(job_of(cluster))
    ending.resume("pets", cluster)
    assert (job_of(cluster)["spec"]["suspend"], job_of(cluster)["spec"]["completions"]) == (False, 3)


def test_resume_takes_another_number_too() -> None:
    cluster = submitted()
    ending.cancel("pets", cluster)
    ending.resume("pets", cluster, workers=5)
    assert (job_of(cluster)["spec"]["suspend"], job_of(cluster)["spec"]["completions"]) == (False, 5)
    job_of(cluster)["status"] = {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": CREATED}]}
    ending.resume("pets", cluster, workers=1, training=["--epochs", "40"])
    asked = asked_job(job_of(cluster))
    assert (asked.count.most, asked.training.epochs, asked.training.global_batch) == (
        1,
        40,
        settings_of(cluster)["global_batch"],
    )


@pytest.mark.parametrize(
    ("settings", "objects", "message"),
    [
        ({"queue": "team"}, (), "--workers 1..3: a queue admits all workers of a job or none"),
        ({}, (GANG,), "--workers 1..3: Kubernetes makes PodGroups of Jobs here"),
    ],
)
def test_an_ended_job_is_still_there_where_a_range_can_not_be(
    settings: dict[str, Any], objects: tuple[Object, ...], message: str
) -> None:
    cluster = submitted(**settings)
    ended(job_of(cluster))
    cluster.objects |= {(each["kind"], each["metadata"]["name"]): each for each in objects}
    with pytest.raises((BadInput, BadSettings), match=message):
        ending.resume("pets", cluster, workers="1..3")
    assert "delete Job" not in cluster.requests


def test_the_same_number_changes_nothing() -> None:
    cluster = submitted()
    scale("pets", 2, cluster)
    assert cluster.requests == ["get Job"]


def ended(job: Object) -> None:
    job["status"] = {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": CREATED}]}


def of_an_earlier_launcher(job: Object) -> None:
    del job["spec"]["template"]["metadata"]["annotations"]


def being_deleted(job: Object) -> None:
    job["metadata"]["deletionTimestamp"] = CREATED


@pytest.mark.parametrize(
    ("settings", "change", "workers", "message"),
    [
        ({}, ended, 3, "job pets has ended: 'launcher resume pets --workers 3' starts it again"),
        ({}, being_deleted, 3, "job pets is being deleted"),
        ({"output": None}, None, 3, "job pets has no --output: what its workers save goes with their pods"),
        ({"queue": "team"}, None, 3, "job pets is admitted by the queue team with the number of workers that it has"),
        ({}, of_an_earlier_launcher, 3, "job pets was made by an earlier launcher"),
        ({"training": {"global_batch": 4}}, None, 5, "--global-batch 4: expected at least one example for each of 5"),
        ({"training": {"batch_per_replica": "auto"}}, None, 3, "the workers have found how many examples a step has"),
        ({}, None, "1..3", "job pets was made for a number of workers, and Kubernetes keeps it to that: delete it and"),
        ({}, None, "3..1", "--workers 3..1: expected numbers from 1 to 2147483647, the smaller first"),
        (
            {"queue": "team"},
            None,
            "1..3",
            "--workers 1..3: a queue admits all workers of a job or none: expected a number",
        ),
        ({}, None, 0, "--workers 0: expected a number from 1 to 2147483647"),
    ],
)
def test_what_can_not_be_is_refused_and_the_job_trains_on(
    settings: Any, change: Any, workers: Any, message: str
) -> None:
    cluster = submitted(**settings)
    if change:
        change(job_of(cluster))
    with pytest.raises((BadInput, BadSettings), match=message):
        scale("pets", workers, cluster)
    assert not [request for request in cluster.requests if not request.startswith("get ")]


def test_a_refusal_of_the_server_lets_the_job_go_on_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = submitted()

    def refuse(request: str) -> None:
        if request == "patch ConfigMap":
            raise ApiError(403, "Forbidden", "may not patch configmaps")

    cluster.before = refuse
    with pytest.raises(ApiError, match="may not patch configmaps"):
        scale("pets", 3, cluster)
    assert (job_of(cluster)["spec"]["suspend"], job_of(cluster)["spec"]["completions"]) == (False, 2)
    assert not is_cancelled(job_of(cluster))


def test_workers_that_do_not_end_are_told_and_the_job_stays_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launcher.operations.scaling._BEYOND_GRACE_SECONDS", -60.0)
    cluster = submitted(grace="60s")
    job_of(cluster)["status"] = {"terminating": 2}
    with pytest.raises(TimedOut, match="job pets is cancelled, but 2 of its pods are still there after 0 s"):
        scale("pets", 3, cluster)
    assert is_cancelled(job_of(cluster))


def test_the_command_says_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = submitted()
    monkeypatch.setattr(Cluster, "connect", lambda *_, **__: cluster)
    done = CliRunner().invoke(main, ["scale", "pets", "--workers", "3"])
    assert done.stderr == "job pets: its 2 worker(s) save and end\n"
    place = cluster.place
    assert done.stdout.startswith(f"job pets goes on in {place} with 3 worker(s) instead of 2; a step keeps its ")
    again = CliRunner().invoke(main, ["scale", "pets", "--workers", "3"])
    assert (again.exit_code, again.stdout) == (0, f"job pets in {place} has 3 worker(s) already\n")


IS_A_GANG = "job pets is placed as a gang of 2, whose number can't be changed: delete it and submit it again"


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_gang_is_refused_before_it_is_stopped_and_while_it_has_no_pods(cancelled: bool) -> None:
    cluster = submitted()
    if cancelled:
        ending.cancel("pets", cluster)
    group = bare("PodGroup", "pets-1-2")
    group["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "pets", "uid": job_of(cluster)["metadata"]["uid"]}]
    cluster.objects["PodGroup", "pets-1-2"] = group
    cluster.requests.clear()
    with pytest.raises(BadInput, match=IS_A_GANG):
        scale("pets", 3, cluster)
    assert cluster.requests == ["get Job", "list PodGroup"]


def test_a_gang_is_known_by_its_pods_where_its_podgroup_may_not_be_seen() -> None:
    cluster = submitted()
    pod = worker_pod(0)
    pod["spec"]["schedulingGroup"] = {"podGroupName": "pets-1-2"}
    cluster.objects["Pod", "pets-0-abcde"] = pod

    def before(request: str) -> None:
        if request == "list PodGroup":
            raise ApiError(403, "Forbidden", "podgroups.scheduling.k8s.io is forbidden")

    cluster.before = before
    with pytest.raises(BadInput, match=IS_A_GANG):
        scale("pets", 3, cluster)


@pytest.mark.parametrize("scheduler", ["volcano", "kai-scheduler"])
def test_a_gang_of_another_scheduler_is_refused(scheduler: str) -> None:
    cluster = submitted(scheduler_name=scheduler)
    with pytest.raises(BadInput, match=IS_A_GANG):
        scale("pets", 3, cluster)


def test_a_cluster_without_gangs_has_none() -> None:
    cluster = submitted()

    def before(request: str) -> None:
        if request == "list PodGroup":
            raise NotFound("the server has no podgroups")

    cluster.before = before
    assert scale("pets", 3, cluster).goes_on


def test_a_batch_that_is_named_takes_the_place_of_the_one_that_was_kept() -> None:
    cluster = submitted(training={"batch_per_replica": 4})
    scale("pets", 4, cluster)
    ended(job_of(cluster))
    ending.resume("pets", cluster, workers=3, training=["--batch-per-replica", "16"])
    asked = asked_job(job_of(cluster))
    assert asked.training.effective_global_batch(3) == 48
