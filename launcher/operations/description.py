"""All that is known of a job, for ``launcher describe``: its settings, its status, and what has happened to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from launcher.cluster.kubernetes_api import Object
from launcher.cluster.namespace import Namespace
from launcher.diagnosis.job_status import DULL_EVENTS
from launcher.diagnosis.pods import event_time, whole_event, worker_of_pod_name
from launcher.diagnosis.reasons import steady
from launcher.diagnosis.tables import MOST_ROWS, table, worker_table
from launcher.job.labels import instance
from launcher.operations.submitted import asked_job, get_job
from launcher.operations.surroundings import NamespaceView
from maskfleet.errors import BadInput
from maskfleet.goodput import CAUSES
from maskfleet.text import one_line

_MOST_EVENTS = 200
_MOST_ALIKE = 8
"""Events that are shown one by one although they say the same of several pods."""
_OF_ANY_POD = (*DULL_EVENTS, "SuccessfulDelete", "FailedScheduling")
"""Reasons of events whose messages differ from pod to pod and tell the same."""


def describe(name: str, cluster: Namespace) -> dict[str, Any]:
    """Settings, status and events of a job, the oldest event first; JSON-compatible.

    Raises:
        NotFound: there is no such job.
    """
    job = get_job(cluster, name)
    pods = cluster.list("Pod", labels=instance(name))
    around = NamespaceView.of(cluster, [job], all_events=True)
    status = around.status(job, pods)
    asked: dict[str, Any] = {}
    with contextlib.suppress(BadInput):  # made by hand, or by another version
        asked = asked_job(job).dump()
    return {
        "job": asked,
        "status": status.to_dict(),
        "events": history(name, job["metadata"]["uid"], around.events or ()),
    }


def history(name: str, uid: str, events: Sequence[Object]) -> list[dict[str, str]]:
    """The events of a Job and of its workers' pods, those that are gone included, the oldest first.

    What is told of many pods between two events of the job itself is one.
    """
    ours = [event for event in map(whole_event, events) if _concerns(event["involvedObject"], name, uid)]
    ours.sort(key=_first_time)
    return [_entry(alike) for alike in _together(ours)[-_MOST_EVENTS:]]


def _together(events: Iterable[Object]) -> list[list[Object]]:
    """Events, by their first time; those of many pods that say the same stand together."""
    groups: list[list[Object]] = []
    alike: dict[tuple[str, str], list[Object]] = {}
    for event in events:
        reason = event["reason"]
        if event["involvedObject"].get("kind") != "Pod" and reason not in _OF_ANY_POD:
            groups.append([event])
            alike = {}
            continue
        key = reason, "" if reason in _OF_ANY_POD else steady(event["message"])
        if key not in alike:
            alike[key] = []
            groups.append(alike[key])
        alike[key].append(event)
    single = [[each] for group in groups if len(group) <= _MOST_ALIKE for each in group]
    return sorted(
        [*single, *(group for group in groups if len(group) > _MOST_ALIKE)], key=lambda it: _first_time(it[0])
    )


def _entry(alike: Sequence[Object]) -> dict[str, str]:
    """Of an event, or of those of many pods, with the newest one's message."""
    first, last = alike[0], alike[-1]
    more = f" (and {len(alike) - 1} more until {_clock(_first_time(last))})" if len(alike) > 1 else ""
    return {
        "time": _first_time(first),
        "object": f"{first['involvedObject']['kind']}/{first['involvedObject']['name']}",
        "reason": first["reason"],
        "message": one_line(last.get("message", "")) + (more or _repeats(first)),
    }


def describe_lines(found: Mapping[str, Any]) -> list[str]:
    """The description as text for people."""
    from launcher.diagnosis.worker_status import WorkerStatus

    status = found["status"]
    lines = [f"{status['name']}: {status['phase']}" + (f" – {status['reason']}" if status["reason"] else "")]
    if status["progress"]:
        lines.append(f"progress: {status['progress']}")
    if spent := status["time_spent"]:
        total = spent["wall_seconds"]
        rows = [[CAUSES[cause], f"{each:.0f} s", f"{each / total:.1%}"] for cause, each in spent["seconds"].items()]
        lines += ["", f"goodput: {spent['goodput']:.3f}", *table(["TIME SPENT ON", "SECONDS", "SHARE"], rows)]
    workers = [WorkerStatus(**row) for row in status["workers"]]
    lines += ["", *worker_table(workers, wide=len(workers) <= MOST_ROWS)]
    if status["evidence"]:
        lines += ["", "last output:", *(f"  {line}" for line in status["evidence"])]
    if found["job"]:
        lines += [
            "",
            "settings:",
            *(f"  {line}" for line in yaml.safe_dump(found["job"], sort_keys=False).splitlines()),
        ]
    rows = [[_clock(e["time"]), e["object"], e["reason"], e["message"]] for e in found["events"]]
    lines += ["", "events:", *table(["TIME", "OBJECT", "REASON", "MESSAGE"], rows)]
    return [*lines, *([f"you may not list {', '.join(status['unseen'])}"] if status["unseen"] else [])]


def _concerns(involved: Object, name: str, uid: str) -> bool:
    if involved.get("kind") == "Job":
        return bool(involved.get("name") == name and involved.get("uid", uid) == uid)
    return involved.get("kind") == "Pod" and worker_of_pod_name(involved.get("name", ""), name) is not None


def _first_time(event: Object) -> str:
    return event.get("firstTimestamp") or event.get("eventTime") or event_time(event)


def _repeats(event: Object) -> str:
    count = (event.get("series") or {}).get("count") or event.get("count") or 1
    return f" ({count} times until {_clock(event_time(event))})" if count > 1 else ""


def _clock(time: str) -> str:
    return f"{datetime.fromisoformat(time).astimezone(UTC):%Y-%m-%d %H:%M:%SZ}" if time else "-"
