"""Which worker stopped first, when many have stopped: by what each one's own pod says. Pure.

A worker that ends takes the others with it, and they end with words and exit codes of their own. So what a pod says of
itself comes before any time. Times decide among those that stopped by themselves. Each node takes them by its own
clock, so they are brought to the API server's, as far as a pod tells how the two differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.diagnosis import reasons
from launcher.diagnosis.past_pods import endings_of_gone_pods
from launcher.diagnosis.pods import condition_of, seconds, worker_of
from launcher.diagnosis.reasons import Ending
from maskfleet.errors import PEER_LOST, STOPPED
from maskfleet.sentences import worker_at_fault

Object = Mapping[str, Any]

_ORDINARY_DELAY = 5.0
"""Seconds that a kubelet may take to start on a pod, which tell nothing of its clock."""
_AFTERMATH = 60.0
"""Seconds for which a worker that is up again may still be what others end for."""
_BY_ITSELF, _STOPPED, _WITH_ANOTHER = range(3)


@dataclass(frozen=True)
class Cause:
    """How a pod of a worker ended.

    Attributes:
        rank: whether it ended by itself, was stopped by it is not known whom, or ended with another.
        at: when, Unix seconds by the API server's clock; infinite if it is not known.
        up_again: when the worker's next pod began to train; infinite if none did yet.
    """

    worker: int
    pod: str
    ending: Ending
    rank: int
    at: float
    up_again: float


@dataclass(frozen=True)
class Causes:
    """``first`` is what the rest follows from; ``with_another`` are the pods that ended since another one had."""

    first: Cause | None
    with_another: frozenset[str]


def find_causes(
    job: Object, pods: Sequence[Object], events: Sequence[Object], standing: Mapping[str, tuple[str, str]]
) -> Causes:
    """Looks at all pods of a job, those that are gone too.

    Args:
        standing: phase and reason of each worker's newest pod, by its name.
    """
    attempts: dict[int, list[Object]] = {}
    for pod in sorted(pods, key=_created):
        if _created(pod) >= _released(job):
            attempts.setdefault(worker_of(pod), []).append(pod)
    found = [*_of_pods(job, attempts, standing), *_of_gone_pods(job, attempts, pods, events)]
    with_another = [cause for cause in found if cause.rank == _WITH_ANOTHER]
    by_itself = _current([cause for cause in found if cause.rank != _WITH_ANOTHER])
    newest = _newest(found)
    by_itself = [cause for cause in by_itself if cause.up_again >= newest - _AFTERMATH]
    first = min(by_itself or _current(with_another), key=lambda cause: (cause.rank, cause.at), default=None)
    return Causes(first, frozenset(cause.pod for cause in with_another))


def _current(causes: Sequence[Cause]) -> list[Cause]:
    """Each worker's last one, without those of a worker that was up again before another one ended."""
    last: dict[int, Cause] = {}
    for cause in causes:
        if cause.worker not in last or cause.at >= last[cause.worker].at:
            last[cause.worker] = cause
    newest = _newest(last.values())
    return [cause for cause in last.values() if cause.up_again >= newest]


def _newest(causes: Iterable[Cause]) -> float:
    return max((cause.at for cause in causes if cause.at < math.inf), default=-math.inf)


def _of_pods(
    job: Object, attempts: Mapping[int, Sequence[Object]], standing: Mapping[str, tuple[str, str]]
) -> Iterator[Cause]:
    failing = _failing(job)
    for worker, pods in attempts.items():
        for pod, following in zip(pods, [*pods[1:], None], strict=True):
            name = pod["metadata"]["name"]
            ending = reasons.ending(pod) or _unfinished(pod, standing.get(name, ("", "")))
            if ending is None:
                continue
            # Whatever its node's clock says, it ended before its replacement was made.
            at = max(_ended(pod, ending), _created(pod))
            if following is not None:
                at = min(at, _created(following))
            up_again = _training_since(following) if following else math.inf
            yield Cause(worker, name, ending, _rank(pod, ending, worker, failing), at, max(at, up_again))


