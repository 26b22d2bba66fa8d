"""What a pod's object says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from launcher.job.labels import FAILURES_ANNOTATIONS, INDEX_ANNOTATION, annotations_of

Object = Mapping[str, Any]


def requests(pod: Object) -> str:
    """What the trainer's container asks for: ``cpu 2, memory 4Gi``."""
    for container in pod["spec"]["containers"]:
        amounts = container.get("resources", {}).get("requests", {})
        return ", ".join(f"{name} {amount}" for name, amount in amounts.items()) or "nothing"
    return "nothing"


def statuses(pod: Object) -> list[Object]:
    """The statuses of all containers, the trainer's first."""
    status = pod.get("status", {})
    return [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]


def earlier_failures(pod: Object) -> int:
    """How many pods of this worker failed before, as the Job controller has counted them."""
    return sum(int(annotations_of(pod).get(name, 0)) for name in FAILURES_ANNOTATIONS)


def worker_of(pod: Object) -> int:
    """The index of the worker that a pod is an attempt of."""
    return int(annotations_of(pod).get(INDEX_ANNOTATION, 0))


def worker_of_pod_name(pod: str, job: str) -> int | None:
    """The worker of a pod by its name, JOB-INDEX-SUFFIX; None if it is no pod of the job."""
    if not pod.startswith(f"{job}-"):
        return None
    index, _, suffix = pod.removeprefix(f"{job}-").partition("-")
    return int(index) if index.isdigit() and suffix and "-" not in suffix else None


def event_time(event: Object) -> str:
    """When the event was last seen, RFC 3339."""
    series = event.get("series") or {}
    metadata = event.get("metadata", {}).get("creationTimestamp")
    return series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or metadata or ""


def condition_of(each: Object, kind: str) -> Object:
    """The condition of a pod or Job of this type; empty if it has none."""
    conditions: list[Object] = each.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == kind), {})


def seconds(time: str) -> float:
    """RFC 3339 as Unix seconds; infinite if it is not known."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return math.inf


def terminated(status: Object) -> tuple[str, Object] | None:
    """A container's name and how it ended, from its status; None while it runs."""
    state = status.get("state", {}).get("terminated")
    return (status["name"], state) if state else None


def memory_limit(pod: Object, name: str) -> str:
    """Of a container, as its manifest has it; without one it is the node's."""
    for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])):
        if container["name"] == name:
            return str(container.get("resources", {}).get("limits", {}).get("memory", "the node"))
    return "the node"
