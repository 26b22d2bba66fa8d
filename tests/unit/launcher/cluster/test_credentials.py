"""Credentials that end in the middle, plugins that fail, and what a pod has of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.cluster import credentials, kubeconfig
from launcher.cluster.kubernetes_api import ApiError, Cluster
from launcher.cluster.watched import Watched
from maskfleet.errors import BadInput
from tests.fakes.cluster import CREATED, bare, worker_pod
from tests.fakes.http import Answer, HttpFake, Request
from tests.helpers.tls_front import certificate

V1 = "client.authentication.k8s.io/v1"
CHANGE = json.dumps({"type": "MODIFIED", "object": bare("Job", "pets")}).encode() + b"\n"


class ApiServer(HttpFake):
    """Believes the token ``believed`` alone; every watch ends after a change."""

    believed = "1"

    def perform(self, request: Request, *, whole: bool) -> Answer:
        if request.headers.get("authorization") != f"Bearer {self.believed}":
            return Answer.of({"kind": "Status", "reason": "Unauthorized", "message": "Unauthorized"}, 401)
        if "watch" in request.query:
            return Answer(200, [CHANGE], len(CHANGE))
        return Answer.of({"kind": "JobList", "metadata": {"resourceVersion": "1"}, "items": [bare("Job", "pets")]})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    (tmp_path / "tls").mkdir()
    context, _ = certificate(tmp_path / "tls")
    with ApiServer("127.0.0.1", 0, context) as running:
        yield running


def connected(folder: Path, server: ApiServer, **user: Any) -> Cluster:
    content = {
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": server.url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    (folder / "config").write_text(json.dumps(content))
    return Cluster.connect(kubeconfig=folder / "config")


def plugin(folder: Path, body: str, **more: Any) -> dict[str, Any]:
    """A user with a plugin that runs ``body``; it gives the token that is in the file ``token``."""
    file = folder / "plugin"
    file.write_text(f"#!/bin/sh\necho asked >> {folder}/asked\n{body}\n")
    file.chmod(0o755)
    return {"exec": {"apiVersion": V1, "command": "./plugin", "interactiveMode": "Never", **more}}


def giving(status: str) -> str:
    return f"""echo '{{"apiVersion": "{V1}", "kind": "ExecCredential", "status": {status}}}'"""


def from_file(folder: Path) -> dict[str, Any]:
    body = f"token=$(cat {folder}/token)\n" + giving("""{"token": "'"$token"'"}""")
    (folder / "token").write_text("1")
    return plugin(folder, body)


def asked(folder: Path) -> int:
    return len((folder / "asked").read_text().splitlines())


def test_a_plugin_is_asked_once_for_many_requests(server: ApiServer, tmp_path: Path) -> None:
    cluster = connected(tmp_path, server, **from_file(tmp_path))
    for _ in range(3):
        cluster.list("Job")
    assert asked(tmp_path) == 1


def test_a_token_that_has_ended_is_asked_for_again(server: ApiServer, tmp_path: Path) -> None:
    cluster = connected(tmp_path, server, **from_file(tmp_path))
    cluster.list("Job")
    server.believed = "2"
    (tmp_path / "token").write_text("2")
    cluster.list("Job")
    assert asked(tmp_path) == 2
    assert [request.status for request in server.requests] == [200, 401, 200]


def test_a_watch_goes_on_over_the_end_of_a_token(server: ApiServer, tmp_path: Path) -> None:
    cluster = connected(tmp_path, server, **from_file(tmp_path))
    changes = (change for change, _ in cluster.watch("Job"))
    while next(changes) != "MODIFIED":
        pass
    server.believed = "2"
    (tmp_path / "token").write_text("2")
    while next(changes) != "MODIFIED":
        pass
    assert asked(tmp_path) == 2


def test_a_token_that_says_when_it_ends_is_exchanged_then(server: ApiServer, tmp_path: Path) -> None:
    status = '{"token": "1", "expirationTimestamp": "2020-01-01T00:00:00Z"}'
    cluster = connected(tmp_path, server, **plugin(tmp_path, giving(status)))
    cluster.list("Job")
    cluster.list("Job")
    assert asked(tmp_path) == 2


def test_credentials_that_stay_refused_are_one_line_also_in_a_watch(
    server: ApiServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.believed = "another"
    cluster = connected(tmp_path, server, **from_file(tmp_path))
    for ask in (lambda: cluster.list("Job"), lambda: list(cluster.watch("Job"))):
        with pytest.raises(ApiError, match="does not accept the credentials of the kubeconfig: log in again"):
            ask()
    with (
        Watched(cluster, "Job") as watched,
        pytest.raises(ApiError, match="does not accept the credentials"),
    ):
        watched.objects()
    assert capfd.readouterr().err == ""


def test_many_threads_ask_a_plugin_once(server: ApiServer, tmp_path: Path) -> None:
    cluster = connected(tmp_path, server, **from_file(tmp_path))
    threads = [threading.Thread(target=cluster.list, args=("Job",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked(tmp_path) == 1


def test_a_token_in_a_file_is_read_again_when_it_is_refused(server: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("1")
    cluster = connected(tmp_path, server, tokenFile="token")
    cluster.list("Job")
    server.believed = "2"
    (tmp_path / "token").write_text("2\n")
    cluster.list("Job")


def test_a_token_in_a_file_is_read_again_in_time(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_TOKEN_FILE_SECONDS", 0.0)
    (tmp_path / "token").write_text("1")
    cluster = connected(tmp_path, server, tokenFile="token")
    cluster.list("Job")
    server.believed = "2"
    (tmp_path / "token").write_text("2\n")
    cluster.list("Job")
    assert [request.status for request in server.requests] == [200, 200]


@pytest.mark.parametrize(
    ("body", "more", "said"),
    [
        ("exit 0", {}, "expected an ExecCredential with its status in JSON, found 0 other bytes"),
        ("echo hello", {}, "expected an ExecCredential with its status in JSON, found 6 other bytes"),
        ("echo '[1]'", {}, "expected an ExecCredential with its status in JSON"),
        ("echo null", {}, "expected an ExecCredential with its status in JSON"),
        ("head -c 4000 /dev/zero | tr '\\0' '['", {}, "expected an ExecCredential with its status in JSON"),
        (giving("null"), {}, "expected an ExecCredential with its status in JSON"),
        (giving("{}"), {}, "expected a token, or a certificate with its key"),
        (giving('{"token": ""}'), {}, "expected a token, or a certificate with its key"),
        (giving('{"token": 5}'), {}, "expected a token, or a certificate with its key"),
        (giving('{"clientCertificateData": "c"}'), {}, "expected a token, or a certificate with its key"),
        (giving('{"token": "1", "expirationTimestamp": "soon"}'), {}, "expirationTimestamp: expected a time"),
        (giving('{"token": "1", "expirationTimestamp": 5}'), {}, "expirationTimestamp: expected a time"),
        ("echo 'not\nlogged in' >&2; exit 7", {}, "gave no credentials, exit code 7: not logged in"),
        ("kill -9 $$", {}, "gave no credentials, exit code -9"),
        ("", {"command": "no-such-plugin", "installHint": "get it\nthere"},
         "can't be run: No such file or directory: get it there"),
        ("", {"command": "./config"}, "can't be run: Permission denied"),
        ("", {"apiVersion": "v1alpha1"}, "apiVersion: expected client.authentication.k8s.io/"),
        (giving('{"token": "1"}'), {"apiVersion": V1 + "beta1"}, f"expected apiVersion {V1}beta1, found {V1}"),
        ("", {"interactiveMode": "Sometimes"}, "interactiveMode: expected Never, IfAvailable or Always, found"),
    ],
)  # fmt: skip
def test_a_plugin_that_gives_no_credentials_is_one_line_and_nothing_is_sent(
    body: str, more: dict[str, Any], said: str, server: ApiServer, tmp_path: Path
) -> None:
    cluster = connected(tmp_path, server, **plugin(tmp_path, body, **more))
    with pytest.raises(BadInput) as error:
        cluster.list("Job")
    told = str(error.value)
    assert said in told
    assert told.startswith(f"kubeconfig {tmp_path}/config: context here: user u: ")
    assert "\n" not in told
    assert server.requests == []


def test_a_plugin_that_fails_in_the_middle_ends_a_watch_in_one_line(server: ApiServer, tmp_path: Path) -> None:
    cluster = connected(tmp_path, server, **from_file(tmp_path))
    changes = (change for change, _ in cluster.watch("Job"))
    while next(changes) != "MODIFIED":
        pass
    server.believed = "2"
    (tmp_path / "plugin").write_text("#!/bin/sh\necho 'the session is over' >&2\nexit 1\n")
    with pytest.raises(BadInput, match="gave no credentials, exit code 1: the session is over"):
        list(changes)


def test_the_certificate_of_a_plugin_is_shown_to_the_server(server: ApiServer, tmp_path: Path) -> None:
    content = {name: (tmp_path / "tls" / f"{name}.pem").read_text() for name in ("cert", "key")}
    status = json.dumps({"token": "1", "clientCertificateData": content["cert"], "clientKeyData": content["key"]})
    (tmp_path / "answer").write_text(giving(status).removeprefix("echo '").removesuffix("'"))
    cluster = connected(tmp_path, server, **plugin(tmp_path, f"cat {tmp_path}/answer"))
    cluster.list("Job")
    identity = cluster._connection._credentials.current()
    assert identity.certificate is not None
    assert Path(identity.certificate).read_text() == content["cert"]
    assert identity.key is not None
    assert Path(identity.key).read_text() == content["key"]
    assert identity.key.startswith("/proc/self/fd/")  # on no disk


def test_a_pod_whose_token_is_gone_is_told(pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster.connect()
    (pod / "token").unlink()
    with pytest.raises(BadInput, match=r"^this pod's own account: user: tokenFile .*: No such file or directory"):
        cluster.list("Job")


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Kubernetes puts into a pod that may talk to it."""
    account = tmp_path / "account"
    account.mkdir()
    for name, text in (("token", "of-pod"), ("ca.crt", "ca"), ("namespace", "of-pod")):
        (account / name).write_text(text)
    monkeypatch.setattr(kubeconfig, "POD", account)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    return account