def _of_gone_pods(
    job: Object, attempts: Mapping[int, Sequence[Object]], pods: Sequence[Object], events: Sequence[Object]
) -> Iterator[Cause]:
    for worker, name, ending in endings_of_gone_pods(job, pods, events):
        at = seconds(ending.time)
        if at >= _released(job):
            later = (_training_since(pod) for pod in attempts.get(worker, ()) if _created(pod) >= at - _ORDINARY_DELAY)
            yield Cause(worker, name, ending, _BY_ITSELF, at, max(at, min(later, default=math.inf)))


def _unfinished(pod: Object, standing: tuple[str, str]) -> Ending | None:
    """Of a pod that is lost or on its way out, though it has not ended."""
    phase, reason = standing
    if phase == "Stopping":
        return Ending(STOPPED, "its pod was deleted or evicted", (), "", node_clock=False)
    if phase == "Lost":
        ready = condition_of(pod, "Ready")
        silent = ready.get("lastTransitionTime", "") if ready.get("status") != "True" else ""
        return Ending(STOPPED, reason, (), silent, node_clock=False)
    return None


def _rank(pod: Object, ending: Ending, worker: int, failing: float) -> int:
    told = worker_at_fault(ending.lines[-1]) if ending.lines else None
    if ending.code == PEER_LOST or (told is not None and told != worker):
        return _WITH_ANOTHER
    asked = _asked_to_end(pod)
    if ending.code == STOPPED and asked is not None and asked >= failing - 1:  # the API has full seconds
        return _WITH_ANOTHER
    return _STOPPED if ending.reason == reasons.TOLD_TO_STOP else _BY_ITSELF


def _failing(job: Object) -> float:
    """Since when the Job's controller stops what is left of a job that has failed; infinite if it has not."""
    conditions = (c for c in job.get("status", {}).get("conditions", []) if c["status"] == "True")
    times = (seconds(c.get("lastTransitionTime", "")) for c in conditions if c["type"] in ("FailureTarget", "Failed"))
    return min(times, default=math.inf)


def _ended(pod: Object, ending: Ending) -> float:
    asked = _asked_to_end(pod)
    if asked is not None and ending.code == STOPPED:  # its end began with the request for it
        return asked
    return seconds(ending.time) - (_clock_error(pod) if ending.node_clock else 0.0)


def _asked_to_end(pod: Object) -> float | None:
    metadata = pod["metadata"]
    if not metadata.get("deletionTimestamp"):
        return None
    return seconds(metadata["deletionTimestamp"]) - float(metadata.get("deletionGracePeriodSeconds") or 0)


def _clock_error(pod: Object) -> float:
    """How far the clock of the pod's node is ahead of the scheduler's: it starts on a pod as soon as it has it."""
    status = pod.get("status", {})
    scheduled = condition_of(pod, "PodScheduled")
    error = seconds(status.get("startTime", "")) - seconds(scheduled.get("lastTransitionTime", ""))
    return error if math.isfinite(error) and abs(error) > _ORDINARY_DELAY else 0.0


def _training_since(pod: Object) -> float:
    for status in pod.get("status", {}).get("containerStatuses", []):
        state = status.get("state", {})
        started = (state.get("running") or state.get("terminated") or {}).get("startedAt")
        if status["name"] == "trainer" and started:
            return seconds(started) - _clock_error(pod)
    return math.inf


def _released(job: Object) -> float:
    """When the job was released, for the last time if it was suspended since: what ended before is over."""
    suspended = condition_of(job, "Suspended")
    at = seconds(suspended.get("lastTransitionTime", "")) if suspended.get("status") == "False" else math.inf
    return at - 1 if at < math.inf else -math.inf  # the API has full seconds


def _created(pod: Object) -> float:
    return seconds(pod["metadata"].get("creationTimestamp", ""))
