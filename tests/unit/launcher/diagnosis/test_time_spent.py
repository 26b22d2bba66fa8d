"""What the time of a job was spent on, from its objects and what its run has told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.diagnosis.time_spent import stopped_seconds, time_spent
from launcher.job.labels import CANCELLED_ANNOTATION, INDEX_ANNOTATION, STOPPED_ANNOTATION
from maskfleet.goodput import (
    COMPUTING,
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
)

BEGAN = 1_800_000_000


def at(seconds: float) -> str:
    return datetime.fromtimestamp(BEGAN + int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(started: float | None = 10, *, suspended: bool = False, **annotations: str) -> dict[str, Any]:
    """Made at 0."""
    return {
        "metadata": {"creationTimestamp": at(0), "annotations": annotations},
        "spec": {"suspend": suspended},
        "status": {} if started is None else {"startTime": at(started)},
    }


def pod(
    created: float, scheduled: float | None = None, running: float | None = None, worker: int = 0, **mounted: Any
) -> dict[str, Any]:
    """``mounted`` is when its volumes were; None: not yet, or not any more. Old servers do not tell."""
    told = {"PodScheduled": scheduled}
    if mounted:
        told["PodReadyToStartContainers"] = mounted["mounted"]
    conditions = [
        {"type": kind, "status": str(time is not None), "lastTransitionTime": at(time or 0)}
        for kind, time in told.items()
    ]
    state = {"waiting": {"reason": "PodInitializing"}} if running is None else {"running": {"startedAt": at(running)}}
    return {
        "metadata": {"creationTimestamp": at(created), "annotations": {INDEX_ANNOTATION: str(worker)}},
        "status": {"conditions": conditions, "initContainerStatuses": [{"name": "prepare", "state": state}]},
    }


def told(since: float, until: float, then: str = COMPUTING, **seconds: float) -> TimeSpent:
    return TimeSpent(BEGAN + since, BEGAN + until, then, seconds)


@pytest.mark.parametrize(("job", "pods", "spent"), [
    (job(None, suspended=True), [], {QUEUED: 100}),
    (job(), [], {QUEUED: 10, OTHER: 90}),
    (job(), [pod(11)], {QUEUED: 10, UNSCHEDULABLE: 90}),
    (job(), [pod(11, 31)], {QUEUED: 10, UNSCHEDULABLE: 21, IMAGE_PULL: 69}),
    (job(), [pod(11, 31, 40)], {QUEUED: 10, UNSCHEDULABLE: 21, IMAGE_PULL: 9, PREPARING: 60}),
    (job(), [pod(11, 31, 40), pod(11, worker=1)], {QUEUED: 10, UNSCHEDULABLE: 21, IMAGE_PULL: 9, PREPARING: 60}),
    (job(), [pod(11, 31, mounted=None)], {QUEUED: 10, UNSCHEDULABLE: 21, VOLUMES: 69}),
    (job(), [pod(11, 31, mounted=51)], {QUEUED: 10, UNSCHEDULABLE: 21, VOLUMES: 20, IMAGE_PULL: 49}),
    (job(), [pod(11, 31, 60, mounted=51)],
     {QUEUED: 10, UNSCHEDULABLE: 21, VOLUMES: 20, IMAGE_PULL: 9, PREPARING: 40}),
    (job(), [pod(11, 31, 60, mounted=None)], {QUEUED: 10, UNSCHEDULABLE: 21, IMAGE_PULL: 29, PREPARING: 40}),  # ended
    (job(), [pod(11, 31, 60, mounted=80)], {QUEUED: 10, UNSCHEDULABLE: 21, VOLUMES: 29, PREPARING: 40}),  # made anew
    (job(200), [], {OTHER: 100}),  # its clock is ahead
])  # fmt: skip
def test_before_the_run_has_told_anything(job, pods, spent):
    assert time_spent(job, pods, None, None, BEGAN + 100) == spent


@pytest.mark.parametrize(("job", "pods", "then", "finished", "more"), [
    (job(), [pod(10, 12, 20)], COMPUTING, None, {COMPUTING: 20}),
    (job(), [pod(10, 12, 20)], STOPPED, 95, {RESULTS: 15}),
    (job(suspended=True, **{CANCELLED_ANNOTATION: at(70)}), [], RECOVERY, None, {STOPPED: 20}),
    (job(suspended=True), [], RECOVERY, None, {QUEUED: 20}),
])  # fmt: skip
def test_since_the_run_has_told_last(job, pods, then, finished, more):
    told_of = told(22, 80, then, computing=48.0, infrastructure_recovery_from_disruption=10.0)
    spent = time_spent(job, pods, told_of, finished and at(finished), BEGAN + 100)
    assert sum(spent.values()) == (finished or 100)
    expected = {COMPUTING: 48, RECOVERY: 10} | {STOPPED: 0, RESULTS: 0, QUEUED: 0}
    for cause, each in more.items():
        assert spent[cause] == expected[cause] + each


def test_a_later_pod_tells_why_the_restart_took_so_long():
    later = pod(50, 60, 67, mounted=64)
    spent = time_spent(job(), [later], told(22, 80, computing=38.0, **{RECOVERY: 20.0}), None, BEGAN + 80)
    assert spent[UNSCHEDULABLE] == 10
    assert spent[VOLUMES] == 4
    assert spent[IMAGE_PULL] == 3
    assert spent[RECOVERY] == 3
    assert sum(spent.values()) == 80


@pytest.mark.parametrize(("scheduled", "unschedulable"), [(45, 23), (None, 58), (12, 0)])
def test_what_the_chief_has_waited_for(scheduled: float | None, unschedulable: float):
    pods = [pod(10, 10, 10), pod(10, scheduled, worker=1)]
    spent = time_spent(job(), pods, told(22, 80, PEERS, **{PREPARING: 0.0, PEERS: 58.0}), None, BEGAN + 80)
    assert spent.get(UNSCHEDULABLE, 0) == unschedulable
    assert spent[PEERS] == 58 - unschedulable
    assert sum(spent.values()) == 80


def test_time_that_a_job_was_cancelled_is_no_restart():
    resumed = job(40, **{STOPPED_ANNOTATION: "15"})
    spent = time_spent(resumed, [], told(22, 80, computing=38.0, **{RECOVERY: 20.0}), None, BEGAN + 80)
    assert (spent[STOPPED], spent[RECOVERY], sum(spent.values())) == (15, 5, 80)


@pytest.mark.parametrize("written", ["", "long", "inf", "nan"])
def test_an_annotation_that_is_no_time_is_none(written: str):
    assert stopped_seconds({STOPPED_ANNOTATION: written}) == 0


times = st.none() | st.integers(0, 300)


@given(times, times, times, times, times, st.integers(1, 300), st.booleans(), st.booleans())
def test_all_time_is_booked_once(started, created, scheduled, mounted, running, now, suspended, tells):
    pods = [] if created is None else [pod(created, scheduled, running, mounted=mounted)]
    since = min(now, 20)
    lines = told(since, now, infrastructure_recovery_from_disruption=float(now - since)) if tells else None
    spent = time_spent(job(started, suspended=suspended), pods, lines, None, BEGAN + now)
    assert sum(spent.values()) == pytest.approx(now)
    assert all(each >= 0 for each in spent.values())
