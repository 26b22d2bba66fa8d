"""Odd values of servers and kubeconfigs: every one ends in a line, or is read as kubectl reads it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from launcher.cluster.connection import Connection
from launcher.cluster.credentials import Credentials, Identity, file_of, impersonation
from launcher.cluster.kubeconfig import UserEntry
from launcher.cluster.kubernetes_api import ApiError, Cluster, Unreachable
from maskfleet.errors import BadInput
from tests.fakes.http import Answer, HttpFake, Request


class Server(HttpFake):
    """Gives one answer to everything."""

    answer = Answer.of({"kind": "Status"})

    def perform(self, request: Request, *, whole: bool) -> Answer:
        return self.answer


@pytest.fixture
def server() -> Iterator[Server]:
    with Server("127.0.0.1", 0) as running:
        yield running


def connected(folder: Path, **cluster: Any) -> Cluster:
    content = {
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": "x"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    (folder / "config").write_text(json.dumps(content))
    return Cluster.connect(kubeconfig=folder / "config").patient(0.2)


@pytest.mark.parametrize("value", ["Wed, 21 Oct 99999 07:28:00 GMT", "5" * 5000, "soon"])
def test_a_retry_after_beyond_sense_is_none(tmp_path: Path, server: Server, value: str) -> None:
    busy = Answer.of({"kind": "Status", "message": "busy"}, 429)
    server.answer = replace(busy, headers={"Retry-After": value})
    with pytest.raises(ApiError, match=r"^busy$"):
        connected(tmp_path, server=server.url).list("Pod")


def test_a_redirection_to_half_an_address_is_named(tmp_path: Path, server: Server) -> None:
    server.answer = replace(Answer.of({}, 302), headers={"Location": "http://[::1"})
    with pytest.raises(Unreachable, match="found a redirection"):
        connected(tmp_path, server=server.url).list("Pod")


def test_a_group_without_a_version_is_not_the_api_s(tmp_path: Path, server: Server) -> None:
    server.answer = Answer.of({"kind": "APIGroup", "preferredVersion": None})
    with pytest.raises(Unreachable, match="does not answer as Kubernetes"):
        connected(tmp_path, server=server.url).list("LocalQueue")


@pytest.mark.parametrize(
    "cluster",
    [
        {"server": "https://[::1"},
        {"server": "https://host:port"},
        {"server": "https://host:99999"},
        {"server": "https://host", "proxy-url": "http://[::1"},
        {"server": "https://host", "proxy-url": "http://user:secret@proxy:99999"},
        {"server": "https://host", "proxy-url": "http://user:secret/2@proxy"},
    ],
)
def test_an_address_that_is_none_is_said_at_once(tmp_path: Path, cluster: dict[str, str]) -> None:
    with pytest.raises(BadInput, match=r"(server|proxy-url): expected a URL") as refused:
        connected(tmp_path, **cluster)
    assert "secret" not in str(refused.value)


def test_base64_in_several_lines_is_read_as_kubectl_reads_it() -> None:
    content = b"a certificate " * 20
    path = file_of(None, base64.encodebytes(content).decode().replace("\n", "\r\n"), "certificate-authority")
    assert path is not None
    assert Path(path).read_bytes() == content


def test_a_key_of_impersonation_is_the_name_of_a_header() -> None:
    user = UserEntry.model_validate({"as": "jane", "as-user-extra": {"example.com/a b%": ["v"]}})
    assert impersonation(user)[-1] == ("Impersonate-Extra-example.com%2Fa%20b%25", "v")


def test_a_token_of_two_lines_is_refused_without_being_shown(server: Server) -> None:
    connection = Connection(
        client.Configuration(host=server.url), Credentials(lambda: Identity("Bearer a\nsecret")), []
    )
    with pytest.raises(BadInput, match="Authorization: expected one line") as refused:
        connection.send("GET", "/api", {}, patience=0)
    assert "secret" not in str(refused.value)
    assert server.requests == []


def test_a_name_that_is_not_latin_goes_out_in_utf_8(server: Server) -> None:
    connection = Connection(client.Configuration(host=server.url), Credentials(), [("Impersonate-User", "\u2603")])
    connection.send("GET", "/api", {}, patience=0)
    assert server.requests[0].headers["impersonate-user"].encode("latin-1").decode() == "\u2603"


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        ({"server": "ftp://host"}, "server: expected https:// or http://, found ftp://"),
        (
            {"server": "https://host", "proxy-url": "socks5://proxy:1080"},
            "expected http:// or https://, found socks5",
        ),
    ],
)
def test_a_kind_of_address_that_nobody_speaks_is_refused(tmp_path: Path, cluster: dict[str, str], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        connected(tmp_path, **cluster)


@pytest.mark.parametrize("items", [[{}], [None], [1], ["x"], [{"metadata": None}], [{"metadata": {}}], {"a": 1}])
def test_items_that_are_no_objects_are_one_line(tmp_path: Path, server: Server, items: Any) -> None:
    server.answer = Answer.of({"kind": "PodList", "metadata": {}, "items": items})
    cluster = connected(tmp_path, server=server.url)
    for ask in (cluster.list, lambda kind: list(cluster.watch(kind))):
        with pytest.raises(Unreachable, match="does not answer as Kubernetes' API server does; found"):
            ask("Pod")


def test_a_log_that_is_html_is_no_log(tmp_path: Path, server: Server) -> None:
    page = b"<html>\n<p>Log in\n</html>\n"
    server.answer = Answer(200, [page], len(page), {"Content-Type": "Text/HTML; charset=utf-8"})
    with pytest.raises(Unreachable, match="found HTML: a login page or a proxy"):
        list(connected(tmp_path, server=server.url).log("pod", "trainer"))


@pytest.mark.parametrize("namespace", ["../../apis", "a/b", "Team", "a?b", "a b", "-", "x" * 64, "a\nb", "\x1b[31m"])
def test_a_namespace_that_can_t_be_one_is_refused_before_any_request(
    tmp_path: Path, server: Server, namespace: str
) -> None:
    connected(tmp_path, server=server.url)
    content = json.loads((tmp_path / "config").read_text())
    content["contexts"][0]["context"]["namespace"] = namespace
    (tmp_path / "config").write_text(json.dumps(content))
    with pytest.raises(
        BadInput, match=r"context here: namespace: expected at most 63 .*; name one with --names"
    ) as told:
        Cluster.connect(kubeconfig=tmp_path / "config")
    assert "\n" not in str(told.value)
    assert "\x1b" not in str(told.value)
    assert Cluster.connect("team", kubeconfig=tmp_path / "config").namespace == "team"


def test_a_name_is_one_part_of_a_path(tmp_path: Path, server: Server) -> None:
    with pytest.raises(Unreachable):
        connected(tmp_path, server=server.url).get("Pod", "a/../b?c")
    assert server.requests[0].path == "/api/v1/namespaces/default/pods/a%2F..%2Fb%3Fc"
