"""What somebody can do who may not do everything: the job runs, what may be seen is shown, and the rest is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from launcher.cli import main
from launcher.cluster.kubernetes_api import ApiError, Cluster
from launcher.job.labels import PROGRESS_ANNOTATION, PROGRESS_JSON_ANNOTATION
from launcher.job.training_job import TrainingJob
from launcher.operations import following, logs
from launcher.operations.description import describe, describe_lines
from launcher.operations.preflight import preflight
from launcher.operations.submission import submit
from launcher.pod.job_reporter import JobReporter
from maskfleet.errors import BadInput
from maskfleet.records import Event, Progress
from maskfleet.run_directory import RunDirectory
from tests.fakes.cluster import FakeCluster, Object, worker_pod


def forbidding(*requests: str) -> Callable[[str], None]:
    def before(request: str) -> None:
        if request in requests:
            verb, kind = request.split()
            raise ApiError(403, "Forbidden", f'{kind.lower()}s is forbidden: User "u" cannot {verb} it')

    return before


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr(Cluster, "connect", lambda *arguments, **keywords: fake)
    return fake


def of(cluster: FakeCluster, kind: str) -> list[str]:
    return [name for each, name in cluster.objects if each == kind]


@pytest.mark.parametrize("forbidden", [("create Role", "create RoleBinding"), ("create RoleBinding",)])
@pytest.mark.parametrize("account", [None, "prepared"])
def test_a_job_runs_without_the_right_to_tell_its_progress(
    account: str | None, forbidden: tuple[str, ...], cluster: FakeCluster
) -> None:
    cluster.before = forbidding(*forbidden)
    job = TrainingJob(name="pets", output="gs://bucket", service_account=account)
    (note,) = submit(job, cluster).notes
    assert note.startswith("progress and events will not show on the job: role")
    assert ("if the ServiceAccount prepared may get and patch jobs" if account else "name one that may") in note
    made = cluster.objects["Job", "pets"]
    assert made["spec"]["suspend"] is False
    assert made["spec"]["template"]["spec"]["serviceAccountName"] == (account or "pets")
    assert of(cluster, "RoleBinding") == []
    assert len(of(cluster, "Service")) == len(of(cluster, "ConfigMap")) == len(of(cluster, "NetworkPolicy")) == 1
    assert following.status("pets", cluster).progress == "not told: the job's ServiceAccount may not"
    assert submit(job, cluster).notes == (note,)


def test_progress_that_is_told_all_the_same_stays(cluster: FakeCluster) -> None:
    job = TrainingJob(name="pets", service_account="prepared")
    submit(job, cluster)
    cluster.objects["Job", "pets"]["metadata"]["annotations"][PROGRESS_ANNOTATION] = "epoch 3 of 20"
    cluster.objects.pop(("Role", "pets"))
    cluster.before = forbidding("create Role")
    submit(job, cluster)
    assert following.status("pets", cluster).progress == "epoch 3 of 20"


def test_a_server_s_check_says_the_same(cluster: FakeCluster) -> None:
    cluster.before = forbidding("try Role", "try RoleBinding")
    done = submit(TrainingJob(name="pets", output="gs://bucket"), cluster, dry_run=True)
    assert done.new
    assert done.notes[0].startswith("progress and events will not show on the job: rolebindings is forbidden")


@pytest.mark.parametrize("forbidden", ["create NetworkPolicy", "create Service", "create ConfigMap"])
def test_what_a_job_needs_is_not_left_out(forbidden: str, cluster: FakeCluster) -> None:
    cluster.before = forbidding(forbidden)
    with pytest.raises(ApiError):
        submit(TrainingJob(name="pets"), cluster)
    assert of(cluster, "Job") == []


def test_who_may_make_no_account_is_told_of_a_prepared_one(cluster: FakeCluster) -> None:
    cluster.before = forbidding("create ServiceAccount")
    with pytest.raises(BadInput, match="name one that is there with --service-account"):
        submit(TrainingJob(name="pets"), cluster)
    assert cluster.objects == {}


@pytest.mark.parametrize(
    ("forbidden", "unseen"),
    [((), ()), (("list Event",), ("events",)), (("list Node",), ("nodes",)),
     (("list Event", "list Node"), ("events", "nodes"))],
)  # fmt: skip
def test_what_may_be_seen_is_shown(forbidden: tuple[str, ...], unseen: tuple[str, ...], cluster: FakeCluster) -> None:
    submit(TrainingJob(name="pets", output="gs://bucket"), cluster)
    cluster.objects["Pod", "p"] = worker_pod(0)
    cluster.before = forbidding(*forbidden)
    note = (
        f"note: you may not list {' and '.join(unseen)}: reasons that they would give are missing\n" if unseen else ""
    )
    for arguments in (("status", "pets"), ("list",)):
        shown = CliRunner().invoke(main, arguments)
        assert (shown.exit_code, shown.stderr) == (0, note)
        assert "pets" in shown.stdout
    assert following.status("pets", cluster).to_dict()["unseen"] == unseen
    described = describe("pets", cluster)
    assert (f"you may not list {', '.join(unseen)}" in describe_lines(described)) == bool(unseen)
    assert next(following.follow("pets", cluster)).unseen == unseen


def test_following_goes_on_without_events(cluster: FakeCluster) -> None:
    submit(TrainingJob(name="pets", output="gs://bucket"), cluster)

    class Blind(FakeCluster):
        def watch(self, kind: str, **how: Any) -> Any:
            if kind == "Event":
                raise ApiError(403, "Forbidden", "events is forbidden")
            yield from super().watch(kind, **how)

    blind = Blind(*cluster.objects.values())
    states = following.follow("pets", blind, seconds=0.01)
    assert [next(states).phase for _ in range(3)] == ["Pending"] * 3
    assert next(states).unseen == ("events",)


def test_logs_that_may_not_be_read_are_one_line(cluster: FakeCluster) -> None:
    submit(TrainingJob(name="pets", output="gs://bucket"), cluster)
    cluster.objects["Pod", "p"] = worker_pod(0)

    def refuse(pod: str, container: str, **query: str) -> Any:
        raise ApiError(403, "Forbidden", "pods/log is forbidden")

    cluster.log = refuse  # type: ignore[method-assign]
    with pytest.raises(ApiError, match="pods/log is forbidden"):
        list(logs.logs("pets", cluster))
    with pytest.raises(ApiError, match="pods/log is forbidden"):
        list(logs.follow_logs("pets", cluster, logs.LogRequest()))


@pytest.mark.parametrize(
    ("forbidden", "what", "detail"),
    [
        ("list Node", "room for all workers", "nodes may not be read"),
        ("list ResourceQuota", "quota", "quotas may not be read"),
        ("list LimitRange", "limits", "LimitRanges may not be listed"),
        ("get Secret", "Secret s", "may not be read"),
        ("get PersistentVolumeClaim", "PersistentVolumeClaim c", "may not be read"),
        ("list LocalQueue", "LocalQueue q", "queues may not be listed"),
        ("get PriorityClass", "PriorityClass high", "may not be read"),
        ("try Pod", "pods are admitted", "no pod may be tried"),
    ],
)
def test_a_check_that_may_not_be_made_is_unknown(forbidden: str, what: str, detail: str, cluster: FakeCluster) -> None:
    def before(request: str) -> None:
        if request == forbidden:
            raise ApiError(403, "Forbidden", "u cannot create resource")

    class Asked(FakeCluster):
        def create(self, manifest: Object, **how: Any) -> Object:
            if manifest["kind"] == "SelfSubjectAccessReview":
                return {"status": {"allowed": True}}
            return super().create(manifest, **how)

    asked = Asked()
    asked.before = before
    job = TrainingJob(name="pets", queue="q", priority="high", data="pvc:c", env_from_secret=("s",))
    found = {check.what: check for check in preflight(job, asked)}[what]
    assert (found.result, found.detail) == ("unknown", detail)


class Telling(FakeCluster):
    """Has the job, and lets a reporter do all but what ``before`` forbids."""

    def __init__(self, forbidden: str) -> None:
        super().__init__({"kind": "Job", "metadata": {"name": "pets", "uid": "0-1"}})
        self.before = forbidding(forbidden)


def test_progress_shows_without_the_right_to_make_events(tmp_path: Path) -> None:
    run, cluster = RunDirectory(tmp_path), Telling("create Event")
    Event.append(run, "start", "training starts")
    Progress("running", 3, 20, 57, 380).write(run)
    reporter = JobReporter(cluster, "pets", run)
    with pytest.raises(ApiError):
        reporter.step()
    assert PROGRESS_JSON_ANNOTATION in cluster.objects["Job", "pets"]["metadata"]["annotations"]
    reporter.step()  # what is forbidden is not asked for again at once


def test_events_show_without_the_right_to_change_the_job(tmp_path: Path) -> None:
    run, cluster = RunDirectory(tmp_path), Telling("patch Job")
    Event.append(run, "start", "training starts")
    Progress("running", 3, 20, 57, 380).write(run)
    reporter = JobReporter(cluster, "pets", run)
    with pytest.raises(ApiError):
        reporter.step()
    assert len(of(cluster, "Event")) == 1
    Event.append(run, "end", "training is complete")
    reporter.step()
    assert len(of(cluster, "Event")) == 2
