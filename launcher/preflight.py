"""Whether a job would start: permissions, objects, room for all workers, storage. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from launcher import reasons
from launcher.job import TrainingJob, parse_secret_variable
from launcher.kubernetes_api import ApiError, Cluster, Object, resource_of
from launcher.manifests import manifests
from launcher.quantities import format_bytes, parse_quantity
from launcher.sources import BUCKETS, parse_mount
from trainer.exit_codes import MaskfleetError, NotFound

Result = Literal["ok", "no", "unknown"]

# What submit, status, logs and delete do.
_NEEDED = (
    ("create", "Job"), ("get", "Job"), ("patch", "Job"), ("delete", "Job"), ("list", "Job"), ("create", "Service"),
    ("create", "ConfigMap"), ("create", "NetworkPolicy"), ("create", "ServiceAccount"), ("create", "Role"),
    ("create", "RoleBinding"), ("list", "Pod"), ("get", "Pod/log"), ("list", "Event"),
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    what: str
    result: Result
    detail: str


def preflight(job: TrainingJob, cluster: Cluster) -> list[Check]:
    """Every check, whatever the others say; ``unknown`` where we may not look."""
    groups: Sequence[Callable[[TrainingJob, Cluster], Iterable[Check]]] = (
        _permissions, _admission, _objects, _quota, _nodes, _bucket,
    )  # fmt: skip
    return [check for group in groups for check in group(job, cluster)]


def _permissions(job: TrainingJob, cluster: Cluster) -> Iterator[Check]:
    denied = []
    for verb, kind in _NEEDED:
        group, resource, subresource = resource_of(kind)
        attributes = {"namespace": cluster.namespace, "verb": verb, "group": group, "resource": resource}
        if subresource:
            attributes["subresource"] = subresource
        review = cluster.create(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            }
        )
        if not review["status"]["allowed"]:
            denied.append(f"{verb} {resource}{'/' * bool(subresource)}{subresource}")
    yield Check("permissions", "no" if denied else "ok", f"may not {', '.join(denied)}" if denied else "all")


def _admission(job: TrainingJob, cluster: Cluster) -> Iterator[Check]:
    """Has the server take the Job and a worker's pod without keeping them."""
    first = manifests(job)[0]
    template = first["spec"]["template"]
    spec = {**template["spec"], "serviceAccountName": job.service_account or "default"}
    metadata = {
        **template["metadata"], "name": f"{job.name}-check", "annotations": {reasons.INDEX_ANNOTATION: "0"},
    }  # fmt: skip
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    for what, manifest in (("job is admitted", first), ("pods are admitted", pod)):
        try:
            cluster.create(manifest, dry_run=True)
            yield Check(what, "ok", "the server would take it")
        except ApiError as error:
            if error.status == 409:
                yield Check(what, "no", f"a job named {job.name} exists: choose another --name or delete it")
            else:
                yield Check(what, "no", reasons.refused_creation(str(error)))


def _objects(job: TrainingJob, cluster: Cluster) -> Iterator[Check]:
    """Secrets, ConfigMaps and claims that the job names."""
    wanted: dict[tuple[str, str], set[str]] = {}
    if job.image_pull_secret:
        wanted["Secret", job.image_pull_secret] = set()
    for _, secret, key in map(parse_secret_variable, job.env_from_secret):
        wanted.setdefault(("Secret", secret), set()).update({key} if key else set())
    sources = [job.data_source, job.output_source, *(parse_mount(item).source for item in job.mount)]
    kinds = {"pvc": "PersistentVolumeClaim", "secret": "Secret", "configmap": "ConfigMap"}
    for source in sources:
        if source and source.kind in kinds:
            wanted.setdefault((kinds[source.kind], source.name), set())
    for (kind, name), keys in wanted.items():
        try:
            found = cluster.get(kind, name)
        except NotFound:
            yield Check(f"{kind} {name}", "no", "is missing")
        except ApiError:
            yield Check(f"{kind} {name}", "unknown", "may not be read")
        else:
            missing = sorted(keys - set(found.get("data", {})))
            yield Check(
                f"{kind} {name}", "no" if missing else "ok", f"has no key {missing[0]}" if missing else "exists"
            )


def _quota(job: TrainingJob, cluster: Cluster) -> Iterator[Check]:
    try:
        quotas = cluster.list("ResourceQuota")
    except ApiError:
        yield Check("quota", "unknown", "quotas may not be read")
        return
    asked = {name: amount * job.workers for name, amount in worker_requests(manifests(job)[0]).items()}
    for quota in quotas:
        name = quota["metadata"]["name"]
        if shortage := quota_shortage(quota, asked):
            yield Check(f"quota {name}", "no", shortage)
        else:
            yield Check(f"quota {name}", "ok", f"has room for {job.workers} worker(s)")


