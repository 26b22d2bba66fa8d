"""How the launcher bears an API server that breaks off, refuses or loses an answer."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes import client

from launcher.cluster.connection import set_proxy
from launcher.cluster.kubernetes_api import ApiError, Cluster, Unreachable
from maskfleet.errors import NotFound
from tests.fakes.cluster import CREATED, bare
from tests.fakes.http import Answer, Fault, HttpFake, Request

CHANGE = json.dumps({"type": "MODIFIED", "object": bare("Job", "pets")}).encode() + b"\n"
TOO_OLD = json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410}}).encode() + b"\n"


class ApiServer(HttpFake):
    """Has one job, and answers every watch with ``stream``."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 0)
        self.stream = Answer(200)
        self.jobs = {"pets"}

    def perform(self, request: Request, *, whole: bool) -> Answer:
        if "watch" in request.query:
            return self.stream
        name = request.path.rpartition("/")[2]
        if name == "jobs":
            items = [bare("Job", name) for name in self.jobs]
            return Answer.of({"kind": "JobList", "metadata": {"resourceVersion": "1"}, "items": items})
        if name not in self.jobs:
            return Answer.of({"kind": "Status", "reason": "NotFound", "message": f"jobs {name} not found"}, 404)
        if request.method == "DELETE":
            self.jobs.remove(name)
        return Answer.of(bare("Job", name))


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


