"""Objects, pods and events -> JobStatus: where a job stands, and why, in one line. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from launcher.diagnosis import reasons
from launcher.diagnosis.past_pods import Refusal, gone_pods
from launcher.diagnosis.pods import earlier_failures, event_time, worker_of
from launcher.job.labels import (
    CANCELLED_ANNOTATION,
    PROGRESS_ANNOTATION,
    PROGRESS_JSON_ANNOTATION,
    QUEUE_LABEL,
    annotations_of,
    labels_of,
)
from maskfleet.errors import DONE, FAILED
from maskfleet.text import format_duration, one_line

Object = Mapping[str, Any]
Phase = Literal[
    "Queued", "Pending", "Pulling", "Starting", "Running", "Restarting", "Succeeded", "Failed", "Cancelled"
]  # fmt: skip

# Of a job's events only these are not needed; asking for the others keeps the answer short for many workers.
DULL_EVENTS = ("Scheduled", "Pulled", "Created", "Started", "SuccessfulCreate")
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class WorkerStatus:
    """One worker: its newest pod. ``attempt`` counts from 1."""

    worker: int
    pod: str | None
    node: str | None
    attempt: int
    phase: str
    reason: str


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands. ``evidence`` holds the last lines of the first failure's output.

    ``not_streamed`` tells of a job that succeeded what did not reach its output; empty if all did. ``unseen`` names the
    kinds of objects that may not be listed, so that what they would explain is missing.
    """

    name: str
    namespace: str
    phase: Phase
    reason: str
    progress: str | None
    details: Mapping[str, Any]
    created: str
    finished: str | None
    evidence: tuple[str, ...]
    not_streamed: str
    workers: tuple[WorkerStatus, ...]
    unseen: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        return self.phase in (*_ENDED, "Cancelled")

    @property
    def exit_code(self) -> int:
        """For ``wait`` and ``--wait``, once it has ended: not 0 either if its results are not all in its output."""
        return DONE if self.phase == "Succeeded" and not self.not_streamed else FAILED

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def job_status(
    job: Object,
    pods: Sequence[Object],
    events: Sequence[Object] = (),
    nodes: frozenset[str] | None = None,
    workload: Object | None = None,
) -> JobStatus:
    """The status of ``job`` from its pods and its namespace's events.

    ``nodes`` are the names of the nodes that exist, None if they may not be read; ``workload`` is Kueue's
    object for the job.
    """
    by_object: dict[str, list[Object]] = {}
    for event in events:
        by_object.setdefault(event["involvedObject"].get("name", ""), []).append(event)
    attempts: dict[int, list[Object]] = {}
    for pod in sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"]):
        attempts.setdefault(worker_of(pod), []).append(pod)
    name = job["metadata"]["name"]
    refusal = Refusal.of(job, pods, events)
    gone, done = gone_pods(job, pods, events), _completed(job)
    rows = [
        _row(worker, attempts[worker], gone[worker], by_object, nodes, refusal.of_worker(worker))
        if worker in attempts
        else _row_without_pod(worker, gone[worker], worker in done, refusal.of_worker(worker))
        for worker in range(_count(job))
    ]
    causes = [ending for pod in pods if (ending := reasons.ending(pod))]
    cause = reasons.first_cause(causes)
    annotations = annotations_of(job)
    details = _details(annotations)
    phase, reason = _phase(job, rows, cause, details, workload, by_object)
    left = [row for row in rows if row.pod and row.reason] if phase == "Succeeded" else []
    not_streamed = _summary(left, len(rows)) if left else ""
    return JobStatus(
        name=name,
        namespace=job["metadata"].get("namespace", "default"),
        phase=phase,
        reason=f"{reason}; {not_streamed}" if not_streamed else reason,
        progress=annotations.get(PROGRESS_ANNOTATION),
        details=details,
        created=job["metadata"].get("creationTimestamp", ""),
        finished=_finished(job),
        evidence=cause.lines if cause and phase in ("Failed", "Restarting") else (),
        not_streamed=not_streamed,
        workers=tuple(rows),
    )


def _count(job: Object) -> int:
    return int(job["spec"].get("completions") or 1)


def _details(annotations: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        details = json.loads(annotations.get(PROGRESS_JSON_ANNOTATION, "{}"))
    except json.JSONDecodeError:
        return {}
    return details if isinstance(details, dict) else {}


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


def _row_without_pod(worker: int, gone: int, done: bool, refusal: str | None) -> WorkerStatus:
    if done:
        return WorkerStatus(worker, None, None, max(1, gone), "Succeeded", "its pod is gone")
    return WorkerStatus(worker, None, None, gone + 1, "Pending", refusal or "waits for its pod to be created")


def _completed(job: Object) -> frozenset[int]:
    """The workers that are done, from the Job's ``completedIndexes``, such as ``0,2-4``."""
    done: set[int] = set()
    for part in filter(None, job.get("status", {}).get("completedIndexes", "").split(",")):
        first, _, last = part.partition("-")
        done.update(range(int(first), int(last or first) + 1))
    return frozenset(done)


def _pod_phase(pod: Object, events: Sequence[Object], nodes: frozenset[str] | None) -> tuple[str, str]:
    status = pod.get("status", {})
    node = pod["spec"].get("nodeName")
    trouble = reasons.streamer_trouble(pod)
    if status.get("phase") == "Succeeded":
        return "Succeeded", trouble
    if ended := reasons.ending(pod):
        # Its replacement waits for that.
        return "Failed", ended.reason + ("; the streamer sends the rest" if reasons.still_streams(pod) else "")
    if node and nodes is not None and node not in nodes:
        return "Lost", f"node {node} is gone from the cluster"
    if status.get("reason") == "NodeLost" or any(event["reason"] == "NodeNotReady" for event in events):
        ready = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), None)
        if ready and ready["status"] != "True":
            return "Lost", f"node {node} does not answer"
    if pod["metadata"].get("deletionTimestamp"):
        return "Stopping", "its pod was deleted or evicted; it saves and ends"
    trainer = next((s for s in status.get("containerStatuses", []) if s["name"] == "trainer"), None)
    if trainer and trainer.get("state", {}).get("running"):
        return "Running", trouble
    if trainer and trainer.get("state", {}).get("terminated"):
        return "Finishing", trouble or "has trained; the streamer sends the rest"
    return reasons.waiting(pod, events)


