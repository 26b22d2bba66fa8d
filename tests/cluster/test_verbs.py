"""submit, status, list, logs, wait, cancel, resume and delete on a real API server with real pods."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.cluster.kubernetes_api import ApiError, Cluster
from launcher.job.labels import instance
from launcher.job.manifests import manifests
from launcher.job.rendering import render
from launcher.job.training_job import TrainingJob
from launcher.operations import ending, submission, submitted
from launcher.operations import following as operations
from launcher.operations.logs import LogRequest, logs
from maskfleet.errors import BadInput, MaskfleetError, NotFound, TimedOut
from tests.cluster.conftest import Scripted, until
from tests.unit.launcher.job.test_manifests import CASES
from tests.unit.launcher.job.test_manifests import job as golden_job

FOREVER = "time.sleep(3600)"


class Counting(Cluster):
    """Counts the requests and keeps what they say, and gives up before one if told so."""

    sent = 0
    allowed = 1 << 30

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.bodies: list[tuple[str, Any]] = []

    def _send(self, *arguments, **keywords):  # type: ignore[no-untyped-def]
        if self.sent >= self.allowed:
            raise KeyboardInterrupt
        self.sent += 1
        method, _, _, *body = arguments
        self.bodies += [(method, each) for each in body[:1] if each is not None]
        return super()._send(*arguments, **keywords)


def launcher(cluster: Cluster, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command that is for a cluster, as it is typed."""
    full = [sys.executable, "-m", "launcher.cli", command, "-n", cluster.namespace, *arguments]
    return subprocess.run(full, capture_output=True, text=True, check=False)


def test_a_job_of_two_workers_runs_to_its_end(cluster: Cluster, scripted: Scripted) -> None:
    submission.submit(scripted("print('hello from', worker)", workers=2), cluster)
    end = operations.wait("job", cluster, timeout=120)
    assert (end.phase, end.exit_code) == ("Succeeded", 0)
    assert [worker.phase for worker in end.workers] == ["Succeeded"] * 2
    printed = list(logs("job", cluster, LogRequest()))
    assert {(line.worker, line.text) for line in printed} == {(0, "hello from 0"), (1, "hello from 1")}
    assert [job.name for job in operations.list_jobs(cluster)] == ["job"]


@pytest.mark.parametrize("workers", [4, 400])
def test_submit_takes_eight_requests_whatever_the_number_of_workers(workers: int, cluster: Cluster) -> None:
    counting = Counting.connect(cluster.namespace)
    # More than any node has, so that nothing starts.
    submission.submit(TrainingJob(name="job", workers=workers, cpu="10k"), counting)
    assert counting.sent == 8


def test_a_folder_of_the_node_costs_no_request_where_it_is_allowed(open_cluster: Cluster) -> None:
    counting = Counting.connect(open_cluster.namespace)
    submission.submit(TrainingJob(name="job", cpu="10k", data="host:/srv", output="host:/srv"), counting)
    assert counting.sent == 8


@pytest.mark.parametrize("case", CASES)
def test_the_server_would_take_what_render_prints_and_submit_sends_the_same(case: str, cluster: Cluster) -> None:
    asked = golden_job(case)
    assert submission.submit(asked, cluster, dry_run=True).new
    assert operations.list_jobs(cluster) == []

    recording = Counting.connect(cluster.namespace)
    submission.submit(asked, recording)
    created = [body for method, body in recording.bodies if method == "POST"]
    for body in created[1:]:
        (owner,) = body["metadata"].pop("ownerReferences")  # what render can't know
        assert (owner["kind"], owner["name"]) == ("Job", "pets")
    text = render(asked)
    assert created == list(yaml.safe_load_all(text))
    released = [json.dumps(body) for method, body in recording.bodies if method == "PATCH"]
    assert released == ([] if asked.queue else ['{"spec": {"suspend": false}}'])
    assert all(f"kubectl patch job pets --type merge --patch '{patch}'" in text for patch in released)


@pytest.mark.parametrize("requests", range(8))
def test_an_interrupted_submit_is_finished_by_the_next(requests: int, cluster: Cluster) -> None:
    job = TrainingJob(name="job", cpu="10k")
    interrupted = Counting.connect(cluster.namespace)
    interrupted.allowed = requests
    with pytest.raises(KeyboardInterrupt):
        submission.submit(job, interrupted)
    submission.submit(job, cluster)
    made = cluster.get("Job", "job")
    assert made["spec"]["suspend"] is False
    for manifest in manifests(job)[1:]:
        owners = cluster.get(manifest["kind"], "job")["metadata"]["ownerReferences"]
        assert [owner["uid"] for owner in owners] == [made["metadata"]["uid"]]
    assert submission.submit(job, cluster).new is False


