"""Whether a job would start: permissions, objects, room for all workers, storage. Keeps nothing but what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from launcher.cluster.kubernetes_api import ApiError, Cluster, resource_of
from launcher.cluster.namespace import Namespace
from launcher.diagnosis.capacity import (
    node_refusal,
    places_on,
    quota_counts,
    quota_shortage,
    worker_limits,
    worker_requests,
)
from launcher.job.manifests import manifests
from launcher.job.places import BUCKETS
from launcher.job.training_job import TrainingJob
from launcher.operations.admission import RIGHTS, try_objects, try_pod
from launcher.operations.network_policy import NOT_ENFORCED, known, try_policy
from maskfleet.errors import MaskfleetError, NotFound
from maskfleet.text import one_line

Result = Literal["ok", "no", "unknown", "warning"]

_TAKEN = "the server would take it"

# What submit, status, wait, logs, cancel, resume and delete ask of the API server for every job.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "Job": ("create", "get", "list", "watch", "patch", "delete"),
    "Pod": ("get", "list", "watch"),
    "Pod/log": ("get",),
    "Event": ("list", "watch", "create"),  # create: who gives a right has to have it
    # get: to finish an interrupted submit; list: to see that a delete has come to its end
    "ConfigMap": ("create", "get", "list"),
    "Secret": ("create", "get"),
    "Service": ("create", "get", "list"),
    "NetworkPolicy": ("create", "get"),
    "Role": ("create", "get"),
    "RoleBinding": ("create", "get"),
}
# Whoever may not do these trains all the same.
_GOOD_TO_HAVE = (("list", "Event"), ("watch", "Event"), ("create", "Event"))
_WITHOUT = "the job runs, and less is told of it"


@dataclass(frozen=True)
class Check:
    """One line of the table; a ``warning`` is no reason against the job."""

    what: str
    result: Result
    detail: str


def preflight(job: TrainingJob, cluster: Namespace | None = None, *, try_network: bool = False) -> list[Check]:
    """Every check, whatever the others say; ``unknown`` where we may not look.

    With ``try_network`` two small pods find out whether NetworkPolicies are enforced; without, nothing is made.
    """
    cluster = cluster or Cluster.connect()
    groups: Sequence[Callable[[TrainingJob, Namespace], Iterable[Check]]] = (
        _permissions, _admission, _objects, _quota, _nodes, _bucket,
    )  # fmt: skip
    checks = [check for group in groups for check in group(job, cluster)]
    return [*checks, *_network(job, cluster, try_network)]


def needed(job: TrainingJob) -> list[tuple[str, str]]:
    """The verbs and kinds that the launcher uses for ``job``."""
    pairs = [(verb, kind) for kind, verbs in _NEEDED.items() for verb in verbs]
    if not job.service_account:
        pairs += [("create", "ServiceAccount"), ("get", "ServiceAccount")]
    if job.queue:
        pairs += [("list", "Workload"), ("patch", "Workload")]
    return pairs


def _permissions(job: TrainingJob, cluster: Namespace) -> Iterator[Check]:
    denied, stops = [], False
    for verb, kind in needed(job):
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
            stops = stops or (kind not in RIGHTS and (verb, kind) not in _GOOD_TO_HAVE)
    detail = f"may not {', '.join(denied)}" if denied else "all"
    yield Check("permissions", "no" if stops else "ok", detail if stops or not denied else f"{detail}: {_WITHOUT}")


def _admission(job: TrainingJob, cluster: Namespace) -> Iterator[Check]:
    """Has the server take all objects and a worker's pod without keeping them."""
    first, *others = try_objects(job, cluster)
    if first.answer == "admitted":
        yield Check("job is admitted", "ok", _TAKEN)
    else:
        there = f"a job named {job.name} exists: choose another --name or delete it"
        yield Check("job is admitted", "no", there if first.answer == "exists" else first.reason)
    # What is there of a job that is there is its own.
    against = ("refused",) if first.answer == "exists" else ("refused", "exists")
    taken = f"there is one named {job.name}: choose another --name or delete it"
    refusals = [
        f"{each.kind}: {taken if each.answer == 'exists' else each.reason}" for each in others if each.answer in against
    ]
    untried = [f"{each.kind}: {each.reason}" for each in others if each.answer in ("untried", "left out")]
    if refusals:
        yield Check("its objects are admitted", "no", "; ".join(refusals))
    else:
        rest = f"; not tried: {', '.join(untried)}" if untried else ""
        yield Check("its objects are admitted", "ok", _TAKEN + rest)
    pod = try_pod(job, cluster, job.service_account or "default")
    if pod.answer == "untried":
        yield Check("pods are admitted", "unknown", "no pod may be tried")
    else:
        yield Check("pods are admitted", "no" if pod.error else "ok", pod.reason or _TAKEN)


