"""What the events of a namespace tell of pods that are gone, or that never came to be. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from launcher.diagnosis import reasons
from launcher.diagnosis.pods import event_time, first_time, worker_of, worker_of_pod_name
from maskfleet.config import MOST
from maskfleet.errors import STOPPED
from maskfleet.text import numbers_in, one_line

Object = Mapping[str, Any]


def gone_pods(job: Object, pods: Sequence[Object], events: Sequence[Object]) -> Mapping[int, Sequence[str]]:
    """When each pod of a worker was first heard of that is known by its events alone, as it was deleted or evicted."""
    name, created = job["metadata"]["name"], job["metadata"].get("creationTimestamp", "")
    there = {pod["metadata"]["name"] for pod in pods}
    gone: dict[tuple[int, str], str] = {}
    for event in events:
        pod, time = event["involvedObject"].get("name", ""), first_time(event)
        worker = worker_of_pod_name(pod, name)
        if worker is not None and pod not in there and time > created:
            gone[worker, pod] = min(gone.get((worker, pod), time), time)
    times: dict[int, list[str]] = {}
    for (worker, _), time in gone.items():
        times.setdefault(worker, []).append(time)
    return times


_ENDS = {
    "Killing": "its pod was deleted",
    "Preempted": "preempted by a pod of higher priority",
    "TaintManagerEviction": "node lost: it did not answer, or was tainted",
}
"""Reasons of the events with which a pod's end begins."""


def endings_of_gone_pods(
    job: Object, pods: Sequence[Object], events: Sequence[Object]
) -> Iterator[tuple[int, str, reasons.Ending]]:
    """Worker, name and end of each pod that is known by its events alone, unless its worker is done."""
    name, done = job["metadata"]["name"], completed(job)
    there = {pod["metadata"]["name"] for pod in pods}
    ends: dict[tuple[int, str], tuple[bool, str, str]] = {}
    for event in events:
        words = _ENDS.get(event["reason"])
        if event["reason"] == "Evicted":
            words = f"evicted by its node: {one_line(event.get('message', ''))}"
        pod = event["involvedObject"].get("name", "")
        worker = worker_of_pod_name(pod, name)
        if words is None or worker is None or worker in done or pod in there:
            continue
        time = first_time(event)
        if time > job["metadata"].get("creationTimestamp", ""):
            # Of an eviction the pod's "Killing" follows at once.
            key = (event["reason"] == "Killing", time, words)
            ends[worker, pod] = min(ends.get((worker, pod), key), key)
    for (worker, pod), (_, time, words) in ends.items():
        yield worker, pod, reasons.Ending(STOPPED, words, (), time, node_clock=False)


def completed(job: Object) -> frozenset[int]:
    """The workers that are done, from the Job's ``completedIndexes``."""
    return indexes(job.get("status", {}).get("completedIndexes", ""))


def indexes(text: str) -> frozenset[int]:
    """``0,2-4`` -> {0, 2, 3, 4}"""
    return frozenset(numbers_in(text, MOST))


@dataclass(frozen=True)
class Refusal:
    """Why the Job's pods can't be created, from the newest try that failed; ``reason`` is empty if none did.

    Its event stays for an hour. It explains why a worker has no pod only if that worker has had none since: ``seen``
    is when a pod of each was there last.
    """

    time: str
    reason: str
    seen: Mapping[int, str]

    @classmethod
    def of(cls, job: Object, pods: Sequence[Object], events: Sequence[Object]) -> Self:
        name, created = job["metadata"]["name"], _seconds(job["metadata"].get("creationTimestamp", ""))
        tries = [e for e in events if e["reason"] == "FailedCreate" and e["involvedObject"].get("name") == name]
        newest = max(tries, key=event_time, default=None)
        if newest is None or _seconds(event_time(newest)) < created:  # of a deleted job of this name
            return cls("", "", {})
        signs = [(worker_of(pod), pod["metadata"]["creationTimestamp"]) for pod in pods]
        for event in events:
            worker = worker_of_pod_name(event["involvedObject"].get("name", ""), name)
            if worker is not None:
                signs.append((worker, event_time(event)))
        seen: dict[int, str] = {}
        for worker, time in signs:
            seen[worker] = max(seen.get(worker, ""), _seconds(time))
        return cls(_seconds(event_time(newest)), reasons.refused_creation(newest["message"]), seen)

    def of_worker(self, worker: int) -> str | None:
        """What keeps this worker's next pod from being made; None if nothing is known to."""
        return self.reason if self.reason and self.seen.get(worker, "") <= self.time else None


def _seconds(time: str) -> str:
    """RFC 3339 cut to full seconds, so that texts with and without fractions compare as times."""
    return time[:19]
