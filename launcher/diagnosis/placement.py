"""Workers that find no node, seen as the job that needs them all at once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from launcher.diagnosis.pods import condition_of
from launcher.diagnosis.reasons import WAITS_FOR_GANG
from launcher.diagnosis.worker_status import WorkerStatus
from launcher.job.labels import INSTANCE_LABEL, labels_of
from maskfleet.text import some_of

Object = Mapping[str, Any]


def is_gang(pods: Iterable[Object]) -> bool:
    """Whether Kubernetes places the pods all at once or not at all (spec.schedulingGroup, from 1.36 on)."""
    return any(pod["spec"].get("schedulingGroup") for pod in pods)


def gang_reason(waiting: Sequence[WorkerStatus], count: int) -> str:
    """Why a gang of ``count`` workers is not placed: what stops those that find no node."""
    without_room = [row.reason for row in waiting if row.reason != WAITS_FOR_GANG]
    if not without_room:
        return f"the gang of {count} waits until all of it finds room at once"
    return f"the gang of {count} does not fit: {without_room[0]}"


def deadlock(job: str, pods: Iterable[Object]) -> str:
    """What to do about jobs that hold room which the others need; empty if ``job`` is not one of several.

    Each of them has workers on nodes that wait for others which find none. ``pods`` are those of all jobs.
    """
    by_job: dict[str, list[Object]] = {}
    for pod in pods:
        by_job.setdefault(labels_of(pod).get(INSTANCE_LABEL, ""), []).append(pod)
    stuck = [name for name, own in by_job.items() if is_partly_placed(own)]
    others = sorted(name for name in stuck if name != job)
    if job not in stuck or not others:
        return ""
    return f"it holds room that {some_of(others, most=3)} waits for and the other way round: cancel one for the others"


def is_partly_placed(pods: Iterable[Object]) -> bool:
    """Whether some have a node while others find none; a gang never has."""
    there = [pod for pod in pods if pod.get("status", {}).get("phase") in (None, "Pending", "Running")]
    placed = any(pod["spec"].get("nodeName") for pod in there)
    return placed and any(condition_of(pod, "PodScheduled").get("status") == "False" for pod in there)
