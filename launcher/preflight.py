"""Whether a job would start: permissions, objects, room for all workers, storage. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from launcher import reasons
from launcher.job import TrainingJob
from launcher.kubernetes_api import ApiError, Cluster, Object, resource_of
from launcher.manifests import manifests, worker_pod
from launcher.pod_settings import parse_secret_variable
from launcher.quantities import format_bytes, parse_quantity
from launcher.sources import BUCKETS, parse_mount
from trainer.exit_codes import MaskfleetError, NotFound

Result = Literal["ok", "no", "unknown"]

_TAKEN = "the server would take it"

# What submit, status, wait, logs, cancel, resume and delete ask of the API server for every job.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "Job": ("create", "get", "list", "watch", "patch", "delete"),
    "Pod": ("get", "list", "watch"),
    "Pod/log": ("get",),
    "Event": ("list", "watch"),
    # get: to finish an interrupted submit; list: to see that a delete has come to its end
    "ConfigMap": ("create", "get", "list"),
    "Service": ("create", "get", "list"),
    "NetworkPolicy": ("create", "get"),
    "Role": ("create", "get"),
    "RoleBinding": ("create", "get"),
}


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


def needed(job: TrainingJob) -> list[tuple[str, str]]:
    """The verbs and kinds that the launcher uses for ``job``."""
    pairs = [(verb, kind) for kind, verbs in _NEEDED.items() for verb in verbs]
    if not job.service_account:
        pairs += [("create", "ServiceAccount"), ("get", "ServiceAccount")]
    if job.queue:
        pairs += [("list", "Workload"), ("patch", "Workload")]
    return pairs


def _permissions(job: TrainingJob, cluster: Cluster) -> Iterator[Check]:
    denied = []
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
    yield Check("permissions", "no" if denied else "ok", f"may not {', '.join(denied)}" if denied else "all")


def _admission(job: TrainingJob, cluster: Cluster) -> Iterator[Check]:
    """Has the server take all objects and a worker's pod without keeping them."""
    first, *others = manifests(job)
    exists = False
    try:
        cluster.create(first, dry_run=True)
        yield Check("job is admitted", "ok", _TAKEN)
    except (ApiError, NotFound) as error:
        exists = isinstance(error, ApiError) and error.status == 409
        name = f"a job named {job.name} exists: choose another --name or delete it"
        yield Check("job is admitted", "no", name if exists else reasons.one_line(str(error)))
    refusals: list[str] = []
    untried: list[str] = []
    for manifest in others:
        kind = manifest["kind"]
        try:
            cluster.create(manifest, dry_run=True)
        except NotFound as error:
            # Only who may do anything may bind a Role that is not there yet, as none is in a dry run.
            (untried if kind == "RoleBinding" else refusals).append(f"{kind}: {reasons.one_line(str(error))}")
        except ApiError as error:
            if error.status != 409:
                refusals.append(f"{kind}: {reasons.one_line(str(error))}")
            elif not exists:
                refusals.append(f"{kind}: there is one named {job.name}: choose another --name or delete it")
    if refusals:
        yield Check("its objects are admitted", "no", "; ".join(refusals))
    elif untried:
        yield Check("its objects are admitted", "ok", f"{_TAKEN}; not tried: {', '.join(untried)}")
    else:
        yield Check("its objects are admitted", "ok", _TAKEN)
    yield _pod_admission(job, first, cluster)


def _pod_admission(job: TrainingJob, first: Object, cluster: Cluster) -> Check:
    what = "pods are admitted"
    try:
        cluster.create(worker_pod(first, job.service_account or "default"), dry_run=True)
    except NotFound as error:
        return Check(what, "no", reasons.one_line(str(error)))
    except ApiError as error:
        if "cannot create resource" in str(error):  # nor need we: the Job's controller makes them
            return Check(what, "unknown", "no pod may be tried")
        return Check(what, "no", reasons.refused_creation(str(error)))
    return Check(what, "ok", _TAKEN)


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
            remarks: list[str] = []
            if what == "--output":
                remarks = store.check()
            elif next(iter(store.list()), None) is None:
                yield Check(f"{what} {source.url}", "no", "there is nothing")
                continue
            reached = "can be reached with this machine's credentials"
            yield Check(f"{what} {source.url}", "ok", "; ".join([reached, *remarks]))
        except MaskfleetError as error:
            yield Check(f"{what} {source.url}", "no", reasons.one_line(str(error)))