@pytest.fixture
def cluster(server: ApiServer) -> Cluster:
    return Cluster(client.Configuration(host=server.url), "team")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the launcher has slept, without having done so."""
    slept: list[float] = []
    monkeypatch.setattr(
        "launcher.cluster.kubernetes_api.time", SimpleNamespace(monotonic=time.monotonic, sleep=slept.append)
    )
    return slept


class Broken:
    """A body that breaks off, every time."""

    def __iter__(self) -> Iterator[bytes]:
        yield CHANGE
        raise ConnectionResetError


def until_restarts(cluster: Cluster, count: int) -> None:
    restarts = (change for change, _ in cluster.watch("Job") if change == "RESTART")
    assert len(list(itertools.islice(restarts, count))) == count


@pytest.mark.parametrize("stream", [
    lambda: Answer(200),
    lambda: Answer(200, [CHANGE], len(CHANGE)),
    lambda: Answer(200, [TOO_OLD], len(TOO_OLD)),
    lambda: Answer(200, Broken(), 1000),
    lambda: Answer.of({"reason": "Expired", "message": "too old resource version: 1 (2)"}, 410),
], ids=["ends at once", "ends after a change", "too old", "breaks off", "refused as too old"])  # fmt: skip
def test_a_watch_that_fails_again_and_again_is_begun_anew_less_and_less_often(
    stream: Any, server: ApiServer, cluster: Cluster, pauses: list[float]
) -> None:
    server.stream = stream()
    until_restarts(cluster, 12)
    assert len(pauses) == 11
    assert 0.05 <= pauses[0] <= 0.1
    assert all(5 <= pause <= 10 for pause in pauses[-4:])


def test_a_watch_that_has_gone_on_for_long_is_begun_anew_at_once(
    server: ApiServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    clock = itertools.count(step=60.0)
    monkeypatch.setattr(
        "launcher.cluster.kubernetes_api.time", SimpleNamespace(monotonic=lambda: next(clock), sleep=pauses.append)
    )
    until_restarts(cluster, 12)
    assert max(pauses) <= 0.1


def test_a_watch_that_is_refused_for_good_tells_so(server: ApiServer, cluster: Cluster) -> None:
    server.stream = Answer.of({"reason": "Forbidden", "message": "may not watch"}, 403)
    with pytest.raises(ApiError, match="may not watch"):
        until_restarts(cluster, 2)


def test_a_delete_whose_answer_was_lost_has_worked(server: ApiServer, cluster: Cluster) -> None:
    server.faults.add(Fault("drop-after", "^DELETE"))
    cluster.delete("Job", "pets")
    assert [request.status for request in server.requests] == [None, 404]
    with pytest.raises(NotFound):
        cluster.delete("Job", "pets")


@pytest.mark.parametrize(("answer", "found"), [
    (Answer(200, [b"<html>log in</html>"], 19, {"Content-Type": "text/html"}), "found HTML: a login page or a proxy?"),
    (Answer(200, [b"{}"], 2), "found {}"),
    (Answer(200, [b"null"], 4), "found null"),
    (Answer(200, [b"[1]"], 3), "found [1]"),
    (Answer(200, [b""], 0), "found nothing"),
    (Answer(200, [b"\xff\xfe"], 2), "found \ufffd\ufffd"),
])  # fmt: skip
def test_an_answer_that_is_not_the_api_s_is_one_line(
    answer: Answer, found: str, server: ApiServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "perform", lambda request, whole: answer)
    for ask in (
        lambda: cluster.get("Job", "pets"),
        lambda: cluster.list("Job"),
        lambda: list(cluster.watch("Job")),
    ):
        with pytest.raises(Unreachable, match="does not answer as Kubernetes' API server does; ") as error:
            ask()
        assert str(error.value).endswith(found)


@pytest.mark.parametrize(("status", "body", "headers", "said"), [
    (302, b"", {"Location": "https://login.example/?next=1"}, "a redirection to https://login.example/?next=1: a "),
    (307, b"", {}, "found a redirection to nowhere: a login page or a proxy?"),
    (301, b"", {"Location": "https://me:secret@there/"}, "found a redirection to https://there/: a login page"),
    (404, b"<html>no</html>", {"Content-Type": "text/html"}, "found HTTP 404 with HTML: a login page or a proxy?"),
    (403, b"<html>no</html>", {"Content-Type": "text/html"}, "found HTTP 403 with HTML: a login page or a proxy?"),
    (502, b"<html>no</html>", {"Content-Type": "text/html"}, "found HTTP 502 with HTML: a login page or a proxy?"),
    (500, b"[1]", {}, "HTTP 500 for /apis/batch/v1/namespaces/team/jobs/pets: [1]"),
    (400, b"null", {}, "HTTP 400 for /apis/batch/v1/namespaces/team/jobs/pets: null"),
    (400, b"", {}, "HTTP 400 for /apis/batch/v1/namespaces/team/jobs/pets"),
    (400, b'{"message": 5, "reason": null}', {}, "5"),
])  # fmt: skip
def test_a_refusal_that_is_not_the_api_s_is_one_line(
    status: int, body: bytes, headers: dict[str, str], said: str, server: ApiServer, cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(server, "perform", lambda request, whole: Answer(status, [body], len(body), headers))
    with pytest.raises((Unreachable, ApiError)) as error:
        cluster.patient(0).get("Job", "pets")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_credentials_do_not_follow_a_redirection(server: ApiServer, cluster: Cluster) -> None:
    with ApiServer() as other:
        server.perform = lambda request, whole: Answer(302, headers={"Location": other.url})  # type: ignore[method-assign]
        with pytest.raises(Unreachable):
            cluster.get("Job", "pets")
        assert other.requests == []


class Waits:
    """The clock and the sleeps of a connection, which pass at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    found = Waits()
    monkeypatch.setattr("launcher.cluster.connection.time", found)
    monkeypatch.setattr("maskfleet.backoff.time", found)
    return found


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("asked_for", "least"), [("3", 3), ("30", 30), ("0", 0), ("soon", 0)])
def test_a_server_that_says_when_to_come_back_is_not_asked_before(
    status: int, asked_for: str, least: float, server: ApiServer, cluster: Cluster, waits: Waits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    answers = iter([Answer(status, headers={"Retry-After": asked_for})])
    perform = server.perform
    monkeypatch.setattr(server, "perform", lambda request, whole: next(answers, None) or perform(request, whole=whole))
    assert cluster.get("Job", "pets")["kind"] == "Job"
    assert len(waits.slept) == 1
    assert least <= waits.slept[0] <= max(1, least)


@pytest.mark.parametrize(("asked_for", "requests"), [("30", 2), ("3600", 1)])
def test_a_server_that_is_never_ready_is_not_waited_for_for_ever(
    asked_for: str, requests: int, server: ApiServer, cluster: Cluster, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Answer(429, [b"{}"], 2, {"Retry-After": asked_for})
    monkeypatch.setattr(server, "perform", lambda request, whole: answer)
    with pytest.raises(ApiError) as error:
        cluster.get("Job", "pets")
    assert len(server.requests) == requests
    assert waits.now <= 35
    assert ("the API server wants to be left alone for 3600 s" in str(error.value)) == (asked_for == "3600")


class Refusing(HttpFake):
    """A proxy that refuses whatever is asked of it."""

    def perform(self, request: Request, *, whole: bool) -> Answer:
        return Answer(407, headers={"Proxy-Authenticate": "Basic"})


def test_a_proxy_that_refuses_is_named_without_its_password() -> None:
    with Refusing("127.0.0.1", 0) as proxy:
        for host in ("https://there.example", "http://there.example"):
            configuration = client.Configuration(host=host)
            set_proxy(configuration, proxy.url.replace("//", "//me:secret@"))
            with pytest.raises(Unreachable) as error:
                Cluster(configuration, "team").patient(0).get("Job", "pets")
            assert f"the proxy {proxy.url} " in str(error.value)
            assert host in str(error.value)
            assert "secret" not in str(error.value)
    assert proxy.requests[-1].headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"
    with pytest.raises(Unreachable, match=f"the proxy {proxy.url} does not lead to .*Connection refused"):
        Cluster(configuration, "team").patient(0).get("Job", "pets")


@pytest.mark.parametrize("line", [
    b"<html>log in</html>\n", b"null\n", b"[]\n", b"{}\n", b'{"type": "ADDED"}\n', b'{"type": "ADDED", "object": 5}\n',
    b"\xff\n", b"[" * 5000,
])  # fmt: skip
def test_a_stream_that_is_not_the_api_s_is_begun_anew(
    line: bytes, server: ApiServer, cluster: Cluster, pauses: list[float]
) -> None:
    server.stream = Answer(200, [CHANGE, line], len(CHANGE) + len(line))
    changes = itertools.islice(cluster.watch("Job"), 12)
    assert {change for change, _ in changes} == {"RESTART", "ADDED", "SYNCED", "MODIFIED"}


NAMED = {"name": "pets", "uid": "1", "creationTimestamp": CREATED}


@pytest.mark.parametrize("found", [
    {"kind": "Status"}, {"kind": "Frob"}, {"kind": "JobList", "items": 5}, {"kind": "Job", "metadata": None},
    {"kind": "Job", "metadata": {"name": "pets"}, "spec": {}}, {"kind": "Pod", "metadata": NAMED, "spec": {}},
    {"kind": "Job", "metadata": NAMED}, {"kind": "Job", "metadata": NAMED, "spec": []},
    {"kind": "Job", "metadata": NAMED, "spec": {}, "status": [1]},
    {"kind": "Job", "metadata": {**NAMED, "labels": ["x"]}, "spec": {}},
    {"kind": "JobList", "metadata": {}, "items": [{"metadata": {"name": "pets"}}]},
])  # fmt: skip
def test_what_is_no_object_of_the_kind_is_no_answer(
    found: dict[str, Any], server: ApiServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "perform", lambda request, whole: Answer.of(found))
    for ask in (
        lambda: cluster.get("Job", "pets"),
        lambda: cluster.list("Job"),
        lambda: list(cluster.watch("Job")),
        lambda: cluster.create(bare("Job", "pets")),
        lambda: cluster.patch("Job", "pets", {}),
        lambda: cluster.create({"kind": "SelfSubjectAccessReview"}),
    ):
        with pytest.raises(Unreachable, match="does not answer as Kubernetes' API server does"):
            ask()


def test_a_list_of_nothing_may_be_null(server: ApiServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {"kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "1"}, "items": None}
    monkeypatch.setattr(server, "perform", lambda request, whole: Answer.of(empty))
    assert cluster.list("Job", metadata_only=True) == []
    assert [change for change, _ in itertools.islice(cluster.watch("Job"), 2)] == ["RESTART", "SYNCED"]
