"""Whether a job would start: permissions, objects, room for all workers, storage. Keeps nothing but what it finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from launcher.cluster.kubernetes_api import Cluster, Object
from launcher.cluster.namespace import Namespace
from launcher.cluster.resources import resource_of
from launcher.diagnosis.capacity import (
    node_refusal,
    places_on,
    quota_counts,
    quota_shortage,
    worker_limits,
    worker_requests,
)
from launcher.diagnosis.gpus import Card, cards_of, describe_cards, gpu_troubles, memory_troubles
from launcher.diagnosis.limits import limit_range_troubles
from launcher.job.code import Code
from launcher.job.manifests import manifests
from launcher.job.places import BUCKETS
from launcher.job.training_job import TrainingJob
from launcher.operations.admission import RIGHTS, lacks, try_objects, try_pod
from launcher.operations.gangs import check_gang
from launcher.operations.named_objects import Check, Result, check_named_objects
from launcher.operations.network_policy import NOT_ENFORCED, known, try_policy
from launcher.operations.step_memory import step_memory
from launcher.operations.surroundings import seen
from maskfleet.errors import MaskfleetError
from maskfleet.gpu_memory import StepMemory
from maskfleet.text import format_bytes, one_line, some_of

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
_GOOD_TO_HAVE = (("list", "Event"), ("watch", "Event"), ("create", "Event"), ("get", "Pod/log"))
_WITHOUT = "the job runs, and less is told of it"


def preflight(job: TrainingJob, cluster: Namespace | None = None, *, try_network: bool = False) -> list[Check]:
    """Every check, whatever the others say; ``unknown`` where we may not look.

    With ``try_network`` two small pods find out whether NetworkPolicies are enforced; without, nothing is made.
    """
    cluster = cluster or Cluster.connect()
    nodes = seen(lambda: cluster.list("Node"))
    fitting = None if nodes is None else _fitting(job, nodes)
    return [
        *_permissions(job, cluster),
        *_admission(job, cluster),
        *check_named_objects(job, cluster, fitting),
        *_limits(job, cluster),
        *_quota(job, cluster),
        *_nodes(job, nodes, cluster),
        *_gpus(job, fitting),
        *check_gang(job, cluster),
        *_bucket(job),
        *_network(job, cluster, try_network),
    ]


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
        if not review.get("status", {}).get("allowed"):
            denied.append(f"{verb} {resource}{'/' * bool(subresource)}{subresource}")
            stops = stops or (kind not in RIGHTS and (verb, kind) not in _GOOD_TO_HAVE)
    detail = f"may not {', '.join(denied)}" if denied else "all"
    yield Check("permissions", "no" if stops else "ok", detail if stops or not denied else f"{detail}: {_WITHOUT}")


def _admission(job: TrainingJob, cluster: Namespace) -> Iterator[Check]:
    """Has the server take all objects and a worker's pod without keeping them."""
    first, *others = try_objects(job, cluster, Code.of(job))
    if first.answer == "admitted" and (missing := lacks(job, first.made)):
        yield Check("job is admitted", "no", missing)
    elif first.answer == "admitted":
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
    untried = [f"{each.kind}: {each.reason}" for each in others if each.answer == "untried"]
    left_out = [each.kind for each in others if each.answer == "left out"]
    if refusals:
        yield Check("its objects are admitted", "no", "; ".join(refusals))
    else:
        rest = f"; not tried: {', '.join(untried)}" if untried else ""
        rest += f"; left out, so no progress on the job: {', '.join(left_out)}" if left_out else ""
        yield Check("its objects are admitted", "ok", _TAKEN + rest)
    pod = try_pod(job, cluster, job.service_account or "default")
    if pod.answer == "untried":
        yield Check("pods are admitted", "unknown", "no pod may be tried")
    else:
        yield Check("pods are admitted", "no" if pod.error else "ok", pod.reason or _TAKEN)


def _limits(job: TrainingJob, cluster: Namespace) -> Iterator[Check]:
    """LimitRanges, for who may not try a pod; the server holds a pod that is tried against them itself."""
    found = seen(lambda: cluster.list("LimitRange"))
    if found is None:
        yield Check("limits", "unknown", "LimitRanges may not be listed")
        return
    for limit_range in found:
        name = limit_range["metadata"]["name"]
        troubles = list(limit_range_troubles(limit_range, manifests(job)[0]))
        yield Check(f"limits {name}", "no" if troubles else "ok", "; ".join(troubles) or "a worker is within them")