def test_another_job_of_the_same_name_is_refused_with_the_difference(cluster: Cluster) -> None:
    submission.submit(TrainingJob(name="job", cpu="10k"), cluster)
    with pytest.raises(BadInput, match="--name job: a job of this name exists with --workers 1, not 2"):
        submission.submit(TrainingJob(name="job", cpu="10k", workers=2), cluster)


def test_a_refused_submit_leaves_nothing_behind(cluster: Cluster) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"services": "0"}},
    }
    cluster.create(quota)
    with pytest.raises(ApiError, match="exceeded quota"):
        until_refused(cluster)
    for kind in ("Job", "ConfigMap", "Secret", "Role", "RoleBinding", "Pod"):
        await_none(cluster, kind)


def until_refused(cluster: Cluster) -> None:
    """Submits until the quota is in force, which takes the API server a moment."""
    for _ in range(20):
        submission.submit(TrainingJob(name="job", cpu="10k"), cluster)
        ending.delete("job", cluster)


def await_none(cluster: Cluster, kind: str) -> None:
    for _ in range(100):
        if not cluster.list(kind, labels="app.kubernetes.io/name=maskfleet"):
            return
    raise AssertionError(f"{kind} left behind")


def test_delete_leaves_nothing_behind(cluster: Cluster, scripted: Scripted) -> None:
    job = scripted(FOREVER)
    submission.submit(job, cluster)
    until("job", cluster, lambda now: now.workers[0].phase == "Running")
    ending.delete("job", cluster)
    for manifest in manifests(job):
        await_none(cluster, manifest["kind"])
    assert not cluster.list("Pod", labels=instance("job"))
    with pytest.raises(NotFound, match="there is no job job"):
        operations.status("job", cluster)


def test_a_deleted_name_can_be_used_again_at_once(cluster: Cluster) -> None:
    for workers in (1, 2, 3):
        submission.submit(TrainingJob(name="job", cpu="10k", workers=workers), cluster)
        ending.delete("job", cluster)


def test_cancel_keeps_the_job_and_resume_goes_on(cluster: Cluster, scripted: Scripted) -> None:
    submission.submit(scripted(FOREVER), cluster)
    until("job", cluster, lambda now: now.workers[0].phase == "Running")
    ending.cancel("job", cluster)
    cancelled = until("job", cluster, lambda now: now.phase == "Cancelled")
    assert "launcher resume job" in cancelled.reason
    ending.resume("job", cluster)
    until("job", cluster, lambda now: now.workers[0].phase == "Running")
    with pytest.raises(BadInput, match="has not ended: there is nothing to resume"):
        ending.resume("job", cluster)


def test_an_ended_job_is_started_again_with_other_settings(cluster: Cluster, scripted: Scripted) -> None:
    submission.submit(scripted("sys.exit(2)"), cluster)
    assert operations.wait("job", cluster, timeout=60).phase == "Failed"
    ending.resume("job", cluster, training=["--epochs", "40"])
    assert submitted.asked_job(cluster.get("Job", "job")).training.epochs == 40


def test_wait_gives_up_in_time_with_its_own_exit_code(cluster: Cluster) -> None:
    submission.submit(TrainingJob(name="job", cpu="10k"), cluster)
    with pytest.raises(TimedOut, match="job job has not ended after 2 s; it is Pending: no node can take it") as error:
        operations.wait("job", cluster, timeout=2)
    assert error.value.exit_code == 124


def test_the_server_checks_a_dry_run_and_keeps_nothing(cluster: Cluster) -> None:
    submission.submit(TrainingJob(name="job", workers=3, output="pvc:claim/runs"), cluster, dry_run=True)
    assert operations.list_jobs(cluster) == []


def test_the_server_s_check_is_as_strict_and_as_idempotent_as_submit(cluster: Cluster) -> None:
    with pytest.raises(BadInput, match=r"Pod Security restricted:latest refuses .*instead of host:"):
        submission.submit(TrainingJob(name="job", data="host:/srv"), cluster, dry_run=True)
    job = TrainingJob(name="job", cpu="10k")
    submission.submit(job, cluster)
    assert submission.submit(job, cluster, dry_run=True).new is False
    with pytest.raises(BadInput, match="a job of this name exists with --workers 1, not 2"):
        submission.submit(TrainingJob(name="job", cpu="10k", workers=2), cluster, dry_run=True)


UNTIL_STOPPED = """
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print('up', flush=True)
time.sleep(3600)
"""