def _nodes(job: TrainingJob, cluster: Cluster) -> Iterator[Check]:
    try:
        nodes = cluster.list("Node")
        pods = cluster.list("Pod", everywhere=True)
    except ApiError:
        yield Check("room for all workers", "unknown", "nodes may not be read")
        return
    pod = manifests(job)[0]["spec"]["template"]["spec"]
    fitting = [node for node in nodes if node_refusal(node, pod) is None]
    if not fitting:
        causes = {node_refusal(node, pod) for node in nodes}
        yield Check("room for all workers", "no", f"no node may take one: {'; '.join(sorted(filter(None, causes)))}")
        return
    need = worker_requests(manifests(job)[0])
    places = sum(places_on(node, pods, need) for node in fitting)
    room = f"room for {places} of {job.workers} worker(s) now, on {len(fitting)} of {len(nodes)} node(s)"
    yield Check("room for all workers", "ok" if places >= job.workers else "no", room)


def _bucket(job: TrainingJob, cluster: Cluster) -> Iterator[Check]:
    """Reaches the buckets with this machine's credentials: the pods' own may differ."""
    from launcher.streaming.stores import open_store

    for what, source in (("--data", job.data_source), ("--output", job.output_source)):
        if source is None or source.kind not in BUCKETS:
            continue
        try:
            store = open_store(source.url)
            if what == "--output":
                store.check()
            elif next(iter(store.list()), None) is None:
                yield Check(f"{what} {source.url}", "no", "there is nothing")
                continue
            yield Check(f"{what} {source.url}", "ok", "can be reached with this machine's credentials")
        except MaskfleetError as error:
            yield Check(f"{what} {source.url}", "no", reasons.one_line(str(error)))


def worker_requests(job: Object) -> dict[str, float]:
    """What one worker's pod asks for, in base units, with the key ``pods`` for itself.

    A sidecar runs along with the trainer, so their requests add up; the init container that comes before
    asks for no more than the sidecar.
    """
    pod = job["spec"]["template"]["spec"]
    total: dict[str, float] = {"pods": 1.0}
    sidecars = [c for c in pod["initContainers"] if c.get("restartPolicy") == "Always"]
    for container in (*sidecars, *pod["containers"]):
        for name, amount in container["resources"]["requests"].items():
            total[name] = total.get(name, 0.0) + parse_quantity(amount)
    return total


def quota_shortage(quota: Mapping[str, Any], asked: Mapping[str, float]) -> str | None:
    """The first limit of a ResourceQuota that ``asked`` goes over, in words; None if there is room."""
    status = quota.get("status", {})
    for limit, hard in status.get("hard", {}).items():
        amount = asked.get(limit.removeprefix("requests."))
        if amount is None:
            continue
        left = parse_quantity(hard) - parse_quantity(status.get("used", {}).get(limit, "0"))
        if amount > left:
            show = format_bytes if "memory" in limit else "{:g}".format
            return f"{limit}: {show(left)} left of {hard}, the job asks for {show(amount)}"
    return None


def node_refusal(node: Object, pod: Object) -> str | None:
    """Why a pod may not run on ``node`` whatever its room; None if it may."""
    if node["spec"].get("unschedulable"):
        return "nodes are cordoned"
    ready = next((c for c in node["status"].get("conditions", []) if c["type"] == "Ready"), None)
    if ready is None or ready["status"] != "True":
        return "nodes are not ready"
    labels = node["metadata"].get("labels", {})
    for key, value in pod.get("nodeSelector", {}).items():
        if labels.get(key) != value:
            return f"nodes lack the label {key}={value}"
    for taint in node["spec"].get("taints", []):
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(t, taint) for t in pod.get("tolerations", [])):
            value = f"={taint['value']}" if taint.get("value") else ""
            return f"nodes have the taint {taint['key']}{value}, tolerate it with --toleration"
    return None


def _tolerates(toleration: Mapping[str, str], taint: Mapping[str, str]) -> bool:
    same_effect = toleration.get("effect") in (None, taint["effect"])
    same_value = toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
    return toleration.get("key") == taint["key"] and same_effect and same_value


def places_on(node: Object, pods: Iterable[Object], need: Mapping[str, float]) -> int:
    """How many workers have room on ``node`` beside the ``pods`` that are there."""
    free = {name: parse_quantity(amount) for name, amount in node["status"]["allocatable"].items()}
    for pod in pods:
        if pod["spec"].get("nodeName") != node["metadata"]["name"]:
            continue
        if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            continue
        free["pods"] -= 1
        sidecars = [c for c in pod["spec"].get("initContainers", []) if c.get("restartPolicy") == "Always"]
        for container in (*sidecars, *pod["spec"]["containers"]):
            for name, amount in container.get("resources", {}).get("requests", {}).items():
                free[name] = free.get(name, 0.0) - parse_quantity(amount)
    return max(0, min(int((free.get(name, 0.0) + 1e-9) // amount) for name, amount in need.items() if amount))
