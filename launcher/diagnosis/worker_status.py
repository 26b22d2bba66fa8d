"""Where one worker stands: the phase and reason of its newest pod, or why it has none. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from launcher.diagnosis import reasons
from launcher.diagnosis.jobs import is_being_deleted
from launcher.diagnosis.past_pods import Refusal, completed, gone_pods, indexes
from launcher.diagnosis.pods import earlier_failures, worker_of
from launcher.job.labels import CANCELLED_ANNOTATION, annotations_of

Object = Mapping[str, Any]


@dataclass(frozen=True)
class WorkerStatus:
    """One worker: its newest pod. ``attempt`` counts from 1."""

    worker: int
    pod: str | None
    node: str | None
    attempt: int
    phase: str
    reason: str


def worker_statuses(
    job: Object, pods: Sequence[Object], events: Sequence[Object], nodes: frozenset[str] | None
) -> list[WorkerStatus]:
    """A row for each worker of the job; see :func:`~launcher.diagnosis.job_status.job_status`."""
    by_object: dict[str, list[Object]] = {}
    for event in events:
        by_object.setdefault(event["involvedObject"].get("name", ""), []).append(event)
    attempts: dict[int, list[Object]] = {}
    for pod in sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"]):
        attempts.setdefault(worker_of(pod), []).append(pod)
    refusal, without = Refusal.of(job, pods, events), _WithoutPod.of(job)
    gone = gone_pods(job, pods, events)
    rows = []
    for worker in range(int(job["spec"].get("completions") or 1)):
        pods, times = attempts.get(worker, []), gone.get(worker, ())
        if pods and not (_has_failed(pods[-1]) and max(times, default="") > pods[-1]["metadata"]["creationTimestamp"]):
            rows.append(_row(worker, pods, len(times), by_object, nodes, refusal.of_worker(worker)))
        else:  # it has none, or what is there has failed before a later one came and went
            rows.append(without.row(worker, len(times) + len(pods), refusal.of_worker(worker)))
    return rows


def _has_failed(pod: Object) -> bool:
    return bool(pod.get("status", {}).get("phase") == "Failed")


def _row(
    worker: int,
    pods: Sequence[Object],
    gone: int,
    events: Mapping[str, Sequence[Object]],
    nodes: frozenset[str] | None,
    refusal: str | None,
) -> WorkerStatus:
    pod = pods[-1]
    node = pod["spec"].get("nodeName")
    phase, reason = _pod_phase(pod, events.get(pod["metadata"]["name"], []), nodes)
    if phase == "Failed" and refusal and len(pods) == 1:
        reason = f"{reason}; {refusal}"
    attempt = max(gone + len(pods), 1 + earlier_failures(pod))
    return WorkerStatus(worker, pod["metadata"]["name"], node, attempt, phase, reason)


@dataclass(frozen=True)
class _WithoutPod:
    """What is to be said of workers that have no pod: ``over`` is why none will come, empty if one will.

    ``by_chief``: the job is complete when the chief is done.
    """

    done: frozenset[int]
    failed: frozenset[int]
    complete: bool
    over: str
    suspended: bool
    by_chief: bool

    @classmethod
    def of(cls, job: Object) -> Self:
        status = job.get("status", {})
        true = {c["type"] for c in status.get("conditions", []) if c["status"] == "True"}
        suspended = bool(job["spec"].get("suspend"))
        over = ""
        if true & {"Failed", "FailureTarget"}:
            over = "its pod is gone: the job has failed"
        elif is_being_deleted(job):
            over = "its pod is gone: the job is being deleted"
        elif suspended and CANCELLED_ANNOTATION in annotations_of(job):
            over = "its pod is gone: the job is cancelled"
        complete = bool(true & {"Complete", "SuccessCriteriaMet"})
        return cls(
            completed(job),
            indexes(status.get("failedIndexes", "")),
            complete,
            over,
            suspended,
            "successPolicy" in job["spec"],
        )

    def row(self, worker: int, gone: int, refusal: str | None) -> WorkerStatus:
        if worker in self.done or (self.complete and not self.by_chief):
            return WorkerStatus(worker, None, None, max(1, gone), "Succeeded", "its pod is gone")
        if self.complete:
            return WorkerStatus(worker, None, None, max(1, gone), "Stopped", "the run is over without it")
        if self.over:
            phase = "Failed" if worker in self.failed else "Stopped"
            return WorkerStatus(worker, None, None, max(1, gone), phase, self.over)
        waits = "waits for the job to be released" if self.suspended else "waits for its pod to be created"
        return WorkerStatus(worker, None, None, gone + 1, "Pending", waits if self.suspended else refusal or waits)


def _pod_phase(pod: Object, events: Sequence[Object], nodes: frozenset[str] | None) -> tuple[str, str]:
    status = pod.get("status", {})
    node = pod["spec"].get("nodeName")
    trouble = reasons.streamer_trouble(pod)
    if status.get("phase") == "Succeeded":
        return "Succeeded", trouble
    if ended := reasons.ending(pod):
        # Its replacement waits for that.
        return "Failed", "; ".join(filter(None, [ended.reason, reasons.what_it_still_does(pod)]))
    if node and nodes is not None and node not in nodes:
        return "Lost", "its node is gone from the cluster"
    if status.get("reason") == "NodeLost" or any(event["reason"] == "NodeNotReady" for event in events):
        ready = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), None)
        if ready and ready["status"] != "True":
            return "Lost", "its node does not answer"
    if pod["metadata"].get("deletionTimestamp"):
        return "Stopping", "its pod was deleted or evicted; it saves and ends"
    trainer = next((s for s in status.get("containerStatuses", []) if s["name"] == "trainer"), None)
    if trainer and trainer.get("state", {}).get("running"):
        return "Running", trouble
    if trainer and trainer.get("state", {}).get("terminated"):
        return "Finishing", trouble or f"has trained; {reasons.what_it_still_does(pod) or 'its pod still ends'}"
    return reasons.waiting(pod, events)
