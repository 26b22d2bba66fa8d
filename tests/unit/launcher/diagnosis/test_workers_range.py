"""What is said of a job that trains with fewer workers for as long as no more find room."""

from __future__ import annotations

import json
from typing import Any

import pytest

from launcher.diagnosis.job_status import JobStatus, job_status
from launcher.diagnosis.placement import deadlock
from launcher.diagnosis.tables import describe_status, job_table
from launcher.job.labels import PROGRESS_JSON_ANNOTATION, WORKERS_ANNOTATION
from launcher.job.manifests import manifests
from launcher.job.training_job import TrainingJob
from launcher.operations import following
from tests.fakes.cluster import CREATED, worker_pod
from tests.unit.launcher.diagnosis.test_job_status import QUOTA, event
from tests.unit.launcher.diagnosis.test_placement import NO_ROOM, TOO_LITTLE, pending


def job(workers: str = "2..4", conditions: tuple[str, ...] = (), **details: Any) -> Any:
    """With what the chief's sidecar has told."""
    made = manifests(TrainingJob(name="pets", workers=workers, shrink_after="90s"))[0]
    made["metadata"]["creationTimestamp"] = CREATED
    made["spec"]["suspend"] = False
    if details:
        made["metadata"]["annotations"][PROGRESS_JSON_ANNOTATION] = json.dumps(details)
    made["status"] = {"conditions": [{"type": each, "status": "True"} for each in conditions]}
    return made


def of_range(pod: Any, workers: str = "2..4") -> Any:
    pod["metadata"]["annotations"][WORKERS_ANNOTATION] = workers
    return pod


def up(*workers: int) -> list[Any]:
    return [of_range(worker_pod(worker)) for worker in workers]


WITHOUT_ROOM = of_range(pending(3, NO_ROOM))
FETCHING = of_range(worker_pod(3, phase="Pending", waiting={"reason": "PodInitializing"}))


@pytest.mark.parametrize(
    ("now", "phase", "reason"),
    [
        (
            job_status(job(state="training", present="0-2"), [*up(0, 1, 2), WITHOUT_ROOM]),
            "Running", f"3 of 2..4 workers; worker 3: {TOO_LITTLE}",
        ),
        (
            job_status(job(state="training", present="0-2"), up(0, 1, 2), [event("pets", "FailedCreate", QUOTA)]),
            "Running", "3 of 2..4 workers; worker 3: quota small refuses its pods: requested: cpu=2, used: cpu=0",
        ),
        (
            job_status(job(state="training", present="0-2"), [*up(0, 1, 2), FETCHING]),
            "Running", "3 of 2..4 workers; worker 3: containers are being created",
        ),
        (job_status(job(state="training", present="0-3"), up(0, 1, 2, 3)), "Running", "4 of 2..4 workers"),
        (
            job_status(job(state="starting", present="0-2", message="training starts"), [*up(0, 1, 2), WITHOUT_ROOM]),
            "Starting", f"3 of 2..4 workers; worker 3: {TOO_LITTLE}; training starts",
        ),
        (
            job_status(job(state="restarting", message="attempt 1 ended"), [*up(0, 1, 2), WITHOUT_ROOM]),
            "Restarting", f"worker 3: {TOO_LITTLE}; 3 of 2..4 workers are up, and go on without after 1m30s",
        ),
        (
            job_status(job(), [*up(0, 1, 2), WITHOUT_ROOM]),
            "Pending", f"worker 3: {TOO_LITTLE}; 3 of 2..4 workers are up, and go on without after 1m30s",
        ),
        (
            job_status(job("3..4"), [*up(0, 1), WITHOUT_ROOM, of_range(pending(2, NO_ROOM))]),
            "Pending", f"2 of 4 workers: {TOO_LITTLE}; 2 of 3..4 workers are up, and at least 3 train",
        ),
        (
            job_status(job(state="training", present="0-3"), [*up(0, 1, 2), WITHOUT_ROOM]),
            "Restarting", f"worker 3: {TOO_LITTLE}; 3 of 2..4 workers are up, and go on without after 1m30s",
        ),
        (
            job_status(job(conditions=("SuccessCriteriaMet",), state="training", present="0-2"), up(1, 2)),
            "Running", "the run is over, and its other workers end",
        ),
        (
            job_status(job(conditions=("SuccessCriteriaMet", "Complete")), []),
            "Succeeded", "all workers are done",
        ),
    ],
    ids=[
        "no node", "a quota", "one comes", "all", "starting without one", "waiting for one that is lost",
        "waiting for all", "too few", "one of those that train is gone", "over and streaming", "done",
    ],
)  # fmt: skip
def test_phase_and_reason(now: JobStatus, phase: str, reason: str) -> None:
    assert (now.phase, now.reason) == (phase, reason)


def test_who_trains_is_in_the_json_and_in_the_tables() -> None:
    now = job_status(job(state="training", present="0,2"), [*up(0, 2), WITHOUT_ROOM])
    assert now.to_dict()["workers_range"] == {"least": 2, "most": 4, "present": [0, 2]}
    assert describe_status(now)[0].startswith("pets: Running – 2 of 2..4 workers; ")
    assert " 2/4 " in job_table([now])[1]


@pytest.mark.parametrize("present", ["0-9", "x", "0-99999999999", 7, None, ["0"]])
def test_whatever_an_annotation_says_of_who_trains_is_no_more_than_workers(present: Any) -> None:
    now = job_status(job(state="training", present=present), [*up(0, 1), WITHOUT_ROOM])
    assert now.workers_range is not None
    assert now.workers_range["present"] == []
    assert now.phase == "Restarting"


def test_a_job_that_trains_with_fewer_holds_up_nobody() -> None:
    theirs = [worker_pod(0, job="cats"), pending(1, NO_ROOM, of="cats")]
    enough, too_few = [*up(0, 1), WITHOUT_ROOM], [*up(0), WITHOUT_ROOM]
    assert deadlock("pets", [*enough, *theirs]) == ""
    assert deadlock("cats", [*enough, *theirs]) == ""
    for pod in (*too_few, *theirs):
        pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "700m"}}
    assert deadlock("pets", [*too_few, *theirs]).startswith("it and cats block each other")


def test_workers_that_never_came_keep_nobody_waiting() -> None:
    done = [of_range(worker_pod(worker, phase="Succeeded")) for worker in (0, 1)]
    made_room = of_range(
        worker_pod(2, phase="Failed", terminated={"exitCode": 75, "message": "error: worker 2 makes room"})
    )
    assert job_status(job(conditions=("Complete",)), [*done, made_room]).exit_code == 0
    now = job_status(job(conditions=("SuccessCriteriaMet", "Complete")), done)
    assert (now.exit_code, now.not_streamed) == (0, "")
    assert [(row.phase, row.reason) for row in now.workers[2:]] == [("Stopped", "the run is over without it")] * 2
    assert not following._is_behind(now)
