"""Who stopped first, in whatever order the others follow, and whatever their clocks say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.diagnosis.causes import Cause, find_causes
from launcher.diagnosis.job_status import job_status
from launcher.job.labels import INDEX_ANNOTATION

CREATED = datetime(2026, 11, 23, 10, tzinfo=UTC)
TRACE = 'Traceback (most recent call last):\n  File "/opt/loop.py", line 12, in f\nValueError: bad mask'


def at(seconds: float) -> str:
    return (CREATED + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(workers: int, *conditions: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    progress = {"annotations": {"maskfleet/progress.json": '{"state": "training"}'}}
    return {
        "metadata": {"name": "pets", "creationTimestamp": at(-10), **progress, **metadata},
        "spec": {"completions": workers},
        "status": {"conditions": list(conditions)},
    }


def pod(worker: int, *, made: float = 0, ahead: float = 0, suffix: str = "aaaaa", **status: Any) -> dict[str, Any]:
    """A pod on a node whose clock is ``ahead``; times of ``status`` are that of the node already."""
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(made)}
    return {
        "metadata": {
            "name": f"pets-{worker}-{suffix}",
            "creationTimestamp": at(made),
            "annotations": {INDEX_ANNOTATION: str(worker)},
        },
        "spec": {"nodeName": f"node-{worker}", "containers": [{"name": "trainer"}]},
        "status": {
            "phase": "Running",
            "startTime": at(made + 1 + ahead),
            **status,
            "conditions": [scheduled, *status.get("conditions", [])],
        },
    }


def running(worker: int, **how: Any) -> dict[str, Any]:
    started = at(how.get("made", 0) + 2 + how.get("ahead", 0))
    return pod(worker, **how, containerStatuses=[{"name": "trainer", "image": "i", "state": {
        "running": {"startedAt": started}}}])  # fmt: skip


def ended(worker: int, when: float, code: int, message: str = "", reason: str = "Error", **how: Any) -> dict[str, Any]:
    ahead = how.get("ahead", 0)
    terminated = {"exitCode": code, "message": message, "reason": reason, "finishedAt": at(when + ahead),
                  "startedAt": at(how.get("made", 0) + 2 + ahead)}  # fmt: skip
    statuses = [{"name": "trainer", "image": "i", "state": {"terminated": terminated}}]
    return pod(worker, **how, phase="Failed", containerStatuses=statuses)


def lost_peer(worker: int, when: float, **how: Any) -> dict[str, Any]:
    return ended(worker, when, 75, f"error: worker {worker} lost a peer", **how)


def deleted(found: dict[str, Any], when: float, grace: int = 60) -> dict[str, Any]:
    asked = {"deletionTimestamp": at(when + grace), "deletionGracePeriodSeconds": grace}
    return {**found, "metadata": {**found["metadata"], **asked}}


def disrupted(found: dict[str, Any], when: float, reason: str) -> dict[str, Any]:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": at(when)}
    conditions = [*found["status"]["conditions"], condition]
    return {**found, "status": {**found["status"], "conditions": conditions}}


def event(name: str, reason: str, when: float, message: str = "") -> dict[str, Any]:
    return {
        "involvedObject": {"name": name}, "reason": reason, "message": message, "lastTimestamp": at(when + 7200),
        "metadata": {"creationTimestamp": at(when)},
    }  # fmt: skip


def first(workers: int, *pods: dict[str, Any], events: Any = (), **extra: Any) -> Cause | None:
    return find_causes(job(workers, **extra), pods, events, {}).first


# What happens to worker 0 at 100 s, by what its own pod says, and the words for it.
OWN = {
    "deleted": (lambda ahead: deleted(ended(0, 100, 143, "saved", ahead=ahead), 100), "its pod was deleted"),
    "deleted and killed": (
        lambda ahead: deleted(ended(0, 160, 137, ahead=ahead), 100),
        "its pod was deleted, and it was killed at the end of its grace",
    ),
    "still ending": (lambda ahead: deleted(running(0, ahead=ahead), 100), "its pod was deleted or evicted"),
    "drained": (
        lambda ahead: disrupted(ended(0, 110, 143, ahead=ahead), 100, "EvictionByEvictionAPI"),
        "evicted: its node is being drained",
    ),
    "preempted": (
        lambda ahead: disrupted(ended(0, 110, 143, ahead=ahead), 100, "PreemptionByScheduler"),
        "preempted by a pod of higher priority",
    ),
    "node lost": (
        lambda ahead: disrupted(running(0, ahead=ahead), 100, "DeletionByTaintManager"),
        "node lost: it did not answer, or was tainted",
    ),
    "out of memory": (lambda ahead: ended(0, 100, 137, reason="OOMKilled", ahead=ahead), "out of memory"),
    "traceback": (lambda ahead: ended(0, 100, 1, TRACE, ahead=ahead), "ValueError: bad mask (loop.py, line 12)"),
    "killed": (lambda ahead: ended(0, 100, 137, ahead=ahead), "trainer was killed by signal 9"),
    "told to stop": (lambda ahead: ended(0, 100, 143, "saved", ahead=ahead), "told to stop"),
}


@pytest.mark.parametrize("what", OWN)
@given(order=st.permutations(range(4)), skews=st.tuples(*[st.integers(-7200, 7200)] * 4), after=st.integers(0, 30))
def test_the_worker_that_stopped_by_itself_is_the_cause(
    what: str, order: list[int], skews: tuple[int, ...], after: int
) -> None:
    make, words = OWN[what]
    pods = [
        make(skews[0]),
        lost_peer(1, 100 + after, ahead=skews[1]),
        ended(2, 100 + after, 1, "loading\nerror: worker 0: bad mask", ahead=skews[2]),
        running(3, ahead=skews[3]),
    ]
    shuffled = [pods[place] for place in order]
    standing = {"pets-0-aaaaa": ("Stopping", "")} if what == "still ending" else {}
    found = find_causes(job(4), shuffled, (), standing)
    assert found.first is not None
    assert (found.first.worker, found.first.ending.reason.startswith(words)) == (0, True)
    assert found.with_another == {"pets-1-aaaaa", "pets-2-aaaaa"}


@given(st.integers(-7200, 7200), st.integers(-7200, 7200), st.integers(15, 600))
def test_of_two_that_stopped_by_themselves_the_earlier_counts_whatever_their_clocks_say(
    one: int, other: int, apart: int
) -> None:
    earlier = ended(1, 100, 1, TRACE, ahead=one)
    later = ended(0, 100 + apart, 137, reason="OOMKilled", ahead=other)
    cause = first(2, later, earlier)
    assert cause is not None
    assert cause.worker == 1


def test_what_a_failed_job_has_stopped_is_no_cause() -> None:
    conditions = [{"type": "FailureTarget", "status": "True", "lastTransitionTime": at(101)}]
    failed = ended(1, 100, 1, TRACE)
    stopped = deleted(ended(0, 99, 143), 101)  # by a clock that is a little behind
    cause = find_causes(job(2, *conditions), [stopped, failed], (), {}).first
    assert cause is not None
    assert cause.worker == 1


@pytest.mark.parametrize(
    ("told", "pods", "worker"),
    [
        ("a failure of hours ago, and another now", [
            ended(0, 100, 1, TRACE), running(0, made=130, suffix="bbbbb"),
            ended(1, 7000, 2, "error: --epochs: no")], 1),
        ("hours ago, and the same worker now", [
            ended(0, 100, 1, TRACE), ended(0, 7000, 137, reason="OOMKilled", made=130, suffix="bbbbb"),
            lost_peer(1, 7001)], 0),
        ("a worker that fails again and again while another waits in vain", [
            ended(1, 100, 1, TRACE), ended(1, 140, 1, TRACE, made=110, suffix="bbbbb"),
            ended(1, 200, 1, TRACE, made=180, suffix="ccccc"), lost_peer(0, 230)], 1),
        ("hours ago, and now nobody says whose fault it is", [
            ended(0, 100, 1, TRACE), running(0, made=130, suffix="bbbbb"), lost_peer(1, 7000)], 1),
        ("an eviction that took long to be replaced", [
            disrupted(ended(0, 110, 143), 100, "EvictionByEvictionAPI"),
            pod(0, made=120, suffix="bbbbb", phase="Pending"),
            lost_peer(1, 400), ended(1, 9000, 75, made=410, suffix="bbbbb")], 0),
    ],
)  # fmt: skip
def test_of_several_attempts_the_last_one_counts(told: str, pods: list[dict[str, Any]], worker: int) -> None:
    cause = first(2, *pods)
    assert cause is not None, told
    assert cause.worker == worker, told


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([event("pets-0-aaaaa", "Killing", 100)], "its pod was deleted"),
        ([event("pets-0-aaaaa", "Killing", 100), event("pets-0-aaaaa", "Preempted", 100)], "preempted by a pod"),
        ([event("pets-0-aaaaa", "Evicted", 100, "low on memory")], "evicted by its node: low on memory"),
        ([event("pets-0-aaaaa", "TaintManagerEviction", 100)], "node lost"),
    ],
)
def test_a_pod_that_is_gone_is_the_cause_by_its_events(events: list[dict[str, Any]], words: str) -> None:
    found = job_status(job(2), [pod(0, made=130, suffix="bbbbb", phase="Pending"), lost_peer(1, 101)], events)
    assert found.phase == "Restarting"
    assert found.reason.startswith("worker 0: containers are being created (before: worker 0: ")
    assert words in found.reason


@pytest.mark.parametrize("known", [frozenset({"node-1", "node-2"}), None])
def test_a_worker_whose_node_is_silent_is_named_and_not_those_that_wait_for_it(known: frozenset[str] | None) -> None:
    silent = running(0)
    silent["status"]["conditions"].append({"type": "Ready", "status": "Unknown", "lastTransitionTime": at(140)})
    pods = [silent, lost_peer(1, 115), lost_peer(2, 116)]
    events = [] if known else [event("pets-0-aaaaa", "NodeNotReady", 140, "Node is not ready")]
    found = job_status(job(3), pods, events, known)
    assert found.phase == "Restarting"
    why = "its node is gone from the cluster" if known else "its node does not answer"
    assert found.reason == f"worker 0: {why} (and 2 for other reasons)"


@pytest.mark.parametrize("gone", [True, False])
def test_what_the_end_of_the_job_stops_is_not_before_it(gone: bool) -> None:
    condition = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "lastTransitionTime": at(100)}
    found = job(2, condition)
    found["spec"]["activeDeadlineSeconds"] = 110
    stopped = [deleted(ended(worker, 101, 143), 100) for worker in range(2)]
    events = [event(f"pets-{worker}-aaaaa", "Killing", 101) for worker in range(2)]
    assert job_status(found, [] if gone else stopped, events).reason == "took longer than its deadline of 1m50s"


def test_an_old_failure_does_not_stand_for_a_later_pod_that_is_gone() -> None:
    failed = ended(0, -4000, 1, TRACE, made=-9000)
    later = [event("pets-0-bbbbb", "Pulled", 0), event("pets-0-bbbbb", "Killing", 100)]
    found = job_status(job(2, creationTimestamp=at(-9100)), [failed, lost_peer(1, 101)], later)
    assert found.reason == "worker 0: waits for its pod to be created (before: worker 0: its pod was deleted)"
    assert [(row.phase, row.attempt) for row in found.workers] == [("Pending", 3), ("Failed", 1)]


def test_a_pod_that_went_before_a_suspension_is_no_cause() -> None:
    conditions = [{"type": "Suspended", "status": "False", "lastTransitionTime": at(500)}]
    events = [event("pets-0-aaaaa", "Killing", 100)]
    assert find_causes(job(1, *conditions), [running(0, made=501)], events, {}).first is None


def test_the_reason_is_that_of_the_first_however_many_follow() -> None:
    pods = [deleted(ended(0, 100, 143), 100), *(lost_peer(worker, 99) for worker in range(1, 5))]
    found = job_status(job(5), pods)
    assert found.reason == "worker 0: its pod was deleted (and 4 for other reasons)"


@given(st.data())
def test_neither_another_worker_nor_an_earlier_attempt_is_blamed(data: st.DataObject) -> None:
    workers = data.draw(st.integers(2, 5))
    skews = [data.draw(st.sampled_from([0, 3, -7, 40, 3600, -3600])) for _ in range(workers)]
    victim, old = data.draw(st.integers(0, workers - 1)), data.draw(st.integers(0, workers - 1))
    ahead = skews[victim]
    what = data.draw(st.sampled_from(["deleted", "drained", "out of memory", "traceback", "killed", "gone"]))
    own = {
        "deleted": [deleted(ended(victim, 101, 143, "saved", ahead=ahead), 100)],
        "drained": [disrupted(ended(victim, 103, 143, ahead=ahead), 100, "EvictionByEvictionAPI")],
        "out of memory": [ended(victim, 100, 137, reason="OOMKilled", ahead=ahead)],
        "traceback": [ended(victim, 100, 1, TRACE, ahead=ahead)],
        "killed": [ended(victim, 100, 137, ahead=ahead)],
        "gone": [],
    }[what]
    events = [event(f"pets-{victim}-aaaaa", "Killing", 100)] if what == "gone" else []
    earlier = ended(old, -5000, 1, TRACE.replace("bad mask", "OLD"), made=-9000, ahead=skews[old], suffix="00000")
    others = [
        data.draw(st.sampled_from([
            lost_peer(worker, 100 + 7 * worker, ahead=skews[worker]),
            ended(worker, 100 + worker, 1, f"step 3\nerror: worker {victim}: bad mask", ahead=skews[worker]),
            running(worker, ahead=skews[worker]),
        ]))
        for worker in range(workers) if worker != victim
    ]  # fmt: skip
    replaced = [running(victim, made=200, ahead=ahead, suffix="bbbbb")] if data.draw(st.booleans()) else []
    pods = data.draw(st.permutations([*own, *others, *replaced, *([earlier] if data.draw(st.booleans()) else [])]))
    found = job_status(job(workers, creationTimestamp=at(-9100)), pods, events)
    assert "OLD" not in found.reason
    assert found.phase != "Restarting" or f"worker {victim}" in found.reason
