"""Whether what a job names is there and as it has to be: claims, Secrets, accounts, queues. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from launcher.cluster.kubernetes_api import ApiError, Object
from launcher.cluster.namespace import Namespace
from launcher.diagnosis.claims import Storage, claim_verdict
from launcher.job.training_job import TrainingJob
from launcher.operations.surroundings import seen
from maskfleet.errors import NotFound
from maskfleet.text import one_line

Result = Literal["ok", "no", "unknown", "warning"]

_REGISTRY_SECRETS = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")


@dataclass(frozen=True)
class Check:
    """One line of the table; a ``warning`` is no reason against the job."""

    what: str
    result: Result
    detail: str


def check_named_objects(job: TrainingJob, cluster: Namespace, nodes: Sequence[Object] | None) -> Iterator[Check]:
    """``nodes``: those that could take a worker; None if they are not known."""
    if job.service_account:
        yield _look("ServiceAccount", job.service_account, cluster, _is_there)
    if job.priority:
        yield _look("PriorityClass", job.priority, cluster, _is_there)
    yield from _secrets(job, cluster)
    for name in dict.fromkeys(place.name for place in job.places if place.kind == "configmap"):
        yield _look("ConfigMap", name, cluster, _is_there)
    yield from _claims(job, cluster, nodes)
    for path in dict.fromkeys(place.path for place in job.places if place.kind == "host"):
        yield Check(f"host:{path}", "unknown", "has to be a folder on every node that a worker comes to")
    if job.queue:
        yield _queue(job.queue, cluster)


def _look(kind: str, name: str, cluster: Namespace, judge: Callable[[Object], tuple[Result, str]]) -> Check:
    try:
        found = cluster.get(kind, name)
    except NotFound:
        return Check(f"{kind} {name}", "no", "is missing")
    except ApiError:
        return Check(f"{kind} {name}", "unknown", "may not be read")
    return Check(f"{kind} {name}", *judge(found))


def _is_there(found: Object) -> tuple[Result, str]:
    return ("no", "is being deleted") if found["metadata"].get("deletionTimestamp") else ("ok", "exists")


def _secrets(job: TrainingJob, cluster: Namespace) -> Iterator[Check]:
    wanted: dict[str, set[str]] = {}
    for _, secret, key in job.secret_variables:
        wanted.setdefault(secret, set()).update({key} if key else set())
    for place in job.places:
        if place.kind == "secret":
            wanted.setdefault(place.name, set())
    registry = job.image_pull_secret
    for name in [*([registry] if registry else []), *(name for name in wanted if name != registry)]:
        keys = wanted.get(name, set())

        def judge(found: Object, name: str = name, keys: set[str] = keys) -> tuple[Result, str]:
            if name == registry and found.get("type", _REGISTRY_SECRETS[0]) not in _REGISTRY_SECRETS:
                return "no", f"is of type {one_line(found['type'])}, not {_REGISTRY_SECRETS[0]}"
            missing = sorted(keys - set(found.get("data") or {}))
            return ("no", f"has no key {', '.join(missing)}") if missing else _is_there(found)

        yield _look("Secret", name, cluster, judge)


def _claims(job: TrainingJob, cluster: Namespace, nodes: Sequence[Object] | None) -> Iterator[Check]:
    written = {place.name for place in [job.output_place] if place}
    written |= {mount.place.name for mount in job.mounts if not mount.read_only}
    names = dict.fromkeys(place.name for place in job.places if place.kind == "pvc")
    if not names:
        return
    storage = Storage(seen(lambda: cluster.list("StorageClass")), seen(lambda: cluster.list("PersistentVolume")))

    for name in names:

        def judge(found: Object, name: str = name) -> tuple[Result, str]:
            return claim_verdict(found, storage, workers=job.count.most, nodes=nodes, writes=name in written)

        yield _look("PersistentVolumeClaim", name, cluster, judge)


def _queue(name: str, cluster: Namespace) -> Check:
    """Whether the LocalQueue is there and admits anything."""
    what = f"LocalQueue {name}"
    try:
        queues = {queue["metadata"]["name"]: queue for queue in cluster.list("LocalQueue")}
    except NotFound:
        return Check(what, "no", "Kueue is not installed: the job would wait for ever; leave out --queue")
    except ApiError:
        return Check(what, "unknown", "queues may not be listed")
    queue = queues.get(name)
    if queue is None:
        return Check(what, "no", f"is missing; there is {', '.join(sorted(queues)[:5]) or 'none in this namespace'}")
    if (policy := queue["spec"].get("stopPolicy", "None")) != "None":
        return Check(what, "no", f"is stopped ({policy})")
    target = queue["spec"].get("clusterQueue", "")
    try:
        behind = cluster.get("ClusterQueue", target)
    except NotFound:
        return Check(what, "no", f"leads to ClusterQueue {target}, which is missing")
    except ApiError:
        behind = {}
    for each, whose in ((queue, "is"), (behind, f"leads to ClusterQueue {target}, which is")):
        for condition in each.get("status", {}).get("conditions", []):
            if condition["type"] == "Active" and condition["status"] == "False":
                return Check(what, "no", f"{whose} not active: {one_line(condition.get('message', ''))}")
    return Check(what, "ok", "exists")
