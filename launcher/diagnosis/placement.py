"""Workers that find no node, seen as the job that needs them all at once. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from launcher.diagnosis.capacity import sum_over_containers
from launcher.diagnosis.pods import condition_of
from launcher.diagnosis.reasons import NO_NODE, WAITS
from launcher.diagnosis.worker_status import WorkerStatus
from launcher.diagnosis.workers_range import count_of
from launcher.job.labels import INSTANCE_LABEL, labels_of
from maskfleet.text import some_of

Object = Mapping[str, Any]


def is_gang(pods: Iterable[Object]) -> bool:
    """Whether Kubernetes places the pods all at once or not at all (spec.schedulingGroup, from 1.36 on)."""
    return any(pod["spec"].get("schedulingGroup") for pod in pods)


def gang_reason(waiting: Sequence[WorkerStatus], count: int) -> str:
    """Why a gang of ``count`` workers is not placed: what stops most of those that more than their turn hinders."""
    hindrances = Counter(row.reason for row in waiting if not row.reason.startswith(WAITS))
    if not hindrances:
        return f"the gang of {count} waits until all of it finds room at once"
    ((reason, _),) = hindrances.most_common(1)
    return f"the gang of {count} does not fit: " + re.sub(rf"^{NO_NODE} \((.*)\); ", r"\1; ", reason)


def deadlock(job: str, pods: Iterable[Object]) -> str:
    """What to do about jobs that hold room which ``job`` needs, while it holds room which they need; empty without any.

    Each of them has workers on nodes that wait for others which find none. ``pods`` are those of all jobs.
    """
    by_job: dict[str, list[Object]] = {}
    for pod in pods:
        by_job.setdefault(labels_of(pod).get(INSTANCE_LABEL, ""), []).append(pod)
    held = {name: (_lacks(own), _holds(own)) for name, own in by_job.items() if is_partly_placed(own)}
    lacks, holds = held.pop(job, (set(), set()))
    others = sorted(name for name, (theirs, room) in held.items() if lacks & room and theirs & holds)
    if not others:
        return ""
    whose = "the other waits" if len(others) == 1 else "the others wait"
    return f"it and {some_of(others, most=3)} block each other: each holds room that {whose} for, cancel one"


def is_partly_placed(pods: Iterable[Object]) -> bool:
    """Whether some have a node, and are too few to train, while others find none; a gang never has."""
    there = _not_ended(pods)
    placed = [pod for pod in there if _is_placed(pod)]
    count = count_of(placed[0]) if placed else None
    if count is not None and count.is_range and len(placed) >= count.least:
        return False
    return bool(placed) and any(map(_refusal, there))


def _lacks(pods: Iterable[Object]) -> set[str]:
    """The resources that the scheduler misses on nodes for those that have none."""
    said = " ".join(map(_refusal, _not_ended(pods)))
    return set(re.findall(r"Insufficient ([\w./-]*\w)", said)) | ({"pods"} if "Too many pods" in said else set())


def _holds(pods: Iterable[Object]) -> set[str]:
    """The resources that those on nodes have of them; each is also one of the ``pods`` that a node takes."""
    placed = filter(_is_placed, _not_ended(pods))
    return {"pods"}.union(*(sum_over_containers(pod["spec"], "requests") for pod in placed))


def _not_ended(pods: Iterable[Object]) -> list[Object]:
    return [pod for pod in pods if pod.get("status", {}).get("phase") in (None, "Pending", "Running")]


def _is_placed(pod: Object) -> bool:
    return bool(pod["spec"].get("nodeName"))


def _refusal(pod: Object) -> str:
    """What the scheduler says of a pod that finds no node; empty of any other."""
    condition = condition_of(pod, "PodScheduled")
    return condition.get("message") or "unschedulable" if condition.get("status") == "False" else ""
