"""What a user sees of a connection to a pod that ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from launcher.cluster.kubernetes_api import ApiError, Cluster
from tests.fakes.pod_server import PodServer, tls_before
from tests.helpers.tls_front import certificate

THREAD_THAT_FAILS = """
import sys, threading
from launcher.cluster.kubernetes_api import _quieten_port_forwards

def fail():
    raise ConnectionResetError("reset by peer")

_quieten_port_forwards()
thread = threading.Thread(target=fail, name=sys.argv[1])
thread.start()
thread.join()
"""


def said(name: str) -> str:
    command = [sys.executable, "-c", THREAD_THAT_FAILS, name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def test_a_connection_that_is_hung_up_prints_no_traceback() -> None:
    assert said("Kubernetes port forward proxy: 6006") == ""


def test_other_threads_still_tell_their_errors() -> None:
    assert "ConnectionResetError: reset by peer" in said("streamer")


@pytest.fixture
def server() -> Iterator[PodServer]:
    with PodServer() as running:
        yield running


def test_a_port_of_a_pod_and_a_command_are_reached_as_whom_the_kubeconfig_names(
    server: PodServer, tmp_path: Path
) -> None:
    """Over TLS: without it nobody's name is sent."""
    names = {"as": "größer", "as-groups": ["one", "two"], "as-user-extra": {"a/b": ["v"]}}
    with tls_before(server, certificate(tmp_path)[0]) as address:
        cluster = Cluster.connect(kubeconfig=server.kubeconfig(tmp_path / "config", address, **names))
        with closing(cluster.connect_to_pod("pets-0", 6006)) as connection:
            connection.sendall(b"hello")
            assert connection.recv(5) == b"HELLO"
        command = cluster.run_in_pod("pets-0", "trainer", ["true"], tty=False)
        command.close()
    for sent in server.headers:
        assert sent["Authorization"] == "Bearer secret"
        assert sent["Impersonate-User"].encode("latin-1").decode() == "größer"
        assert sent["Impersonate-Group"] == "two"  # the last of them, as a mapping keeps it
        assert sent["Impersonate-Extra-A%2Fb"] == "v"


def test_what_may_pass_is_no_connection_and_what_we_may_not_do_is_told(server: PodServer, tmp_path: Path) -> None:
    cluster = Cluster.connect(kubeconfig=server.kubeconfig(tmp_path / "config"))
    server.refusal = (500, {"kind": "Status", "message": "the pod is not running"})
    with pytest.raises(ConnectionError, match="pets-0: the pod is not running"):
        cluster.connect_to_pod("pets-0", 6006)
    server.refusal = (403, {"kind": "Status", "reason": "Forbidden", "message": "may not create pods/portforward"})
    with pytest.raises(ApiError, match=r"^may not create pods/portforward$"):
        cluster.connect_to_pod("pets-0", 6006)


def test_a_token_that_has_ended_is_asked_for_again(server: PodServer, tmp_path: Path) -> None:
    version, token = "client.authentication.k8s.io/v1", tmp_path / "token"
    answer = f"""{{"apiVersion": "{version}", "kind": "ExecCredential", "status": {{"token": "'$(cat {token})'"}}}}"""
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\necho '{answer}'\n")
    plugin.chmod(0o755)
    user = {"token": None, "exec": {"apiVersion": version, "command": "./plugin", "interactiveMode": "Never"}}
    with tls_before(server, certificate(tmp_path)[0]) as address:
        cluster = Cluster.connect(kubeconfig=server.kubeconfig(tmp_path / "config", address, **user))
        for believed in ("1", "2"):
            server.believed = believed
            token.write_text(believed)
            cluster.connect_to_pod("pets-0", 6006).close()
            cluster.run_in_pod("pets-0", "trainer", ["true"], tty=False).close()
        server.believed = "another"
        with pytest.raises(ConnectionError, match="does not accept the credentials of the kubeconfig: log in again"):
            cluster.connect_to_pod("pets-0", 6006)
    refused = [sent for sent in server.headers if sent["Authorization"] == "Bearer 1"]
    assert len(refused) == 3
