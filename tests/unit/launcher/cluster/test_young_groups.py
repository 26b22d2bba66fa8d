"""API groups whose versions come and go: the one that has the kind of object is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kubernetes import client

from launcher.cluster.kubernetes_api import Cluster
from maskfleet.errors import NotFound
from tests.fakes.cluster import bare
from tests.fakes.http import Answer, HttpFake, Request

SCHEDULING = "/apis/scheduling.k8s.io"
QUEUES = "/apis/kueue.x-k8s.io"


class Groups(HttpFake):
    """Serves the resources of ``served`` by group and version, the preferred version first; each has one object."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 0)
        self.served: dict[str, dict[str, list[str]]] = {}
        self.asked: list[str] = []

    def perform(self, request: Request, *, whole: bool) -> Answer:
        self.asked.append(request.path)
        group = "/".join(request.path.split("/")[:3])
        versions = self.served.get(group)
        if versions is None:
            return Answer.of({"kind": "Status", "message": "404 page not found"}, 404)
        if request.path == group:
            known = [{"version": version, "groupVersion": f"{group[6:]}/{version}"} for version in versions]
            return Answer.of({"kind": "APIGroup", "preferredVersion": known[0], "versions": known})
        version, _, rest = request.path.removeprefix(f"{group}/").partition("/")
        plural = rest.rpartition("/")[2]
        if not rest:
            names = [{"name": name} for name in versions[version]]
            return Answer.of({"kind": "APIResourceList", "resources": names})
        if plural not in versions[version]:
            return Answer.of({"kind": "Status", "message": "404 page not found"}, 404)
        kind = {"podgroups": "PodGroup", "workloads": "Workload"}[plural]
        return Answer.of({"kind": f"{kind}List", "metadata": {}, "items": [bare(kind, "it")]})


@pytest.fixture
def server() -> Iterator[Groups]:
    with Groups() as running:
        yield running


@pytest.fixture
def cluster(server: Groups) -> Cluster:
    return Cluster(client.Configuration(host=server.url), "team")


def test_the_version_that_has_the_kind_is_taken_and_asked_for_once(server: Groups, cluster: Cluster) -> None:
    server.served = {SCHEDULING: {"v1": ["priorityclasses"], "v1alpha2": ["podgroups", "workloads"]}}
    for _ in range(2):
        assert [group["metadata"]["name"] for group in cluster.list("PodGroup")] == ["it"]
    objects = f"{SCHEDULING}/v1alpha2/namespaces/team/podgroups"
    assert server.asked == [SCHEDULING, f"{SCHEDULING}/v1", f"{SCHEDULING}/v1alpha2", objects, objects]


def test_what_is_asked_of_all_namespaces_has_its_version_too(server: Groups, cluster: Cluster) -> None:
    server.served = {QUEUES: {"v1beta2": ["workloads"], "v1beta1": ["workloads"]}}
    assert len(cluster.list("Workload", everywhere=True)) == 1
    assert server.asked[-1] == f"{QUEUES}/v1beta2/workloads"


@pytest.mark.parametrize("served", [{}, {SCHEDULING: {"v1": ["priorityclasses"]}}])
def test_a_kind_that_no_version_has_is_not_found(
    served: dict[str, dict[str, list[str]]], server: Groups, cluster: Cluster
) -> None:
    server.served = served
    with pytest.raises(NotFound):
        cluster.list("PodGroup")


def test_kinds_of_one_name_are_told_apart_by_their_group(server: Groups, cluster: Cluster) -> None:
    server.served = {"/apis/scheduling.volcano.sh": {"v1beta1": ["podgroups"]}}
    assert len(cluster.list("PodGroup.scheduling.volcano.sh")) == 1
    with pytest.raises(NotFound):
        cluster.list("PodGroup.scheduling.run.ai")
