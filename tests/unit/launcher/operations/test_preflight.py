"""Room for workers, by the numbers that the API gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import launcher
from launcher.cluster.kubernetes_api import ApiError
from launcher.cluster.resources import RESOURCES
from launcher.diagnosis.capacity import (
    node_refusal,
    places_on,
    quota_counts,
    quota_shortage,
    worker_limits,
    worker_requests,
)
from launcher.job.manifests import manifests
from launcher.job.training_job import TrainingJob
from launcher.operations.preflight import Check, needed, preflight
from launcher.operations.submission import submit
from launcher.streaming.stores import opening
from maskfleet.errors import BadInput, NotFound
from tests.fakes.cluster import FakeCluster, Object


def node(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "n", "labels": {"pool": "train"}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110", "nvidia.com/gpu": "2"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def test_a_worker_asks_for_its_trainer_and_its_sidecar() -> None:
    need = worker_requests(manifests(TrainingJob(name="job", cpu="2", memory="4Gi", gpus_per_worker=1))[0])
    assert need == {"pods": 1, "cpu": 2.05, "memory": 4 * 2**30 + 128 * 2**20, "nvidia.com/gpu": 1}


def test_places_are_what_the_scarcest_resource_leaves() -> None:
    need = {"pods": 1.0, "cpu": 2.0, "memory": 4.0 * 2**30}
    running = {
        "spec": {"nodeName": "n", "containers": [{"resources": {"requests": {"cpu": "3", "memory": "1Gi"}}}]},
        "status": {"phase": "Running"},
    }
    done = {**running, "status": {"phase": "Succeeded"}}
    assert places_on(node(), [], need) == 4
    assert places_on(node(), [running, done], need) == 2
    assert places_on(node(), [], {**need, "nvidia.com/gpu": 1.0}) == 2
    assert places_on(node(), [], {**need, "example.com/tpu": 1.0}) == 0


def test_local_disk_that_is_asked_for_is_a_resource_as_any() -> None:
    job = manifests(TrainingJob(name="job", scratch="60Gi", data="gs://data"))[0]
    need = worker_requests(job)
    assert need["ephemeral-storage"] == worker_limits(job)["ephemeral-storage"] == 60 * 2**30
    large = node()
    large["status"]["allocatable"]["ephemeral-storage"] = str(150 * 2**30)
    assert places_on(large, [], need) == 2
    assert places_on(node(), [], need) == 0
    assert places_on(node(), [], worker_requests(manifests(TrainingJob(name="job"))[0])) == 3
    quota = {"status": {"hard": {"requests.ephemeral-storage": "100Gi"}}}
    shortage = quota_shortage(quota, {"ephemeral-storage": 2 * need["ephemeral-storage"]})
    assert shortage == "requests.ephemeral-storage: 100.0 GiB left of 100Gi, the job asks for 120.0 GiB"


def test_why_a_node_may_not_be_used() -> None:
    taint = {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}
    assert node_refusal(node(), {}) is None
    assert node_refusal(node(unschedulable=True), {}) == "nodes are cordoned"
    assert node_refusal(node(), {"nodeSelector": {"pool": "serve"}}) == "nodes lack the label pool=serve"
    assert node_refusal(node(**taint), {}) == "nodes have the taint gpu=yes, tolerate it with --toleration"
    assert node_refusal(node(**taint), {"tolerations": [{"key": "gpu", "operator": "Exists"}]}) is None


def test_a_spot_worker_goes_on_spot_nodes_alone() -> None:
    pod = manifests(TrainingJob(name="job", spot=True))[0]["spec"]["template"]["spec"]
    refusal = node_refusal(node(), pod)
    assert refusal is not None
    assert refusal.startswith("nodes lack any of the labels cloud.google.com/gke-spot=true or eks.amazonaws.com/")
    spot = node(taints=[{"key": "cloud.google.com/gke-spot", "value": "true", "effect": "NoSchedule"}])
    spot["metadata"]["labels"]["cloud.google.com/gke-spot"] = "true"
    assert node_refusal(spot, pod) is None


def test_a_worker_s_limits_add_up_too() -> None:
    limits = worker_limits(manifests(TrainingJob(name="job", cpu="2", memory="4Gi", output="gs://bucket"))[0])
    assert limits == {"cpu": 3, "memory": 5 * 2**30}
    quota = {"status": {"hard": {"limits.memory": "8Gi"}, "used": {"limits.memory": "4Gi"}}}
    shortage = quota_shortage(quota, {"limits.memory": limits["memory"]})
    assert shortage == "limits.memory: 4.0 GiB left of 8Gi, the job asks for 5.0 GiB"


class Server(FakeCluster):
    """Lets everything be done but what ``denied`` and ``refused`` say; has one quota and no nodes to show."""

    def __init__(self, denied: tuple[str, ...] = (), refused: dict[str, Exception] | None = None) -> None:
        super().__init__(
            {
                "kind": "ResourceQuota",
                "metadata": {"name": "team"},
                "status": {"hard": {"limits.cpu": "4"}, "used": {"limits.cpu": "0"}},
            }
        )
        self.denied, self.refused = denied, refused or {}

    def create(self, manifest: Object, **how: Any) -> Object:
        if manifest["kind"] == "SelfSubjectAccessReview":
            asked = manifest["spec"]["resourceAttributes"]
            words = f"{asked['verb']} {asked['resource']}"
            return {"status": {"allowed": words not in self.denied}}
        if error := self.refused.get(manifest["kind"]):
            raise error
        return super().create(manifest, **how)


def checks(server: Server, **settings: Any) -> dict[str, Check]:
    return {check.what: check for check in preflight(TrainingJob(name="job", **settings), server)}


def test_a_permission_to_watch_is_missed_before_wait_needs_it() -> None:
    found = checks(Server(("watch jobs", "get configmaps")))
    assert found["permissions"] == Check("permissions", "no", "may not watch jobs, get configmaps")
    assert checks(Server())["permissions"].result == "ok"


def test_the_permissions_are_those_that_the_launcher_s_calls_need() -> None:
    job = TrainingJob(name="job", queue="team")
    asked = set(needed(job))
    folder = Path(launcher.__file__).parent / "operations"
    modules = ("submission", "submitted", "surroundings", "following", "ending", "logs")
    source = "".join((folder / f"{name}.py").read_text() for name in modules)
    # Watched(cluster, "Job", …) lists and watches.
    calls = {(verb, kind) for verb, kind in re.findall(r"cluster\.(get|list|patch|delete)\(\"(\w+)\"", source)}
    mirrored = re.findall(r"Watched\(\w+, \"(\w+)\"", source)
    calls |= {(verb, kind) for kind in mirrored for verb in ("list", "watch")}
    calls |= {("create", manifest["kind"]) for manifest in manifests(job)} | {("get", "Pod/log")}
    # Which nodes and limits there are is good to know, no more.
    assert calls - {("list", "Node"), ("list", "LimitRange")} <= asked
    assert {kind.partition("/")[0] for _, kind in asked} <= RESOURCES.keys()


def test_every_object_of_the_job_is_tried() -> None:
    refused = ApiError(403, "Forbidden", 'services "job" is forbidden: exceeded quota: none')
    found = checks(Server(refused={"Service": refused}))
    assert found["job is admitted"].result == "ok"
    assert found["its objects are admitted"] == Check("its objects are admitted", "no", f"Service: {refused}")


def test_what_can_not_be_tried_is_no_reason_against_the_job() -> None:
    pods = ApiError(403, "Forbidden", 'pods is forbidden: User "u" cannot create resource "pods" in API group ""')
    found = checks(Server(refused={"RoleBinding": NotFound('roles "job" not found'), "Pod": pods}))
    assert found["its objects are admitted"].result == "ok"
    assert 'not tried: RoleBinding: roles "job" not found' in found["its objects are admitted"].detail
    assert found["pods are admitted"] == Check("pods are admitted", "unknown", "no pod may be tried")


def test_a_quota_on_limits_counts() -> None:
    assert checks(Server())["quota team"].result == "ok"
    assert checks(Server(), workers=2)["quota team"].detail == "limits.cpu: 4 left of 4, the job asks for 6"


def test_what_a_bucket_s_check_remarks_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Remarking:
        def check(self) -> list[str]:
            return ["gs://bucket: keeps what is replaced for 7 days"]

    monkeypatch.setattr(opening, "open_store", lambda url: Remarking())
    found = checks(Server(), output="gs://bucket/runs")["--output gs://bucket/runs"]
    assert found.result == "ok"
    assert found.detail.endswith("credentials; gs://bucket: keeps what is replaced for 7 days")


def test_a_quota_counts_what_is_used() -> None:
    quota = {"status": {"hard": {"requests.cpu": "10", "pods": "5"}, "used": {"requests.cpu": "4", "pods": "0"}}}
    assert quota_shortage(quota, {"cpu": 6.0, "pods": 3.0}) is None
    assert quota_shortage(quota, {"cpu": 6.5}) == "requests.cpu: 6 left of 10, the job asks for 6.5"
    tenths = {"status": {"hard": {"requests.cpu": "500m"}, "used": {"requests.cpu": "200m"}}}
    assert quota_shortage(tenths, {"cpu": 3 * 0.1}) is None
    assert quota_shortage(tenths, {"cpu": 0.301}) == "requests.cpu: 0.3 left of 500m, the job asks for 0.301"


def test_whether_another_scheduler_runs_is_not_known() -> None:
    assert checks(Server(), scheduler_name="mine")["scheduler mine"] == Check(
        "scheduler mine", "unknown", "nothing tells whether the scheduler runs; if not, the pods wait for ever"
    )
    assert "scheduler default-scheduler" not in checks(Server(), scheduler_name="default-scheduler")


def selector(scope: str, operator: str, *values: str) -> dict[str, Any]:
    expression = {"scopeName": scope, "operator": operator} | ({"values": list(values)} if values else {})
    return {"scopeSelector": {"matchExpressions": [expression]}}


@pytest.mark.parametrize(
    ("spec", "priority", "counts"),
    [
        ({}, None, True),
        ({"scopes": ["NotBestEffort", "NotTerminating"]}, None, True),
        ({"scopes": ["BestEffort"]}, None, False),
        ({"scopes": ["NotBestEffort", "Terminating"]}, None, False),
        ({"scopes": ["CrossNamespacePodAffinity"]}, None, False),
        ({"scopes": ["PriorityClass"]}, None, False),
        (selector("PriorityClass", "In", "high"), "high", True),
        (selector("PriorityClass", "In", "high"), "low", False),
        (selector("PriorityClass", "In", "high"), None, False),
        (selector("PriorityClass", "NotIn", "high"), None, True),
        (selector("PriorityClass", "NotIn", "high"), "high", False),
        (selector("PriorityClass", "Exists"), "high", True),
        (selector("PriorityClass", "DoesNotExist"), "high", False),
        (selector("Terminating", "Exists"), None, False),
    ],
)
def test_a_quota_counts_for_the_pods_of_its_scopes_alone(
    spec: dict[str, Any], priority: str | None, counts: bool
) -> None:
    assert quota_counts({"spec": spec}, priority) is counts


def test_a_quota_for_other_pods_is_no_reason_against_a_job() -> None:
    server = Server()
    server.objects["ResourceQuota", "team"]["spec"] = {"scopes": ["BestEffort"]}
    assert "quota team" not in checks(server, workers=2)


def queue(name: str, kind: str = "LocalQueue", **spec: Any) -> Object:
    status = spec.pop("status", {})
    return {"kind": kind, "metadata": {"name": name}, "spec": spec, "status": status}


INACTIVE = {"conditions": [{"type": "Active", "status": "False", "message": "can't admit: flavor gone"}]}


@pytest.mark.parametrize(
    ("objects", "result", "detail"),
    [
        ([], "no", "is missing; there is none in this namespace"),
        ([queue("other")], "no", "is missing; there is other"),
        ([queue("team", clusterQueue="big")], "no", "leads to ClusterQueue big, which is missing"),
        ([queue("team", clusterQueue="big"), queue("big", "ClusterQueue")], "ok", "exists"),
        ([queue("team", clusterQueue="big", stopPolicy="HoldAndDrain")], "no", "is stopped (HoldAndDrain)"),
        ([queue("team", clusterQueue="big", status=INACTIVE), queue("big", "ClusterQueue")], "no",
         "is not active: can't admit: flavor gone"),
        ([queue("team", clusterQueue="big"), queue("big", "ClusterQueue", status=INACTIVE)], "no",
         "leads to ClusterQueue big, which is not active: can't admit: flavor gone"),
    ],
)  # fmt: skip
def test_a_queue_admits_jobs_or_never_will(objects: list[Object], result: str, detail: str) -> None:
    server = Server()
    for each in objects:
        server.objects[each["kind"], each["metadata"]["name"]] = each
    assert checks(server, queue="team")["LocalQueue team"] == Check("LocalQueue team", result, detail)  # type: ignore[arg-type]


def test_a_cluster_without_kueue_admits_nothing() -> None:
    server = Server()

    def before(request: str) -> None:
        if request == "list LocalQueue":
            raise NotFound("404 page not found")

    server.before = before
    found = checks(server, queue="team")["LocalQueue team"]
    assert (found.result, found.detail.partition(":")[0]) == ("no", "Kueue is not installed")


@pytest.mark.parametrize(
    ("settings", "objects", "what", "detail"),
    [
        ({"service_account": "a"}, [], "ServiceAccount a", "is missing"),
        ({"priority": "high"}, [], "PriorityClass high", "is missing"),
        ({"mount": ("configmap:c=/x",)}, [], "ConfigMap c", "is missing"),
        ({"mount": ("secret:s=/x",)}, [], "Secret s", "is missing"),
        ({"env_from_secret": ("A=s/a", "B=s/b", "C=s/c")},
         [{"kind": "Secret", "metadata": {"name": "s"}, "data": {"b": ""}}], "Secret s", "has no key a, c"),
        ({"env_from_secret": ("A=s/a",)}, [{"kind": "Secret", "metadata": {"name": "s"}, "data": None}],
         "Secret s", "has no key a"),
        ({"image_pull_secret": "s"}, [{"kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque"}],
         "Secret s", "is of type Opaque, not kubernetes.io/dockerconfigjson"),
        ({"mount": ("configmap:c=/x",)}, [{"kind": "ConfigMap", "metadata": {"name": "c", "deletionTimestamp": "now"}}],
         "ConfigMap c", "is being deleted"),
        ({"data": "pvc:c"}, [], "PersistentVolumeClaim c", "is missing"),
    ],
)  # fmt: skip
def test_what_a_job_names_is_missed_before_its_pods_wait_for_it(
    settings: dict[str, Any], objects: list[Object], what: str, detail: str
) -> None:
    server = Server()
    for each in objects:
        server.objects[each["kind"], each["metadata"]["name"]] = each
    assert checks(server, **settings)[what] == Check(what, "no", detail)


def test_a_folder_of_a_node_can_not_be_seen_from_here() -> None:
    assert checks(Server(), data="host:/srv")["host:/srv"].result == "unknown"


def test_a_claim_for_one_node_is_not_for_workers_on_several() -> None:
    server = Server()
    for name in ("n1", "n2"):
        server.objects["Node", name] = {"kind": "Node", **node(), "metadata": {"name": name}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": spec, "status": {"phase": "Bound"}}
    server.objects["PersistentVolumeClaim", "c"] = claim
    what = "PersistentVolumeClaim c"
    assert checks(server, output="pvc:c")[what].result == "ok"
    assert checks(server, output="pvc:c", workers=2)[what].result == "no"
    assert checks(server, output="pvc:c", workers=2, node_selector=("kubernetes.io/hostname=n1",))[what].result != "ok"
    server.objects["Node", "n2"]["spec"]["unschedulable"] = True
    assert checks(server, output="pvc:c", workers=2)[what].result == "ok"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cpu": "64"}, "none of 1 node(s) is large enough for one, even when it is empty: --cpu 64"),
        ({"gpus_per_worker": 4}, "even when it is empty: --cpu 2, --memory 4Gi, --gpus-per-worker 4"),
        ({"workers": 9}, "room for 3 of 9 worker(s) now, on 1 of 1 node(s)"),
        ({"workers": 2}, "room for 2 of 2 worker(s) now, on 1 of 1 node(s)"),
    ],
)
def test_room_says_what_will_never_be(settings: dict[str, Any], said: str) -> None:
    server = Server()
    server.objects["Node", "n"] = {"kind": "Node", **node()}
    assert said in checks(server, **settings)["room for all workers"].detail


@pytest.mark.parametrize(("settings", "refused"), [({"cpu": "64"}, True), ({"workers": 9}, True), ({}, False)])
def test_room_says_why_other_nodes_take_none(settings: dict[str, Any], refused: bool) -> None:
    server = Server()
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    for name, spec in (("n1", {}), ("n2", {"taints": [taint]}), ("n3", {"taints": [taint]})):
        server.objects["Node", name] = {"kind": "Node", **node(), "metadata": {"name": name}, "spec": spec}
    why = "; of the others, nodes have the taint nvidia.com/gpu=present, tolerate it with --toleration"
    assert checks(server, **settings)["room for all workers"].detail.endswith(why) == refused


def test_a_cluster_without_nodes_has_no_room() -> None:
    assert checks(Server())["room for all workers"].detail == "no node may take one: there is none"


@pytest.mark.parametrize("range_of_workers", ["1..2", "2..4"])
def test_an_older_kubernetes_without_success_policies_has_no_range(range_of_workers: str) -> None:
    class Old(Server):
        def create(self, manifest: Object, **how: Any) -> Object:
            made = super().create(manifest, **how)
            made.get("spec", {}).pop("successPolicy", None)
            return made

    assert checks(Server(), workers=range_of_workers)["job is admitted"].result == "ok"
    found = checks(Old(), workers=range_of_workers)["job is admitted"]
    assert found.result == "no"
    assert found.detail.startswith("this Kubernetes has no success policy of Jobs, so a range")
    cluster = Old()
    with pytest.raises(BadInput, match="--name job: this Kubernetes has no success policy of Jobs"):
        submit(TrainingJob(name="job", workers=range_of_workers), cluster)
    assert ("Job", "job") not in cluster.objects, "it is taken back"


def test_the_least_of_a_range_has_to_have_room() -> None:
    found = checks(Server(), workers="1..2")["quota team"]
    assert (found.result, found.detail) == (
        "ok", "has room for 1 worker(s), not for all: limits.cpu: 4 left of 4, the job asks for 6",
    )  # fmt: skip
    assert checks(Server(), workers="2..4")["quota team"].result == "no"


def test_an_older_kubernetes_without_sidecars_is_told() -> None:
    class Old(Server):
        def create(self, manifest: Object, **how: Any) -> Object:
            made = super().create(manifest, **how)
            if manifest["kind"] == "Job":
                for each in made["spec"]["template"]["spec"]["initContainers"]:
                    each.pop("restartPolicy", None)
            return made

    found = checks(Old())["job is admitted"]
    assert found.result == "no"
    assert "expected 1.29 or newer" in found.detail


def test_a_webhook_that_bears_no_dry_run_is_no_reason_against_the_job() -> None:
    error = ApiError(400, "BadRequest", 'admission webhook "policy" does not support dry run')
    found = checks(Server(refused={"Service": error, "Pod": error}))
    assert found["its objects are admitted"].result == "ok"
    assert found["pods are admitted"].result == "unknown"


def test_permissions_that_are_only_good_to_have_stop_no_job() -> None:
    found = checks(Server(("create roles", "list events", "create events")))["permissions"]
    assert found.result == "ok"
    assert found.detail.startswith("may not list events, create events, create roles: ")
