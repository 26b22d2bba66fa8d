"""submit, status, list, logs, wait, cancel, resume and delete on a real API server with real pods."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.cluster.kubernetes_api import ApiError, Cluster
from launcher.job.labels import instance
from launcher.job.manifests import base_folder, manifests
from launcher.job.rendering import render
from launcher.job.training_job import TrainingJob
from launcher.operations import ending, submission, submitted
from launcher.operations import following as operations
from launcher.operations.logs import logs
from launcher.operations.pod_log import LogRequest
from launcher.operations.scaling import scale
from maskfleet.errors import BadInput, MaskfleetError, NotFound, TimedOut
from tests.cluster.conftest import Scripted, until
from tests.cluster.counting import Counting
from tests.unit.launcher.job.test_manifests import CASES
from tests.unit.launcher.job.test_manifests import job as golden_job

FOREVER = "time.sleep(3600)"


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
def test_submit_takes_ten_requests_whatever_the_number_of_workers(workers: int, cluster: Cluster) -> None:
    counting = Counting.connect(cluster.namespace)
    # More than any node has, so that nothing starts.
    submission.submit(TrainingJob(name="job", workers=workers, cpu="10k"), counting)
    assert counting.sent == 10  # 8 objects, the release, and what is known of NetworkPolicies here


def test_a_folder_of_the_node_costs_no_request_where_it_is_allowed(open_cluster: Cluster) -> None:
    counting = Counting.connect(open_cluster.namespace)
    submission.submit(TrainingJob(name="job", cpu="10k", data="host:/srv", output="host:/srv"), counting)
    assert counting.sent == 9


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
        if body["kind"] == "Secret":
            assert len(body.pop("stringData")["token"]) == 64  # what render must not know
    text = render(asked)
    assert created == list(yaml.safe_load_all(text))
    released = [json.dumps(body) for method, body in recording.bodies if method == "PATCH"]
    assert released == ([] if asked.queue else ['{"spec": {"suspend": false}}'])
    assert all(f"kubectl patch job pets --type merge --patch '{patch}'" in text for patch in released)


@pytest.mark.parametrize("requests", range(9))
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


def test_a_job_goes_on_with_another_number_of_workers_and_stays_stopped_if_it_was(
    open_cluster: Cluster, scripted: Scripted, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    count = "print('of', os.environ['MASKFLEET_WORKERS'], flush=True); " + FOREVER
    submission.submit(scripted(count, workers=2, output=f"host:{tmp_path}"), open_cluster)
    until("job", open_cluster, lambda now: all(worker.phase == "Running" for worker in now.workers))
    for workers in (3, 1):
        assert scale("job", workers, open_cluster).goes_on
        now = until("job", open_cluster, lambda now: all(worker.phase == "Running" for worker in now.workers))
        assert len(now.workers) == workers
        deadline = time.monotonic() + 60
        while f"of {workers}" not in [line.text for line in logs("job", open_cluster, LogRequest())]:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    ending.cancel("job", open_cluster)
    assert not scale("job", 2, open_cluster).goes_on
    assert until("job", open_cluster, lambda now: now.phase == "Cancelled" and len(now.workers) == 2)
    assert ending.resume("job", open_cluster, workers=1)
    now = until("job", open_cluster, lambda now: all(worker.phase == "Running" for worker in now.workers))
    assert len(now.workers) == 1


HOLD = "example.com/hold"


def test_a_job_that_is_being_deleted_is_told_as_such_with_what_holds_it(cluster: Cluster, scripted: Scripted) -> None:
    submission.submit(scripted(FOREVER), cluster)
    until("job", cluster, lambda now: now.workers[0].phase == "Running")
    cluster.patch("Job", "job", {"metadata": {"finalizers": [HOLD]}})
    said: list[str] = []
    with pytest.raises(
        TimedOut, match=f"its Job is still there after 20 s: it waits for the finalizer {HOLD} of Job job"
    ):
        ending.delete("job", cluster, timeout=20, report_line=said.append)
    assert any(HOLD in line for line in said)
    now = operations.status("job", cluster)
    assert (now.phase, now.workers[0].phase) == ("Deleting", "Stopped")
    assert f"is being deleted: waits for the finalizer {HOLD} of Job job" in now.reason
    for verb in (ending.cancel, ending.resume):
        with pytest.raises(BadInput, match="job job is being deleted"):
            verb("job", cluster)
    cluster.patch("Job", "job", {"metadata": {"finalizers": []}})
    await_none(cluster, "Job")


def suspend(cluster: Cluster, manager: str) -> None:
    """As another program than the launcher does."""
    change = {"spec": {"suspend": True}}
    path, query = cluster._path("Job", "job"), {"fieldManager": manager}
    cluster._json("PATCH", path, query, change, "application/merge-patch+json")


def test_a_job_that_another_has_suspended_goes_on_by_resume(cluster: Cluster, scripted: Scripted) -> None:
    submission.submit(scripted(FOREVER), cluster)
    until("job", cluster, lambda now: now.workers[0].phase == "Running")
    suspend(cluster, "kubectl-patch")
    suspended = until("job", cluster, lambda now: now.phase == "Suspended" and now.workers[0].pod is None)
    assert suspended.reason == "suspended by kubectl-patch; 'launcher resume job' goes on"
    assert suspended.workers[0].reason == "waits for the job to be released"
    ending.resume("job", cluster)
    until("job", cluster, lambda now: now.workers[0].phase == "Running")
    ending.cancel("job", cluster)
    cancelled = until("job", cluster, lambda now: now.phase == "Cancelled" and now.workers[0].pod is None)
    assert cancelled.workers[0].reason == "its pod is gone: the job is cancelled"


class WithoutRelease(Cluster):
    def patch(self, kind: str, name: str, change: Any) -> Any:
        raise ApiError(403, "Forbidden", f"may not patch {kind}")


def test_a_release_that_is_refused_leaves_nothing_behind(cluster: Cluster) -> None:
    with pytest.raises(ApiError, match="may not patch Job"):
        submission.submit(TrainingJob(name="job", cpu="10k"), WithoutRelease.connect(cluster.namespace))
    for kind in ("Job", "ConfigMap", "Role", "RoleBinding", "Pod"):
        await_none(cluster, kind)


def test_what_kubectl_has_applied_is_deleted_with_all_its_objects(cluster: Cluster) -> None:
    made = [yaml.safe_load(file.read_text()) for file in base_folder().glob("*.yaml")]
    made = [each for each in made if each["kind"] != "Kustomization"]
    for manifest in made:
        cluster.create(manifest)
    assert operations.status("maskfleet", cluster).name == "maskfleet"
    started = time.monotonic()
    ending.delete("maskfleet", cluster)
    assert time.monotonic() - started < 100
    for manifest in made:
        await_none(cluster, manifest["kind"])


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
    assert (deleted.returncode, deleted.stdout.startswith("job job is deleted in namespace ")) == (0, True)
    missing = launcher(cluster, "status", "job")
    assert missing.returncode == 3
    assert (
        missing.stderr == f"error: there is no job job in namespace {cluster.namespace}; 'launcher list' shows them\n"
    )


def test_several_jobs_are_deleted_by_one_command(cluster: Cluster) -> None:
    for name in ("a", "b"):
        submission.submit(TrainingJob(name=name, cpu="10k"), cluster)
    done = launcher(cluster, "delete", "a", "missing", "b", "--yes")
    assert [line[:16] for line in done.stdout.splitlines()] == ["job a is deleted", "job b is deleted"]
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert f"there is no job missing in namespace {cluster.namespace}" in done.stderr
    assert operations.list_jobs(cluster) == []


def test_commands_run_in_the_pods_of_workers(cluster: Cluster, scripted: Scripted) -> None:
    submission.submit(scripted(FOREVER, workers=2), cluster)
    until("job", cluster, lambda now: all(worker.phase == "Running" for worker in now.workers))

    def run(*arguments: str, sent: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        full = [sys.executable, "-m", "launcher.cli", "exec", "-n", cluster.namespace, *arguments]
        return subprocess.run(full, input=sent, capture_output=True, timeout=60, check=False)

    done = run("job", "--worker", "1", "--", "sh", "-c", "hostname; echo oops >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"job-1\n", b"oops\n")
    much = os.urandom(1 << 20) * 8
    copied = run("job", "--", "cat", sent=much)
    assert (copied.returncode, copied.stdout == much) == (0, True), copied.stderr
    enough = run("job", "--", "head", "-c", "3", sent=much[:80_000])
    assert (enough.returncode, enough.stdout) == (0, much[:3])
    beside = run("job", "--container", "streamer", "--", "cat", "/proc/1/cmdline")
    assert b"sidecar" in beside.stdout
    missing = run("job", "--", "no-such-program")
    assert (missing.returncode != 0, missing.stderr.count(b"\n")) == (True, 1)
    assert b"no-such-program" in missing.stderr
    screen, theirs = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    before = termios.tcgetattr(theirs)
    full = [sys.executable, "-m", "launcher.cli", "exec", "-n", cluster.namespace, "job", "--", "sh", "-c",
            "sleep 1; stty size; read key; exit 5"]  # fmt: skip
    with subprocess.Popen(full, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        try:
            shown = b""
            while b"30 100" not in shown:
                shown += os.read(screen, 1 << 16)
            os.write(screen, b"k\r")
            assert process.wait(30) == 5
        finally:
            process.kill()
    assert termios.tcgetattr(theirs) == before
    os.close(screen)
    os.close(theirs)
    ending.cancel("job", cluster)
    until("job", cluster, lambda now: now.phase == "Cancelled" and not any(worker.pod for worker in now.workers))
    gone = run("job", "--", "true")
    assert (gone.returncode, gone.stderr.startswith(b"error: the trainer of worker 0 of job job does not run")) == (
        1,
        True,
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
