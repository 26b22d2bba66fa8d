"""Room for a job's pods: quotas and nodes, as the server described them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from launcher.diagnosis.pods import condition_of
from launcher.job.labels import labels_of
from launcher.job.quantities import is_more, parse_quantity
from maskfleet.text import format_bytes

Object = Mapping[str, Any]


def worker_requests(job: Object) -> dict[str, float]:
    """What one worker's pod asks for, in base units, with the key ``pods`` for itself.

    A sidecar runs along with the trainer, so their requests add up; the init container that comes before
    asks for no more than the sidecar.
    """
    return {"pods": 1.0, **sum_over_containers(job["spec"]["template"]["spec"], "requests")}


def worker_limits(job: Object) -> dict[str, float]:
    """What one worker's pod may use at most, in base units; added up as its requests are."""
    return sum_over_containers(job["spec"]["template"]["spec"], "limits")


def sum_over_containers(pod: Object, which: str) -> dict[str, float]:
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
        if is_more(amount, left):
            show = format_bytes if limit.endswith(("memory", "storage")) else "{:g}".format
            return f"{limit}: {show(left)} left of {hard}, the job asks for {show(amount)}"
    return None


def node_refusal(node: Object, pod: Object) -> str | None:
    """Why a pod may not run on ``node`` whatever its room; None if it may."""
    if node["spec"].get("unschedulable"):
        return "nodes are cordoned"
    if condition_of(node, "Ready").get("status") != "True":
        return "nodes are not ready"
    labels = labels_of(node)
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
    allocatable = node.get("status", {}).get("allocatable") or {}
    free = {name: parse_quantity(amount) for name, amount in allocatable.items()}
    for pod in pods:
        if pod["spec"].get("nodeName") != node["metadata"]["name"]:
            continue
        if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            continue
        free["pods"] = free.get("pods", 0.0) - 1
        for name, amount in sum_over_containers(pod["spec"], "requests").items():
            free[name] = free.get(name, 0.0) - amount
    return max(0, min(int((free.get(name, 0.0) + 1e-9) // amount) for name, amount in need.items() if amount))
