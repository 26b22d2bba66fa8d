"""preflight: what would keep a job from starting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from launcher.cluster.kubernetes_api import Cluster
from launcher.cluster.resources import resource_of
from launcher.job.training_job import TrainingJob
from launcher.operations import ending, submission
from launcher.operations import following as operations
from launcher.operations.preflight import Check, needed, preflight
from tests.helpers.processes import until


def job(*flags: str) -> TrainingJob:
    return TrainingJob.from_sources(None, TrainingJob.parse_flags(["--name", "job", "--cpu", "100m", *flags]))


def results(checks: list[Check]) -> dict[str, str]:
    return {check.what: check.result for check in checks}


def test_a_job_that_would_start(cluster: Cluster) -> None:
    checks = preflight(job(), cluster)
    assert set(results(checks).values()) == {"ok"}, checks
    assert operations.list_jobs(cluster) == []


@pytest.mark.parametrize(
    ("flags", "what", "detail"),
    [
        (["--workers", "1000"], "room for all workers", "of 1000 worker(s) now"),
        (["--gpus-per-worker", "1"], "room for all workers", "room for 0 of 1 worker(s) now"),
        (["--node-selector", "a=b"], "room for all workers", "nodes lack the label a=b"),
        (["--image-pull-secret", "registry"], "Secret registry", "is missing"),
        (["--env-from-secret", "KEY=store/key"], "Secret store", "is missing"),
        (["--data", "pvc:pets"], "PersistentVolumeClaim pets", "is missing"),
        (["--data", "host:/srv"], "pods are admitted", "Pod Security restricted:latest refuses its pods"),
        (["--priority", "high"], "pods are admitted", "PriorityClass high is missing"),
        (["--output", "s3://no-such-bucket/runs"], "--output s3://no-such-bucket/runs", ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_would_keep_a_job_from_starting(
    flags: list[str], what: str, detail: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody is
    check = next(check for check in preflight(job(*flags), cluster) if check.what == what)
    assert check.result == "no"
    assert detail in check.detail


def test_whether_policies_are_enforced_is_tried_and_nothing_is_left(cluster: Cluster, scripted_image: str) -> None:
    asked = job("--workers", "2", "--image", scripted_image, "--image-pull-policy", "Never")
    assert results(preflight(asked, cluster))["NetworkPolicy"] == "unknown"
    found = results(preflight(asked, cluster, try_network=True))["NetworkPolicy"]
    assert found in ("ok", "warning")
    assert results(preflight(asked, cluster))["NetworkPolicy"] == found
    for kind in ("Pod", "NetworkPolicy"):
        until(lambda kind=kind: not cluster.list(kind), f"no {kind}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_try_that_is_ended_leaves_nothing(number: signal.Signals, cluster: Cluster, scripted_image: str) -> None:
    command = [sys.executable, "-m", "launcher.cli", "preflight", "-n", cluster.namespace, "--workers", "2", "--image",
               scripted_image, "--image-pull-policy", "Never", "--cpu", "100m", "--try-network"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(lambda: cluster.list("NetworkPolicy"), "a policy")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    for kind in ("Pod", "NetworkPolicy"):
        until(lambda kind=kind: not cluster.list(kind), f"no {kind}")


def as_service_account(name: str, cluster: Cluster, folder: Path) -> Cluster:
    """The cluster as a new ServiceAccount sees it, which may do nothing of its own."""
    cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    made = cluster._json("POST", cluster._path("ServiceAccount", name) + "/token", {}, request)
    admin = Path(os.environ["KUBECONFIG"].split(os.pathsep)[0])
    config = yaml.safe_load(admin.read_text())
    context = next(each for each in config["contexts"] if each["name"] == config["current-context"])
    context["context"]["user"] = name
    config["users"] = [{"name": name, "user": {"token": made["status"]["token"]}}]
    for each in config["clusters"]:
        if authority := each["cluster"].get("certificate-authority"):
            each["cluster"]["certificate-authority"] = str(admin.parent / authority)
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return Cluster.connect(cluster.namespace, kubeconfig=file)


def allow(name: str, cluster: Cluster, pairs: list[tuple[str, str]]) -> None:
    """Gives a ServiceAccount these verbs on these kinds."""
    rules = []
    for verb, kind in pairs:
        group, resource, subresource = resource_of(kind)
        named = f"{resource}/{subresource}" if subresource else resource
        rules.append({"apiGroups": [group], "resources": [named], "verbs": [verb]})
    api = "rbac.authorization.k8s.io"
    metadata = {"name": name}
    cluster.create({"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": rules})
    cluster.create(
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": cluster.namespace}],
        }
    )


def test_who_may_do_nothing_is_told_every_permission_that_is_missing(cluster: Cluster, tmp_path: Path) -> None:
    nobody = as_service_account("nobody", cluster, tmp_path)
    found = {check.what: check for check in preflight(job(), nobody)}
    denied = found["permissions"].detail.removeprefix("may not ").split(", ")
    assert found["permissions"].result == "no"
    assert len(denied) == len(needed(job()))
    assert {"create jobs", "watch jobs", "watch pods", "get pods/log", "list events", "create roles"} <= set(denied)
    assert found["job is admitted"].result == "no"
    assert found["pods are admitted"].result == "unknown"
    assert found["room for all workers"] == Check("room for all workers", "unknown", "nodes may not be read")
    assert found["quota"].result == "unknown"


def test_a_single_permission_that_is_missing_is_named(cluster: Cluster, tmp_path: Path) -> None:
    user = as_service_account("user", cluster, tmp_path)
    allow("user", cluster, [pair for pair in needed(job()) if pair != ("watch", "Job")])
    deadline = time.monotonic() + 30
    while True:  # until the rights are in force, which takes the API server a moment
        found = {check.what: check for check in preflight(job(), user)}
        if found["permissions"].detail == "may not watch jobs":
            break
        assert time.monotonic() < deadline, found["permissions"]
        time.sleep(0.5)
    assert found["permissions"].result == "no"
    assert found["job is admitted"].result == "ok"


def bind(name: str, cluster: Cluster, cluster_role: str) -> None:
    """Gives a ServiceAccount one of the roles that every cluster has."""
    api = "rbac.authorization.k8s.io"
    cluster.create(
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": cluster_role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": cluster.namespace}],
        }
    )


@pytest.mark.parametrize("account", [None, "prepared"])
def test_who_may_edit_may_submit(account: str | None, cluster: Cluster, tmp_path: Path) -> None:
    if account:
        cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
    editor = as_service_account("editor", cluster, tmp_path).patient(20)
    bind("editor", cluster, "edit")
    asked = job(*(["--service-account", account] if account else []))
    deadline = time.monotonic() + 30
    while (checked := results(preflight(asked, editor)))["permissions"] == "no":  # until the rights are in force
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert {result for what, result in checked.items() if what != "room for all workers"} == {"ok"}
    for _ in range(2):  # the same again finds what is there
        done = submission.submit(asked, editor)
        (note,) = [note for note in done.notes if note.startswith("progress and events will not show on the job: ")]
        assert (f"the ServiceAccount {account} may" if account else "--service-account") in note
    assert cluster.list("Role") == []
    made = cluster.get("Job", "job")
    assert made["spec"]["suspend"] is False
    assert made["spec"]["template"]["spec"]["serviceAccountName"] == (account or "job")
    now = operations.status("job", editor)
    assert now.progress == "not told: the job's ServiceAccount may not"
    assert now.unseen == ("nodes",)
    ending.cancel("job", editor)
    ending.delete("job", editor)


def test_a_claim_of_a_class_that_is_not_there(cluster: Cluster) -> None:
    spec = {"storageClassName": "none", "accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "pets"}, "spec": spec}
    cluster.create(claim)
    found = {check.what: check for check in preflight(job("--data", "pvc:pets"), cluster)}
    check = found["PersistentVolumeClaim pets"]
    assert (check.result, check.detail.split(",")[0]) == ("no", "waits for StorageClass none")


def test_a_queue_without_kueue(cluster: Cluster) -> None:
    found = {check.what: check for check in preflight(job("--queue", "team"), cluster)}
    assert found["LocalQueue team"].result == "no"
    assert found["LocalQueue team"].detail.startswith("Kueue is not installed")


def test_what_a_limit_range_refuses_is_mended_by_the_streamer_s_flags(cluster: Cluster) -> None:
    spec = {"limits": [{"type": "Container", "max": {"cpu": "500m", "memory": "512Mi"}}]}
    cluster.create({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "tight"}, "spec": spec})
    small = ["--memory", "256Mi"]
    found = {check.what: check for check in preflight(job(*small), cluster)}
    assert found["pods are admitted"].result == found["limits tight"].result == "no"
    assert found["limits tight"].detail.endswith("--streamer-memory")
    found = {
        check.what: check
        for check in preflight(job(*small, "--streamer-cpu", "100m", "--streamer-memory", "256Mi"), cluster)
    }
    assert found["pods are admitted"].result == found["limits tight"].result == "ok"


def test_the_command_says_no_by_its_exit_code(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "launcher.cli", "preflight", "-n", cluster.namespace, "-o", "json"]
    done = subprocess.run([*command, "--gpus-per-worker", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert {"what", "result", "detail"} == set(json.loads(done.stdout)[0])