def _objects(job: TrainingJob, cluster: Namespace) -> Iterator[Check]:
    """Secrets, ConfigMaps and claims that the job names."""
    wanted: dict[tuple[str, str], set[str]] = {}
    if job.image_pull_secret:
        wanted["Secret", job.image_pull_secret] = set()
    for _, secret, key in job.secret_variables:
        wanted.setdefault(("Secret", secret), set()).update({key} if key else set())
    kinds = {"pvc": "PersistentVolumeClaim", "secret": "Secret", "configmap": "ConfigMap"}
    for place in job.places:
        if place.kind in kinds:
            wanted.setdefault((kinds[place.kind], place.name), set())
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


def _quota(job: TrainingJob, cluster: Namespace) -> Iterator[Check]:
    try:
        quotas = cluster.list("ResourceQuota")
    except ApiError:
        yield Check("quota", "unknown", "quotas may not be read")
        return
    first = manifests(job)[0]
    one = {**worker_requests(first), **{f"limits.{name}": amount for name, amount in worker_limits(first).items()}}
    asked = {name: amount * job.workers for name, amount in one.items()}
    for quota in quotas:
        name = quota["metadata"]["name"]
        if not quota_counts(quota, job.priority):
            continue
        if shortage := quota_shortage(quota, asked):
            yield Check(f"quota {name}", "no", shortage)
        else:
            yield Check(f"quota {name}", "ok", f"has room for {job.workers} worker(s)")


def _nodes(job: TrainingJob, cluster: Namespace) -> Iterator[Check]:
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


def _network(job: TrainingJob, cluster: Namespace, try_network: bool) -> Iterator[Check]:
    """Of several workers, whose ports are open to the cluster; one alone has none."""
    if job.workers == 1:
        return
    found = try_policy(job, cluster) if try_network else known(cluster)
    result: Result = "unknown" if found.enforced is None else "ok" if found.enforced else "warning"
    words = {None: "", True: "is enforced, ", False: f"{NOT_ENFORCED}, "}[found.enforced]
    yield Check("NetworkPolicy", result, words + found.why)


def _bucket(job: TrainingJob, cluster: Namespace) -> Iterator[Check]:
    """Reaches the buckets with this machine's credentials: the pods' own may differ."""
    from launcher.streaming.stores.opening import open_store

    for what, place in (("--data", job.data_place), ("--output", job.output_place)):
        if place is None or place.kind not in BUCKETS:
            continue
        try:
            store = open_store(place.url)
            remarks: list[str] = []
            if what == "--output":
                remarks = store.check()
            elif next(iter(store.list()), None) is None:
                yield Check(f"{what} {place.url}", "no", "there is nothing")
                continue
            reached = "can be reached with this machine's credentials"
            yield Check(f"{what} {place.url}", "ok", "; ".join([reached, *remarks]))
        except MaskfleetError as error:
            yield Check(f"{what} {place.url}", "no", one_line(str(error)))
