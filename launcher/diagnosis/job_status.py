"""Objects, pods and events -> JobStatus: where a job stands, and why, in one line. Pure."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from launcher.diagnosis import reasons
from launcher.diagnosis.causes import Cause, Causes, find_causes
from launcher.diagnosis.jobs import is_being_deleted, suspended_by, waits_for
from launcher.diagnosis.placement import deadlock, gang_reason, is_gang, is_partly_placed
from launcher.diagnosis.pods import event_time, whole_event
from launcher.diagnosis.time_spent import time_spent
from launcher.diagnosis.worker_status import WorkerStatus, worker_statuses
from launcher.diagnosis.workers_range import WorkersRange
from launcher.job.labels import (
    CANCELLED_ANNOTATION,
    PROGRESS_ANNOTATION,
    PROGRESS_JSON_ANNOTATION,
    QUEUE_LABEL,
    annotations_of,
    labels_of,
)
from maskfleet.errors import DONE, FAILED
from maskfleet.goodput import TimeSpent, goodput_facts
from maskfleet.schema import parsed
from maskfleet.text import format_duration, one_line

Object = Mapping[str, Any]
Phase = Literal[
    "Queued", "Pending", "Pulling", "Starting", "Running", "Restarting", "Suspended", "Succeeded", "Failed",
    "Cancelled", "Deleting",
]  # fmt: skip

# Of a job's events only these are not needed; asking for the others keeps the answer short for many workers.
DULL_EVENTS = ("Scheduled", "Pulled", "Created", "Started", "SuccessfulCreate")
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands. ``evidence`` holds the last lines of the first failure's output.

    ``not_streamed`` tells of a job that succeeded what did not reach its output; empty if all did. ``time_spent``
    has the goodput and the seconds of each cause, see :func:`~maskfleet.goodput.goodput_facts`. ``unseen`` names the
    kinds of objects that may not be listed, so that what they would explain is missing. ``workers_range`` says, of one
    that trains with fewer workers too, how many it has at least and at most, and which of them train now.
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
    time_spent: Mapping[str, Any] | None = None
    unseen: tuple[str, ...] = ()
    workers_range: Mapping[str, Any] | None = None

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
    others: Sequence[Object] = (),
    now: float | None = None,
) -> JobStatus:
    """The status of ``job`` from its pods and its namespace's events.

    ``nodes`` are the names of the nodes that exist, None if they may not be read; ``workload`` is Kueue's
    object for the job; ``others`` are the pods of all jobs, where some of this one's find no node; ``now`` is in Unix
    seconds, by default the time by this machine's clock.
    """
    events = [whole_event(event) for event in events]
    rows = worker_statuses(job, pods, events, nodes)
    causes = find_causes(job, pods, events, {row.pod: (row.phase, row.reason) for row in rows if row.pod})
    annotations = annotations_of(job)
    details = _details(annotations)
    elastic = WorkersRange.of(job, details)
    phase, reason = _phase(job, rows, causes, details, workload, events, pods, elastic)
    if phase != "Deleting" and is_partly_placed(pods) and (held := deadlock(job["metadata"]["name"], others)):
        reason += f"; {held}"
    # Of a range, a worker whose last pod failed was not needed any more.
    left = [row for row in rows if row.pod and row.reason and (elastic is None or row.phase == "Succeeded")]
    not_streamed = _summary(left, len(rows)) if left and phase == "Succeeded" else ""
    if not_streamed:
        reason += f"; {not_streamed}"
    if is_being_deleted(job) and phase != "Deleting":
        reason += f"; {_deletion(job, pods)}"
    finished, told = _finished(job), parsed(TimeSpent, details.get("time_spent") or {})
    spent = time_spent(job, pods, told, finished, time.time() if now is None else now)
    return JobStatus(
        name=job["metadata"]["name"],
        namespace=job["metadata"].get("namespace", "default"),
        phase=phase,
        reason=reason,
        progress=one_line(annotations[PROGRESS_ANNOTATION]) if PROGRESS_ANNOTATION in annotations else None,
        details=details,
        created=job["metadata"].get("creationTimestamp", ""),
        finished=finished,
        evidence=causes.first.ending.lines if causes.first and phase in ("Failed", "Restarting") else (),
        not_streamed=not_streamed,
        workers=tuple(rows),
        time_spent=goodput_facts(spent),
        workers_range=elastic.facts() if elastic else None,
    )


def _details(annotations: Mapping[str, str]) -> Mapping[str, Any]:
    """What the chief's sidecar has told, without what it can't have told so: anybody may write an annotation."""
    try:
        details = json.loads(annotations.get(PROGRESS_JSON_ANNOTATION, "{}"))
    except (json.JSONDecodeError, RecursionError):
        return {}
    if not isinstance(details, dict):
        return {}
    if isinstance(details.get("message"), str):
        details["message"] = one_line(details["message"])
    else:
        details.pop("message", None)
    slow = details.pop("slow", None)
    if isinstance(slow, list) and all(isinstance(line, str) for line in slow):
        details["slow"] = [one_line(line) for line in slow]
    streamer = details.get("streamer", {})
    problems = streamer.get("problems") if isinstance(streamer, dict) else None
    if not isinstance(problems, list) or not all(isinstance(each, str) for each in [*problems, streamer.get("line")]):
        details.pop("streamer", None)
    return details


def _phase(
    job: Object,
    rows: Sequence[WorkerStatus],
    causes: Causes,
    details: Mapping[str, Any],
    workload: Object | None,
    events: Sequence[Object],
    pods: Sequence[Object],
    elastic: WorkersRange | None,
) -> tuple[Phase, str]:
    status = job.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"}
    if "Complete" in conditions or ("SuccessCriteriaMet" in conditions and elastic is None):
        return "Succeeded", _took(status)
    if "SuccessCriteriaMet" in conditions:  # the chief is done, with all that it streams
        return "Running", "the run is over, and its other workers end"
    failure = conditions.get("Failed") or conditions.get("FailureTarget")
    if failure:
        return "Failed", _failure(job, failure, causes.first.ending if causes.first else None, events)
    if is_being_deleted(job):
        return "Deleting", _deletion(job, pods)
    # What the streamer and the ledger tell begins while the pod prepares.
    trained = bool(details.keys() - {"streamer", "time_spent", "slow", "present"})
    been_running = trained or status.get("failed", 0) > 0 or any(row.attempt > 1 for row in rows)
    if job["spec"].get("suspend"):
        return _suspended(job, workload, been_running or bool(pods) or "startTime" in status)
    troubled = [row for row in rows if row.phase not in ("Running", "Succeeded", "Finishing")]
    if elastic and elastic.without(troubled):
        phase, reason = _of_all_up(rows, causes, details, trained=trained)
        why = _summary(troubled, len(rows)) if troubled else ""
        return phase, "; ".join(filter(None, [elastic.line(why), reason]))
    if troubled:
        phase, reason = _troubled(troubled, rows, causes, pods, been_running=been_running)
        return phase, f"{reason}; {elastic.waits(rows)}" if elastic else reason
    return _of_all_up(rows, causes, details, trained=trained)


def _troubled(
    troubled: Sequence[WorkerStatus],
    rows: Sequence[WorkerStatus],
    causes: Causes,
    pods: Sequence[Object],
    *,
    been_running: bool,
) -> tuple[Phase, str]:
    """Of a job that waits for these workers."""
    if is_gang(pods) and all(row.phase == "Pending" for row in rows):
        return "Restarting" if been_running else "Pending", gang_reason(rows, len(rows))
    if not been_running:
        for phase in ("Pending", "Pulling", "Starting"):
            if alike := [row for row in troubled if row.phase == phase]:
                return phase, _summary(alike, len(rows))
    return "Restarting", _restarting(troubled, len(rows), causes)


def _of_all_up(
    rows: Sequence[WorkerStatus], causes: Causes, details: Mapping[str, Any], *, trained: bool
) -> tuple[Phase, str]:
    """Of a job that waits for no pod."""
    if details.get("state") == "restarting":
        return "Restarting", details.get("message") or "the training processes start again"
    if not trained:
        return "Starting", f"{len(rows)} of {len(rows)} workers are up; no step yet{_before(causes.first, len(rows))}"
    if details.get("state") == "starting":
        return "Starting", details.get("message") or "the training processes start"
    uneasy = [row for row in rows if row.phase == "Running" and row.reason]
    return "Running", _summary(uneasy, len(rows)) if uneasy else ""


def _suspended(job: Object, workload: Object | None, been_running: bool) -> tuple[Phase, str]:
    name = job["metadata"]["name"]
    if cancelled := annotations_of(job).get(CANCELLED_ANNOTATION):
        return "Cancelled", f"cancelled at {one_line(cancelled)}; 'launcher resume {name}' goes on"
    queue = labels_of(job).get(QUEUE_LABEL) or (workload or {}).get("spec", {}).get("queueName")
    if queue:
        return "Queued", _queued(name, queue, workload)
    if (by := suspended_by(job)) or been_running:
        return "Suspended", f"suspended by {one_line(by or 'somebody', 60)}; 'launcher resume {name}' goes on"
    return "Pending", f"submit was interrupted: 'launcher submit' with the same --name {name} finishes it"


def _deletion(job: Object, pods: Sequence[Object]) -> str:
    waits = waits_for([("Job", job), *(("Pod", pod) for pod in pods)])
    return "is being deleted" + (f": waits for {waits}" if waits else "")


def _restarting(troubled: Sequence[WorkerStatus], count: int, causes: Causes) -> str:
    """The worker that stopped first, if its pod is there still; else what is waited for, and who stopped first."""
    first = causes.first
    if first and (lead := next((row for row in troubled if row.pod == first.pod), None)):
        return _summary(troubled, count, lead)
    others = [row for row in troubled if row.pod not in causes.with_another]
    if first is not None and not others:  # it runs again, and those that followed it do not yet
        return _of_worker(first, count)
    text = _summary(others or troubled, count)
    return text if first is None or first.ending.reason in text else text + _before(first, count)


def _before(cause: Cause | None, count: int) -> str:
    return "" if cause is None else f" (before: {_of_worker(cause, count)})"


def _of_worker(cause: Cause, count: int) -> str:
    return f"worker {cause.worker}: {cause.ending.reason}" if count > 1 else cause.ending.reason


def _summary(rows: Sequence[WorkerStatus], count: int, lead: WorkerStatus | None = None) -> str:
    """The reason of ``lead``, or else the commonest among ``rows``, and whom it concerns."""
    if count == 1:
        return rows[0].reason
    alike: dict[str, list[WorkerStatus]] = {}
    for row in rows:
        alike.setdefault(reasons.steady(row.reason), []).append(row)
    same = alike[reasons.steady(lead.reason)] if lead else max(alike.values(), key=len)
    first = lead or same[0]
    if len(same) == 1:
        who = f"worker {first.worker}"
    else:
        who = f"{len(same)} of {count} workers" if len(same) < count else f"all {count} workers"
    others = len(rows) - len(same)
    return f"{who}: {first.reason}" + (f" (and {others} for other reasons)" if others else "")


def _failure(job: Object, condition: Object, cause: reasons.Ending | None, events: Sequence[Object]) -> str:
    word = condition.get("reason", "")
    if word == "DeadlineExceeded":
        deadline = job["spec"].get("activeDeadlineSeconds")
        text = f"took longer than its deadline of {format_duration(deadline)}" if deadline else "deadline exceeded"
        if cause:
            return f"{text}; before: {cause.reason}"
        prefix = f"{job['metadata']['name']}-"
        never = [e for e in events if e["involvedObject"].get("name", "").startswith(prefix)
                 and e["reason"] == "FailedScheduling"]  # fmt: skip
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


def _queued(name: str, queue: str, workload: Object | None) -> str:
    found = workload or {}
    if found.get("spec", {}).get("active") is False:
        return f"queue {queue}: its Workload is deactivated; 'launcher resume {name}' activates it"
    for condition in found.get("status", {}).get("conditions", []):
        if condition["type"] in ("QuotaReserved", "Admitted") and condition["status"] == "False":
            return f"queue {queue}: {one_line(condition.get('message', ''))}"
    return f"waits for queue {queue} to admit it"


def _finished(job: Object) -> str | None:
    status = job.get("status", {})
    ends = (c for c in status.get("conditions", []) if c["type"] in ("Complete", "Failed") and c["status"] == "True")
    return status.get("completionTime") or next((end.get("lastTransitionTime") for end in ends), None)


def _took(status: Object) -> str:
    from datetime import datetime

    start, end = status.get("startTime"), status.get("completionTime")
    if not start or not end:
        return "all workers are done"
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return f"all workers are done, after {format_duration(seconds)}"
