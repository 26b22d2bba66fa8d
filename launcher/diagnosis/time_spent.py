"""What all the time of a job was spent on, from its being made on: what its run has told, and what came before. Pure.

Until the chief's pod runs, the objects tell: the Job, and the conditions of that pod. From then on the run's own ledger
does (:mod:`maskfleet.goodput`), which can't know why its next pod was late, or that its user had stopped it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.diagnosis.pods import condition_of, seconds, worker_of
from launcher.diagnosis.workers_range import count_of
from launcher.job.labels import CANCELLED_ANNOTATION, STOPPED_ANNOTATION, annotations_of
from maskfleet.goodput import (
    IMAGE_PULL,
    OTHER,
    PEERS,
    PREPARING,
    QUEUED,
    RECOVERY,
    RESULTS,
    STOPPED,
    UNSCHEDULABLE,
    VOLUMES,
    TimeSpent,
    booked,
    moved,
)

Object = Mapping[str, Any]


def time_spent(
    job: Object, pods: Sequence[Object], told: TimeSpent | None, finished: str | None, now: float
) -> dict[str, float]:
    """Seconds by cause; their sum is the time from the Job's creation to its end, or to ``now`` (Unix seconds).

    Args:
        told: by the run, as far as it is known; None before it has begun.
        finished: when the Job ended, RFC 3339; None while it goes on.
    """
    created = _time(job["metadata"].get("creationTimestamp"), now)
    end = max(created, _time(finished, now))
    chief = max((pod for pod in pods if worker_of(pod) == 0), key=_created, default=None)
    if told is None:
        return _until_begun(job, chief, created, end)
    spent = _until_begun(job, chief, created, max(created, told.since))
    for cause, each in told.seconds.items():
        spent = booked(spent, cause, each)
    spent = booked(spent, _going_on(job, told.then, finished), end - told.until)
    spent = moved(spent, RECOVERY, STOPPED, stopped_seconds(annotations_of(job)))
    if chief is not None and _created(chief) > told.since:
        placing = _placing(chief, _created(chief), end)
        for cause in (UNSCHEDULABLE, VOLUMES, IMAGE_PULL):
            spent = moved(spent, RECOVERY, cause, placing.get(cause, 0.0))
    count = count_of(job["spec"].get("template") or {"metadata": {}})
    if count is not None and count.is_range:  # those that find no node hold up nobody for long
        return spent
    # What the chief has waited for.
    placed = max((_scheduled(pod) for pod in pods if worker_of(pod) != 0), default=0.0)
    return moved(spent, PEERS, UNSCHEDULABLE, min(placed, end) - told.since)


def stopped_seconds(annotations: Mapping[str, str]) -> float:
    """How long the job was cancelled before it was last resumed."""
    try:
        found = float(annotations.get(STOPPED_ANNOTATION, "0"))
    except ValueError:  # anybody may write an annotation
        return 0.0
    return found if math.isfinite(found) else 0.0


def _going_on(job: Object, then: str, finished: str | None) -> str:
    """What the time is spent on since the run has told last."""
    if finished is not None:
        return RESULTS if then in (RESULTS, STOPPED) else then
    if CANCELLED_ANNOTATION in annotations_of(job):
        return STOPPED
    return QUEUED if job["spec"].get("suspend") else then


def _until_begun(job: Object, chief: Object | None, created: float, end: float) -> dict[str, float]:
    """Of the time up to ``end``, in which the run has not begun yet."""
    started = seconds(job.get("status", {}).get("startTime") or "")
    if job["spec"].get("suspend") or started > end:
        return booked({}, QUEUED if not math.isfinite(started) else OTHER, end - created)
    started = max(created, started)
    spent = booked({}, QUEUED, started - created)
    if chief is None or _created(chief) > end:
        return booked(spent, OTHER, end - started)
    made = min(max(started, _created(chief)), end)
    spent = booked(spent, UNSCHEDULABLE, made - started)
    for cause, each in _placing(chief, made, end).items():
        spent = booked(spent, cause, each)
    return spent


def _placing(pod: Object, start: float, end: float) -> dict[str, float]:
    """From ``start`` to ``end``: until the pod had a node, its volumes and its image, and since."""
    scheduled = min(max(start, _scheduled(pod)), end)
    starts = (_started(status) for status in pod.get("status", {}).get("initContainerStatuses", []))
    began = min(starts, default=math.inf)
    running = min(max(scheduled, began), end)
    mounted = min(max(scheduled, _mounted(pod, has_begun=math.isfinite(began))), running)
    spent = booked({}, UNSCHEDULABLE, scheduled - start)
    spent = booked(booked(spent, VOLUMES, mounted - scheduled), IMAGE_PULL, running - mounted)
    return booked(spent, PREPARING, end - running)


def _scheduled(pod: Object) -> float:
    """When the pod got its node; infinite while it has none."""
    condition = condition_of(pod, "PodScheduled")
    return seconds(condition.get("lastTransitionTime") or "") if condition.get("status") == "True" else math.inf


def _mounted(pod: Object, *, has_begun: bool) -> float:
    """When the pod's volumes were mounted and its sandbox made; infinite while they are not.

    Pods of servers before 1.29 do not tell, nor do those that have ended: then it took no time.
    """
    condition = condition_of(pod, "PodReadyToStartContainers")
    if condition.get("status") == "True":
        return seconds(condition.get("lastTransitionTime") or "")
    return -math.inf if has_begun or not condition else math.inf


def _started(container: Object) -> float:
    states = container.get("state", {}).values()
    return min((seconds(state.get("startedAt") or "") for state in states if state), default=math.inf)


def _created(pod: Object) -> float:
    return seconds(pod["metadata"].get("creationTimestamp") or "")


def _time(told: str | None, otherwise: float) -> float:
    found = seconds(told or "")
    return found if math.isfinite(found) else otherwise