def test_a_pod_without_a_kubeconfig_has_its_own_account(pod: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = kubeconfig.find(None, None)
    assert (access.cluster.server, access.namespace, access.context) == ("https://10.0.0.1:443", "of-pod", None)
    assert access.user.token_file == str(pod / "token")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert kubeconfig.find(None, None).cluster.server == "https://[fd00::1]:443"
    monkeypatch.setenv("POD_NAMESPACE", "named")
    assert kubeconfig.find(None, None).namespace == "named"


def test_a_kubeconfig_counts_before_the_account_of_a_pod(
    pod: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "some"
    file.write_text(json.dumps({"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "c"}}],
                                "clusters": [{"name": "c", "cluster": {"server": "http://there"}}]}))  # fmt: skip
    monkeypatch.setenv("KUBECONFIG", str(file))
    access = kubeconfig.find(None, None)
    assert (access.cluster.server, access.namespace) == ("http://there", "of-pod")
    file.write_text("{}")
    assert kubeconfig.find(None, None).context is None
    with pytest.raises(BadInput, match="expected a current-context, found none"):
        kubeconfig.find(file, None)
    with pytest.raises(BadInput, match="expected a context gone, found none"):
        kubeconfig.find(None, "gone")


def test_every_group_and_value_of_another_user_is_said() -> None:
    user = kubeconfig.UserEntry(as_="chief", as_groups=["a", "b"], as_user_extra={"why": ["x", "y"]})
    assert credentials.impersonation(user) == [
        ("Impersonate-User", "chief"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b"),
        ("Impersonate-Extra-why", "x"), ("Impersonate-Extra-why", "y"),
    ]  # fmt: skip


def test_an_expiry_far_away_keeps_the_token(server: ApiServer, tmp_path: Path) -> None:
    in_a_year = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3e7))
    status = json.dumps({"token": "1", "expirationTimestamp": in_a_year})
    cluster = connected(tmp_path, server, **plugin(tmp_path, giving(status)))
    cluster.list("Job")
    cluster.list("Job")
    assert asked(tmp_path) == 1


class Running(ApiServer):
    """Has a job whose only worker runs and prints a line every time it is asked; streams are short."""

    def perform(self, request: Request, *, whole: bool) -> Answer:
        if request.headers.get("authorization") != f"Bearer {self.believed}":
            return Answer.of({"kind": "Status", "message": "Unauthorized"}, 401)
        if "watch" in request.query:
            return Answer(200)
        if request.path.endswith("/log"):
            line = b"2026-11-23T10:00:00.000000000Z step 1\n"
            return Answer(200, [line], len(line))
        labels = {"app.kubernetes.io/name": "maskfleet", "app.kubernetes.io/instance": "pets"}
        metadata = {"name": "pets", "uid": "1", "creationTimestamp": CREATED, "labels": labels}
        template = {"metadata": {"labels": labels}, "spec": {}}
        job = {"kind": "Job", "metadata": metadata, "spec": {"completions": 1, "template": template}}
        found = {"jobs": job, "pods": worker_pod(0)}.get(request.path.split("/")[-1].replace("pets", "jobs"))
        if request.path.endswith(("/pets", worker_pod(0)["metadata"]["name"])):
            return Answer.of(job if "jobs" in request.path else worker_pod(0))
        return Answer.of({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": [found] if found else []})


@pytest.mark.parametrize(
    ("command", "shown"),
    [(["logs", "-f", "pets"], "step 1"), (["wait", "pets"], ""), (["status", "-w", "pets"], "pets")],
)
def test_a_login_that_ends_in_the_middle_ends_what_follows_in_one_line(
    command: list[str], shown: str, tmp_path: Path
) -> None:
    (tmp_path / "tls").mkdir()
    context, _ = certificate(tmp_path / "tls")
    with Running("127.0.0.1", 0, context) as server:
        connected(tmp_path, server, **from_file(tmp_path))
        full = [sys.executable, "-m", "launcher.cli", *command, "--kubeconfig", str(tmp_path / "config")]
        process = subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 20
        while len(server.requests) < 12 and time.monotonic() < deadline:
            time.sleep(0.1)
        server.believed = "2"
        (tmp_path / "plugin").write_text("#!/bin/sh\necho 'the session is over' >&2\nexit 1\n")
        output, errors = process.communicate(timeout=30)
    assert shown in output
    assert process.returncode == 2
    assert "Traceback" not in errors
    assert "Exception in thread" not in errors
    assert [line for line in errors.splitlines() if line.startswith("error: ")] == [
        f"error: kubeconfig {tmp_path}/config: context here: user u: {tmp_path}/plugin: gave no credentials, "
        "exit code 1: the session is over"
    ]