def _phase(
    job: Object,
    rows: Sequence[WorkerStatus],
    cause: reasons.Ending | None,
    details: Mapping[str, Any],
    workload: Object | None,
    events: Mapping[str, Sequence[Object]],
) -> tuple[Phase, str]:
    status, metadata = job.get("status", {}), job["metadata"]
    conditions = {c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"}
    if "Complete" in conditions or "SuccessCriteriaMet" in conditions:
        return "Succeeded", _took(status)
    failure = conditions.get("Failed") or conditions.get("FailureTarget")
    if failure:
        return "Failed", _failure(job, failure, cause, events)
    if cancelled := annotations_of(job).get(CANCELLED_ANNOTATION):
        return "Cancelled", f"cancelled at {cancelled}; 'launcher resume {metadata['name']}' goes on"
    if job["spec"].get("suspend"):
        if queue := labels_of(job).get(QUEUE_LABEL):
            return "Queued", _queued(queue, workload)
        return (
            "Pending",
            f"submit was interrupted: 'launcher submit' with the same --name {metadata['name']} finishes it",
        )
    been_running = bool(details) or status.get("failed", 0) > 0 or any(row.attempt > 1 for row in rows)
    troubled = [row for row in rows if row.phase not in ("Running", "Succeeded", "Finishing")]
    if troubled:
        text = _summary(troubled, len(rows))
        if been_running:
            return "Restarting", text if not cause or cause.reason in text else f"{text} (before: {cause.reason})"
        for phase in ("Pending", "Pulling", "Starting"):
            if any(row.phase == phase for row in troubled):
                return phase, _summary([row for row in troubled if row.phase == phase], len(rows))
        return "Restarting", text
    if details.get("state") == "restarting":
        return "Restarting", details.get("message") or "the training processes start again"
    if not details:
        before = f" (before: {cause.reason})" if cause else ""
        return "Starting", f"{len(rows)} of {len(rows)} workers are up; no step yet{before}"
    if details.get("state") == "starting":
        return "Starting", details.get("message") or "the training processes start"
    uneasy = [row for row in rows if row.phase == "Running" and row.reason]
    return "Running", _summary(uneasy, len(rows)) if uneasy else ""


def _summary(rows: Sequence[WorkerStatus], count: int) -> str:
    """The commonest reason among ``rows`` and whom it concerns."""
    (reason, frequency), *others = Counter(row.reason for row in rows).most_common()
    if count == 1:
        return reason
    if frequency == 1:
        who = f"worker {next(row.worker for row in rows if row.reason == reason)}"
    else:
        who = f"{frequency} of {count} workers" if frequency < count else f"all {count} workers"
    more = f" (and {sum(n for _, n in others)} for other reasons)" if others else ""
    return f"{who}: {reason}{more}"


def _failure(
    job: Object, condition: Object, cause: reasons.Ending | None, events: Mapping[str, Sequence[Object]]
) -> str:
    word = condition.get("reason", "")
    if word == "DeadlineExceeded":
        deadline = job["spec"].get("activeDeadlineSeconds")
        text = f"took longer than its deadline of {format_duration(deadline)}" if deadline else "deadline exceeded"
        if cause:
            return f"{text}; before: {cause.reason}"
        never = [e for name, list_ in events.items() for e in list_
                 if name.startswith(f"{job['metadata']['name']}-") and e["reason"] == "FailedScheduling"]  # fmt: skip
        if never:
            newest = max(never, key=event_time)
            return f"never scheduled within its deadline: {one_line(newest['message'], 160)}"
        return text
    if not cause:
        return one_line(condition.get("message", "")) or word
    if word in ("BackoffLimitExceeded", "MaxFailedIndexesExceeded", "FailedIndexes"):
        failed = job.get("status", {}).get("failed", 0)
        return f"{cause.reason} (gave up after {failed} failed pod{'s' if failed != 1 else ''})"
    return cause.reason


def _queued(queue: str, workload: Object | None) -> str:
    for condition in (workload or {}).get("status", {}).get("conditions", []):
        if condition["type"] in ("QuotaReserved", "Admitted") and condition["status"] == "False":
            return f"queue {queue}: {one_line(condition.get('message', ''))}"
    return f"waits for queue {queue} to admit it"


def _finished(job: Object) -> str | None:
    status = job.get("status", {})
    done = status.get("completionTime")
    if done:
        return str(done)
    failed = next((c for c in status.get("conditions", []) if c["type"] == "Failed" and c["status"] == "True"), None)
    return failed["lastTransitionTime"] if failed else None


def _took(status: Object) -> str:
    from datetime import datetime

    start, end = status.get("startTime"), status.get("completionTime")
    if not start or not end:
        return "all workers are done"
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return f"all workers are done, after {format_duration(seconds)}"