def test_a_job_is_checked_submitted_followed_cancelled_and_resumed_by_the_command_line(
    cluster: Cluster, scripted: Scripted, tmp_path: Path
) -> None:
    flags = ("--name", "job", "--image", scripted("").image, "--cpu", "50m", "--memory", "256Mi", "--grace", "10s",
             "--env", f"SCRIPT={UNTIL_STOPPED}")  # fmt: skip
    rendered = subprocess.run(
        [sys.executable, "-m", "launcher.cli", "render", *flags, "--job"], capture_output=True, text=True, check=True
    )
    file = tmp_path / "job.yaml"
    file.write_text(rendered.stdout)
    submit = ("submit", "-f", str(file))
    assert "Job job: would be created" in launcher(cluster, *submit, "--dry-run", "client").stdout
    assert launcher(cluster, *submit, "--dry-run", "server").stdout == "job job: the server would take it\n"
    assert launcher(cluster, "list").stderr == f"no jobs in namespace {cluster.namespace}\n"

    command = [sys.executable, "-m", "launcher.cli", submit[0], "-n", cluster.namespace, *submit[1:], "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        try:
            until("job", cluster, lambda now: now.workers[0].phase == "Running")
            cancelled = launcher(cluster, "cancel", "job")
            assert cancelled.returncode == 0, cancelled.stderr
            assert "note: without --output its logs and checkpoints go with its pods" in cancelled.stderr
            output, errors = following.communicate(timeout=60)
        finally:
            following.kill()
    assert following.returncode == 1, errors
    assert "worker-0 | up" in output.splitlines()
    assert "job: Cancelled – cancelled at" in errors
    assert launcher(cluster, "wait", "job").returncode == 1

    shown = yaml.safe_load(launcher(cluster, "status", "job", "-o", "yaml").stdout)
    assert (shown["name"], shown["phase"]) == ("job", "Cancelled")
    wide = [line.split() for line in launcher(cluster, "status", "job", "-o", "wide").stdout.splitlines()]
    assert ["WORKER", "PHASE", "ATTEMPT", "NODE", "POD", "REASON"] in wide
    assert yaml.safe_load(launcher(cluster, "list", "-o", "yaml").stdout)[0]["phase"] == "Cancelled"
    assert launcher(cluster, "list", "-o", "wide").stdout.splitlines()[0].split()[-2:] == ["PROGRESS", "REASON"]

    again = launcher(cluster, *submit, "--dry-run", "server")
    assert again.returncode == 2
    assert "this job is cancelled: 'launcher resume job' goes on with it" in again.stderr
    resumed = launcher(cluster, "resume", "job")
    assert (resumed.returncode, resumed.stdout) == (0, f"job job goes on in {cluster.place}\n")
    running = until("job", cluster, lambda now: now.workers[0].phase == "Running")
    assert str(running.workers[0].pod) in launcher(cluster, "status", "job", "-o", "wide").stdout
    told = launcher(cluster, *submit, "--dry-run", "server").stdout
    assert told == "job job: is there already; submit would change no setting of it\n"


def test_the_command_line_tells_all_this_too(cluster: Cluster, scripted: Scripted) -> None:
    image = scripted("").image
    submitted = launcher(
        cluster, "submit", "--name", "job", "--image", image, "--cpu", "50m", "--memory", "256Mi", "--workers", "2",
        "--env", "SCRIPT=print('done', worker)", "--wait", "--", "--epochs", "3",
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    assert "without --output the run lives in its chief's pod" in submitted.stderr
    assert json.loads(launcher(cluster, "status", "job", "-o", "json").stdout)["phase"] == "Succeeded"
    assert "worker-1 | done 1" in launcher(cluster, "logs", "job").stdout
    assert launcher(cluster, "logs", "-f", "job", "--worker", "0").stdout == "worker-0 | done 0\n"
    assert launcher(cluster, "wait", "job").returncode == 0
    assert "job" in launcher(cluster, "list").stdout
    assert "Completed" in launcher(cluster, "describe", "job").stdout
    deleted = launcher(cluster, "delete", "job", "--yes")
    assert (deleted.returncode, deleted.stdout) == (0, "job job is deleted\n")
    missing = launcher(cluster, "status", "job")
    assert missing.returncode == 3
    assert (
        missing.stderr == f"error: there is no job job in namespace {cluster.namespace}; 'launcher list' shows them\n"
    )


def test_an_api_server_that_is_not_there_is_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    config = tmp_path / "config"
    config.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
    }))  # fmt: skip
    lost = Cluster.connect(kubeconfig=config)
    lost.patience = 0.5
    with pytest.raises(
        MaskfleetError, match=r"API server at http://127\.0\.0\.1:9 does not answer: Connection refused"
    ):
        operations.list_jobs(lost)
