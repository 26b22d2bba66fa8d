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

from launcher.cluster.kubernetes_api import ApiError, Cluster, Unreachable
from maskfleet.errors import NotFound
from tests.fakes.http import Answer, Fault, HttpFake, Request

CHANGE = json.dumps({"type": "MODIFIED", "object": {"metadata": {"name": "pets"}}}).encode() + b"\n"
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
            items = [{"metadata": {"name": name}} for name in self.jobs]
            return Answer.of({"kind": "JobList", "metadata": {"resourceVersion": "1"}, "items": items})
        if name not in self.jobs:
            return Answer.of({"kind": "Status", "reason": "NotFound", "message": f"jobs {name} not found"}, 404)
        if request.method == "DELETE":
            self.jobs.remove(name)
        return Answer.of({"kind": "Job", "metadata": {"name": name}})


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