def worker_requests(job: Object) -> dict[str, float]:
    """What one worker's pod asks for, in base units, with the key ``pods`` for itself.

    A sidecar runs along with the trainer, so their requests add up; the init container that comes before
    asks for no more than the sidecar.
    """
    return {"pods": 1.0, **_sum_over_containers(job["spec"]["template"]["spec"], "requests")}


def worker_limits(job: Object) -> dict[str, float]:
    """What one worker's pod may use at most, in base units; added up as its requests are."""
    return _sum_over_containers(job["spec"]["template"]["spec"], "limits")


def _sum_over_containers(pod: Object, which: str) -> dict[str, float]:
    total: dict[str, float] = {}
    sidecars = [c for c in pod.get("initContainers", []) if c.get("restartPolicy") == "Always"]
    for container in (*sidecars, *pod["containers"]):
        for name, amount in container.get("resources", {}).get(which, {}).items():
            total[name] = total.get(name, 0.0) + parse_quantity(amount)
    return total


def quota_counts(quota: Mapping[str, Any], priority: str | None) -> bool:
    """Whether the scopes of a ResourceQuota select workers: pods that request something and have no deadline.

    A PriorityClass that the cluster gives to pods without one is not known.
    """
    spec = quota.get("spec", {})
    scopes = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes", [])]
    for scope in [*scopes, *spec.get("scopeSelector", {}).get("matchExpressions", [])]:
        selected = scope["scopeName"] in ("NotBestEffort", "NotTerminating")
        if scope["scopeName"] == "PriorityClass":
            selected = {
                "In": priority in scope.get("values", []),
                "NotIn": priority not in scope.get("values", []),
                "Exists": priority is not None,
                "DoesNotExist": priority is None,
            }[scope["operator"]]
        if not selected:
            return False
    return True


def quota_shortage(quota: Mapping[str, Any], asked: Mapping[str, float]) -> str | None:
    """The first limit of a ResourceQuota that ``asked`` goes over, in words; None if there is room."""
    status = quota.get("status", {})
    for limit, hard in status.get("hard", {}).items():
        amount = asked.get(limit.removeprefix("requests."))
        if amount is None:
            continue
        left = parse_quantity(hard) - parse_quantity(status.get("used", {}).get(limit, "0"))
        if amount > left:
            show = format_bytes if limit.endswith(("memory", "storage")) else "{:g}".format
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
    terms = _required_terms(pod)
    if terms and not any(all(_selects(e, labels) for e in term.get("matchExpressions", [])) for term in terms):
        wanted = " or ".join(f"{e['key']}={e['values'][0]}" for term in terms for e in term["matchExpressions"])
        return f"nodes lack any of the labels {wanted}"
    for taint in node["spec"].get("taints", []):
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(t, taint) for t in pod.get("tolerations", [])):
            value = f"={taint['value']}" if taint.get("value") else ""
            return f"nodes have the taint {taint['key']}{value}, tolerate it with --toleration"
    return None


def _required_terms(pod: Object) -> list[Object]:
    """Of which a node has to fulfil one; of a worker's pod, what --spot asks for."""
    affinity = pod.get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    return list(required.get("nodeSelectorTerms", []))


def _selects(expression: Object, labels: Mapping[str, str]) -> bool:
    assert expression["operator"] == "In"  # what the launcher writes
    return labels.get(expression["key"]) in expression["values"]


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
        for name, amount in _sum_over_containers(pod["spec"], "requests").items():
            free[name] = free.get(name, 0.0) - amount
    return max(0, min(int((free.get(name, 0.0) + 1e-9) // amount) for name, amount in need.items() if amount))