def _quota(job: TrainingJob, cluster: Namespace) -> Iterator[Check]:
    quotas = seen(lambda: cluster.list("ResourceQuota"))
    if quotas is None:
        yield Check("quota", "unknown", "quotas may not be read")
        return
    first = manifests(job)[0]
    one = {**worker_requests(first), **{f"limits.{name}": amount for name, amount in worker_limits(first).items()}}
    least, most = (
        {name: amount * count for name, amount in one.items()} for count in (job.count.least, job.count.most)
    )
    for quota in quotas:
        name = quota["metadata"]["name"]
        if not quota_counts(quota, job.priority):
            continue
        if shortage := quota_shortage(quota, least):
            yield Check(f"quota {name}", "no", shortage)
        elif job.count.is_range and (shortage := quota_shortage(quota, most)):
            yield Check(f"quota {name}", "ok", f"has room for {job.count.least} worker(s), not for all: {shortage}")
        else:
            yield Check(f"quota {name}", "ok", f"has room for {job.workers} worker(s)")


def _nodes(job: TrainingJob, nodes: Sequence[Object] | None, cluster: Namespace) -> Iterator[Check]:
    what = "room for all workers"
    if nodes is None:
        yield Check(what, "unknown", "nodes may not be read")
        return
    first = manifests(job)[0]
    pod, need = first["spec"]["template"]["spec"], worker_requests(first)
    fitting = _fitting(job, nodes)
    refusals = sorted({why for node in nodes if (why := node_refusal(node, pod))})
    if not fitting:
        why = some_of(refusals or ["there is none"], separator="; ")
        yield Check(what, "no", f"no node may take one: {why}")
        return
    rest = f"; of the others, {some_of(refusals, separator='; ')}" if refusals else ""
    if not any(places_on(node, [], need) for node in fitting):
        asked = f"--cpu {job.cpu}, --memory {job.memory}, --gpus-per-worker {job.gpus_per_worker}"
        on = f"none of {len(fitting)} node(s) is large enough for one, even when it is empty: {asked}"
        yield Check(what, "no", f"room for 0 of {job.workers} worker(s) now: {on}{rest}")
        return
    pods = seen(lambda: cluster.list("Pod", everywhere=True))
    if pods is None:
        empty = sum(places_on(node, [], need) for node in fitting)
        room = (
            f"room for {min(empty, job.count.most)} of {job.workers} worker(s) on empty nodes; pods may not be listed"
        )
        yield Check(what, "unknown" if empty >= job.count.least else "no", room)
        return
    on_node: dict[str, list[Object]] = {}
    for each in pods:
        on_node.setdefault(each["spec"].get("nodeName", ""), []).append(each)
    places = sum(places_on(node, on_node.get(node["metadata"]["name"], []), need) for node in fitting)
    room = f"room for {min(places, job.count.most)} of {job.workers} worker(s) now"
    where = f"on {len(fitting)} of {len(nodes)} node(s)"
    result: Result = "ok" if places >= job.count.least else "no"
    yield Check(what, result, f"{room}, {where}" + ("" if places >= job.count.most else rest))


def _gpus(job: TrainingJob, fitting: Sequence[Object] | None) -> Iterator[Check]:
    """Which card it will be, of those on nodes that may take a worker."""
    if not job.gpus_per_worker:
        return
    if not (cards := cards_of(fitting or ())):
        yield Check("GPU", "unknown", "no label of a node tells which")
        return
    told = describe_cards(cards)
    if troubles := gpu_troubles(cards):
        yield Check("GPU", "no" if len(troubles) == len(cards) else "warning", f"{told}; {'; '.join(troubles)}")
    else:
        yield Check("GPU", "ok", told)
    yield _gpu_memory(job, cards)


def _gpu_memory(job: TrainingJob, cards: Mapping[Card, int]) -> Check:
    """Whether a step will fit each card whose memory is known."""
    what, known = "GPU memory", [card for card in cards if card.memory is not None]
    if not known:
        return Check(what, "unknown", "no label of a node tells how much there is")
    step = step_memory(job)
    if not isinstance(step, StepMemory):
        return Check(what, "unknown", step)
    if troubles := memory_troubles(known, step, job.training):
        return Check(what, "warning", "; ".join(troubles))
    return Check(what, "ok", f"a step takes {format_bytes(step.least)} or more")


def _fitting(job: TrainingJob, nodes: Sequence[Object]) -> Sequence[Object]:
    """The nodes that may take a worker, whatever their room."""
    pod = manifests(job)[0]["spec"]["template"]["spec"]
    return [node for node in nodes if node_refusal(node, pod) is None]


def _network(job: TrainingJob, cluster: Namespace, try_network: bool) -> Iterator[Check]:
    """Of several workers, whose ports are open to the cluster; one alone has none."""
    if job.count.most == 1:
        return
    found = try_policy(job, cluster) if try_network else known(cluster)
    result: Result = "unknown" if found.enforced is None else "ok" if found.enforced else "warning"
    words = {None: "", True: "is enforced, ", False: f"{NOT_ENFORCED}, "}[found.enforced]
    yield Check("NetworkPolicy", result, words + found.why)


def _bucket(job: TrainingJob) -> Iterator[Check]:
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
