"""From objects as the API gives them to a phase and one line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from launcher.diagnosis import reasons
from launcher.diagnosis.capacity import node_refusal, places_on
from launcher.diagnosis.job_status import JobStatus, job_status
from launcher.diagnosis.tables import age, describe_status, job_table, worker_table
from launcher.job import labels
from launcher.operations.description import history
from launcher.streaming.stream_metrics import StreamMetrics
from maskfleet.text import ranges

CREATED = "2026-11-23T10:00:00Z"


def job(workers: int = 1, **extra: Any) -> dict[str, Any]:
    metadata = {"name": "pets", "namespace": "team", "creationTimestamp": CREATED, "labels": {}, "annotations": {}}
    metadata |= extra.pop("metadata", {})
    return {"metadata": metadata, "spec": {"completions": workers, **extra.pop("spec", {})}, "status": extra}


def pod(worker: int = 0, created: str = CREATED, name: str = "", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name or f"pets-{worker}-abcde",
            "creationTimestamp": created,
            "annotations": {labels.INDEX_ANNOTATION: str(worker)},
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "trainer", "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "4Gi"}}}],
        },
        "status": {"phase": "Running", **status},
    }


def trainer(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "trainer", "image": "i:1", "state": state}]}


def failed(worker: int, code: int, message: str, at: str, **extra: Any) -> dict[str, Any]:
    terminated = {"exitCode": code, "message": message, "finishedAt": at, "reason": "Error", **extra}
    return pod(worker, phase="Failed", **trainer(terminated=terminated))


def event(name: str, reason: str, message: str, time: str = "2026-11-23T10:05:00Z") -> dict[str, Any]:
    return {"involvedObject": {"name": name}, "reason": reason, "message": message, "lastTimestamp": time}


TRAINING = {"annotations": {"maskfleet/progress.json": '{"state": "training", "epoch": 2}'}}
QUOTA = 'Error creating: pods "pets-0-x" is forbidden: exceeded quota: small, requested: cpu=2, used: cpu=0'
SAID = "out of memory: the training process was killed at 4090 MiB of the container's 4096 MiB; raise --memory"
UP = trainer(running={"startedAt": CREATED})


def waiting(scheduler: str) -> dict[str, Any]:
    """A pod that no scheduler has looked at."""
    return {**pod(phase="Pending"), "spec": {"schedulerName": scheduler, "containers": [{"name": "trainer"}]}}


@pytest.mark.parametrize(
    ("found", "phase", "reason"),
    [
        (job_status(job(metadata=TRAINING), [pod(**UP)]), "Running", ""),
        (job_status(job(), [pod(**UP)]), "Starting", "1 of 1 workers are up; no step yet"),
        (job_status(job(), [waiting("default-scheduler")]), "Pending", "waits for the scheduler"),
        (job_status(job(), [waiting("volcano")]), "Pending",
         "waits for the scheduler volcano, which has not looked at it: does it run?"),
        (job_status(job(2), []), "Pending", "all 2 workers: waits for its pod to be created"),
        (
            job_status(job(), [], [event("pets", "FailedCreate", QUOTA)]),
            "Pending", "quota small refuses its pods: requested: cpu=2, used: cpu=0",
        ),
        (job_status(job(spec={"suspend": True}), []), "Pending",
         "submit was interrupted: 'launcher submit' with the same --name pets finishes it"),
        (job_status(job(spec={"suspend": True}, metadata={"labels": {"kueue.x-k8s.io/queue-name": "q"}}), []), "Queued",
         "waits for queue q to admit it"),
        (job_status(job(spec={"suspend": True}, metadata={"annotations": {"maskfleet/cancelled": "10:07"}}), []),
         "Cancelled", "cancelled at 10:07; 'launcher resume pets' goes on"),
        (
            job_status(job(2, metadata=TRAINING), [pod(0, **UP), pod(1, **UP)], nodes=frozenset({"node-2"})),
            "Restarting", "all 2 workers: its node is gone from the cluster",
        ),
        (
            job_status(job(conditions=[{"type": "Complete", "status": "True"}], startTime=CREATED,
                           completionTime="2026-11-23T11:30:05Z"), []),
            "Succeeded", "all workers are done, after 1h30m",
        ),
    ],
)  # fmt: skip
def test_phase_and_reason(found: JobStatus, phase: str, reason: str) -> None:
    assert (found.phase, found.reason) == (phase, reason)


def test_the_first_failure_is_the_cause_and_lost_peers_follow() -> None:
    trace = 'Traceback (most recent call last):\n  File "/opt/loop.py", line 12, in f\nValueError: bad mask'
    pods = [
        failed(0, 75, "error: worker 0 lost a peer", "2026-11-23T10:01:00Z"),
        failed(1, 1, trace, "2026-11-23T10:01:02Z"),
        failed(2, 1, trace.replace("bad mask", "later"), "2026-11-23T10:01:03Z"),
    ]
    conditions = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": CREATED}]
    found = job_status(job(3, conditions=conditions, failed=3), pods)
    assert found.phase == "Failed"
    assert found.reason == "ValueError: bad mask (loop.py, line 12) (gave up after 3 failed pods)"
    assert found.evidence == tuple(trace.splitlines())
    assert found.exit_code == 1


NO_SECRET = 'MountVolume.SetUp failed for volume "files" : secret "s" not found'
TAKES_LONG = "Unable to attach or mount volumes: unmounted volumes=[files], failed to process volumes=[]: timed out"
WRONG_MODE = f"{TAKES_LONG[:60]}, failed to process volumes=[files]: claim c has volumeMode Block"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ((NO_SECRET,), "Secret s is missing"),
        ((NO_SECRET, TAKES_LONG), "Secret s is missing"),
        ((NO_SECRET.replace("secret", "configmap"),), "ConfigMap s is missing"),
        (('MountVolume.SetUp failed for volume "files" : references non-existent secret key: k',),
         "volume /at can't be mounted: references non-existent secret key: k"),
        (('MountVolume.SetUp failed for volume "files" : hostPath type check failed:\n/srv/x is not a directory',),
         "volume /at can't be mounted: hostPath type check failed: /srv/x is not a directory"),
        (('AttachVolume.Attach failed for volume "pvc-1" : disk d is used by node-2',),
         "volume pvc-1 can't be mounted: disk d is used by node-2"),
        ((WRONG_MODE,), f"volumes can't be mounted: {WRONG_MODE.removeprefix('Unable to attach or mount volumes: ')}"),
    ],
)  # fmt: skip
def test_a_volume_that_can_not_be_mounted_says_why(told: tuple[str, ...], reason: str) -> None:
    events = [event("pets-0-abcde", "FailedMount", each, f"2026-11-23T10:0{minute}:00Z")
              for minute, each in enumerate(told)]  # fmt: skip
    waiting = pod(phase="Pending", **trainer(waiting={"reason": "PodInitializing"}))
    waiting["spec"]["containers"][0]["volumeMounts"] = [{"name": "files", "mountPath": "/at"}]
    found = job_status(job(), [waiting], events)
    assert (found.phase, found.reason) == ("Starting", reason)


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (failed(0, 137, "", "", reason="OOMKilled"), "out of memory: trainer was killed at its limit of 4Gi"),
        (
            failed(0, 1, f"step 3\nerror: worker 0: {SAID}", "", reason="OOMKilled"),
            "out of memory: trainer was killed at its limit of 4Gi, of which it used 4090 MiB at its peak; ask for",
        ),
        (failed(0, 1, f"step 3\nerror: worker 1: {SAID}", ""), f"worker 1: {SAID}"),
        (failed(0, 2, "error: --epochs: too many", ""), "--epochs: too many"),
        (failed(0, 137, "", ""), "trainer was killed by signal 9"),
        # What an earlier attempt in the same container printed is not the cause.
        (failed(0, 137, 'Traceback:\n File "a.py", line 1\nValueError: x', ""), "trainer was killed by signal 9"),
        (failed(0, 143, "saved", ""), "told to stop"),
        (failed(0, 3, "odd", ""), "trainer ended with exit code 3: odd"),
        (
            pod(phase="Failed", conditions=[{"type": "DisruptionTarget", "status": "True",
                                             "reason": "DeletionByTaintManager"}]),
            "node lost",
        ),
        (pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."),
         "evicted by its node: The node was low on resource: memory."),
    ],
)  # fmt: skip
def test_how_a_pod_ended(ended: dict[str, Any], reason: str) -> None:
    found = reasons.ending(ended)
    assert found is not None
    assert reason in found.reason


def test_pods_that_are_gone_count_as_attempts_if_they_were_this_jobs() -> None:
    events = [
        event("pets-0-older", "Killing", "Stopping container trainer", "2026-11-23T09:00:00Z"),  # of a deleted job
        event("pets-0-first", "Killing", "Stopping container trainer"),
        event("pets-0-abcde", "Pulling", "Pulling image"),
        event("pets-extra-0-zzzzz", "Killing", "Stopping container trainer"),  # of the job pets-extra
    ]
    assert job_status(job(), [pod(**UP)], events).workers[0].attempt == 2


def test_a_worker_that_is_done_stays_so_when_its_pod_is_deleted() -> None:
    rows = job_status(job(5, completedIndexes="0,2-3"), []).workers
    assert [row.phase for row in rows] == ["Succeeded", "Pending", "Succeeded", "Succeeded", "Pending"]


def test_a_streamer_that_does_not_last_is_told_while_training_goes_on() -> None:
    ended = {"terminated": {"exitCode": 2, "message": "error: gs://b: 403 for this account"}}
    streamer = {"name": "streamer", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}
    found = job_status(job(metadata=TRAINING), [pod(**UP, initContainerStatuses=[streamer])])
    assert (found.phase, found.reason) == ("Running", "nothing is streamed: gs://b: 403 for this account")


COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}


def ended_streamer(code: int, *lines: str, **extra: Any) -> dict[str, Any]:
    """The statuses of a pod that succeeded, with how its streamer ended."""
    terminated = {"exitCode": code, "message": "\n".join(lines), **extra}
    return {"phase": "Succeeded", "initContainerStatuses": [{"name": "streamer", "state": {"terminated": terminated}}]}


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (
            ended_streamer(
                1,
                "2026-11-23 10:09:59,912 launcher.stream: gs://b: 503; trying again",
                "2026-11-23 10:10:00,001 launcher.stream: not copied: the checkpoint of step 8",
                "2026-11-23 10:10:00,001 launcher.stream: not copied: the export",
                "2026-11-23 10:10:00,002 launcher.stream: stopped before all was copied: 565 s and 9.00 MB behind",
            ),
            "the checkpoint of step 8 and 1 more",
        ),
        (ended_streamer(1, "error: gs://b/run: another streamer wrote"), "gs://b/run: another streamer wrote"),
        (ended_streamer(137, "last"), "the streamer was killed at the end of its grace; its last words: last"),
        (ended_streamer(137, reason="OOMKilled"), "out of memory: the streamer was killed at its limit"),
        (ended_streamer(3), "exit code 3"),
    ],
)
def test_what_the_end_of_a_run_lost_on_its_way_makes_wait_fail(ended: dict[str, Any], told: str) -> None:
    found = job_status(job(**COMPLETE), [pod(**ended)])
    assert (found.phase, found.exit_code) == ("Succeeded", 1)
    assert found.not_streamed == f"not all of the run was streamed: {told}"
    assert found.reason == f"all workers are done; {found.not_streamed}"
    assert found.workers[0].reason == found.not_streamed


@pytest.mark.parametrize(("destination", "code"), [([], 0), (["--grace", "25"], 0), (["gs://b/pets"], 1)])
def test_a_run_without_a_destination_misses_nothing_of_its_streamer(destination: list[str], code: int) -> None:
    args = ["launcher", "sidecar", "/run/maskfleet/pets", *destination]
    spec = {"containers": [{"name": "trainer"}], "initContainers": [{"name": "streamer", "args": args}]}
    found = job_status(job(**COMPLETE), [{**pod(**ended_streamer(137)), "spec": spec}])
    assert (found.phase, found.exit_code, bool(found.not_streamed)) == ("Succeeded", code, bool(code))


def test_a_run_that_was_streamed_to_its_end_is_a_success() -> None:
    found = job_status(job(2, **COMPLETE, completedIndexes="0-1"), [pod(0, **ended_streamer(0))])
    assert (found.exit_code, found.reason, found.not_streamed) == (0, "all workers are done", "")


def test_a_worker_is_named_among_many_whose_end_was_not_streamed() -> None:
    pods = [pod(0, **ended_streamer(0)), pod(1, **ended_streamer(1, "error: no route"))]
    found = job_status(job(2, **COMPLETE), pods)
    assert found.not_streamed == "worker 1: not all of the run was streamed: no route"


@pytest.mark.parametrize(
    ("destination", "still"), [(["gs://b/pets"], "the streamer sends the rest"), ([], "its pod still ends")]
)
def test_what_a_replacement_waits_for_is_told(destination: list[str], still: str) -> None:
    args = ["launcher", "sidecar", "/run/maskfleet/pets", *destination]
    spec = {"containers": [{"name": "trainer"}], "initContainers": [{"name": "streamer", "args": args}]}
    streamer = {"name": "streamer", "state": {"running": {"startedAt": CREATED}}}

    def after(code: int) -> JobStatus:
        ended = {"name": "trainer", "image": "i:1", "state": {"terminated": {"exitCode": code, "message": "saved"}}}
        made = pod(containerStatuses=[ended], initContainerStatuses=[streamer])
        return job_status(job(metadata=TRAINING), [{**made, "spec": {**made["spec"], **spec}}])

    stopped, trained = after(143), after(0)
    assert stopped.phase == "Restarting"
    assert stopped.reason == f"told to stop (its pod was deleted, or its node shut down); {still}"
    assert (trained.workers[0].phase, trained.workers[0].reason) == ("Finishing", f"has trained; {still}")


def test_a_refusal_does_not_explain_a_worker_that_had_a_pod_since() -> None:
    refused = event("pets", "FailedCreate", QUOTA, "2026-11-23T10:00:01Z")
    killed = event("pets-0-first", "Killing", "Stopping container trainer", "2026-11-23T10:45:00Z")
    later = event("pets", "FailedCreate", QUOTA, "2026-11-23T10:45:09.5Z")

    def reasons_of(*events: dict[str, Any]) -> list[str]:
        return [row.reason for row in job_status(job(2), [], events).workers]

    quota, waits = "quota small refuses its pods: requested: cpu=2, used: cpu=0", "waits for its pod to be created"
    assert reasons_of(refused) == [quota, quota]
    assert reasons_of(refused, killed) == [waits, quota]
    assert reasons_of(refused, killed, later) == [quota, quota]
    assert reasons_of(event("pets", "FailedCreate", QUOTA, "2026-11-23T09:00:00Z")) == [waits, waits]  # a deleted job's


def test_the_streamer_s_lag_and_problems_are_a_line() -> None:
    noted = {"streamer": {"line": StreamMetrics(lag_seconds=3, lag_bytes=2_500_000).line(), "problems": ["a: shrank"]}}
    metadata = {"annotations": {"maskfleet/progress.json": json.dumps(noted)}}
    lines = describe_status(job_status(job(metadata=metadata), [pod(**UP)]))
    assert lines[1] == "streamer: 3 s and 2.50 MB behind, 0.00 MB sent, 0 retries, 0 errors; a: shrank"


def test_many_workers_take_few_rows() -> None:
    found = job_status(job(1000), [pod(worker, **UP) for worker in range(1000) if worker not in (3, 500)])
    assert [line.split()[:3] for line in worker_table(found.workers)[1:]] == [
        ["998", "Running", "0-2,4-499,501-999"],
        ["2", "Pending", "3,500"],
    ]
    assert len(worker_table(found.workers, wide=True)) == 1001
    assert ranges([0, 2, 4, 6, 8], 4) == "0,2,4,6,…"
    assert describe_status(found)[0].startswith("pets: Pending")


def test_a_job_is_not_younger_than_new_by_a_clock_that_is_behind() -> None:
    found = job_status(job(), [])
    assert age(found, datetime(2026, 11, 23, 9, 59, 55, tzinfo=UTC)) == "0s"
    assert age(found, datetime(2026, 11, 23, 10, 0, 5, tzinfo=UTC)) == "5s"


@pytest.mark.parametrize(
    "told",
    ["[" * 100_000, '{"message": {"a": 1}, "state": "restarting"}', '{"streamer": {"problems": 1}}',
     '{"streamer": "x"}', '{"time_spent": 1, "slow": 1}', '{"slow": ["two\\nlines", 3]}', '{"slow": ["two\\nlines"]}',
     '{"time_spent": {"since": -1, "until": 1e99}}',
     '{"message": "two\\nlines \\u001b[2J", "state": "starting"}', '{"epoch": {}}'],
)  # fmt: skip
def test_what_somebody_has_written_into_an_annotation_does_not_end_status(told: str) -> None:
    metadata = {"annotations": {"maskfleet/progress.json": told, "maskfleet/progress": "epoch\n9"}}
    found = job_status(job(metadata=metadata), [pod(**UP)])
    lines = [*describe_status(found), *job_table([found], wide=True)]
    assert all("\n" not in line and "\x1b" not in line for line in lines)


def test_what_the_run_has_told_of_itself_is_shown() -> None:
    began = datetime(2026, 11, 23, 10, 0, 20, tzinfo=UTC).timestamp()
    spent = {
        "since": began,
        "until": began + 100.0,
        "then": "computing",
        "seconds": {"computing": 80.0, "all_reduce": 20.0},
    }
    told = {"state": "running", "epoch": 2, "epochs": 3, "step": 1, "steps": 9, "time_spent": spent, "slow": ["a", "b"]}
    metadata = {"annotations": {"maskfleet/progress.json": json.dumps(told)}}
    conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": CREATED}]
    preparing = [{"name": "prepare", "state": {"terminated": {"startedAt": CREATED, "exitCode": 0}}}]
    chief = pod(**UP, conditions=conditions, initContainerStatuses=preparing)
    found = job_status(job(metadata=metadata, startTime=CREATED), [chief], now=began + 180)
    assert found.time_spent is not None
    assert found.time_spent["seconds"] == {"computing": 160, "all_reduce": 20, "training_prep": 20}
    assert found.time_spent["goodput"] == 0.9
    assert "goodput: 0.900 of 3m20s: computing 2m40s, all-reduce 20s, preparing data 20s" in describe_status(found)
    assert "slow: a; b" in describe_status(found)
    assert "2/3" in job_table([found])[1]


def test_a_worker_that_has_prepared_does_not_restart() -> None:
    told = {"time_spent": {"since": 1.0, "until": 2.0, "then": "training_prep", "seconds": {}}}
    metadata = {"annotations": {"maskfleet/progress.json": json.dumps(told)}}
    assert job_status(job(2, metadata=metadata), [pod(**UP)]).phase == "Pending"
    assert job_status(job(metadata=metadata), [pod(**UP)]).phase == "Starting"


SPARE: list[dict[str, Any]] = [
    {"involvedObject": {"name": "pets-0-abcde"}},
    {"involvedObject": {}, "reason": "FailedCreate"},
    {"involvedObject": {"name": "pets"}, "reason": "FailedCreate", "lastTimestamp": "2026-11-23T10:05:00Z"},
    {"involvedObject": {"kind": "Job", "name": "pets"}},
    {"involvedObject": {"name": "pets-0-abcde"}, "reason": "FailedMount", "eventTime": None, "series": None},
    {},
]


@pytest.mark.parametrize("event", SPARE)
def test_what_another_program_has_left_out_of_an_event_does_not_end_status(event: dict[str, Any]) -> None:
    waiting = pod(phase="Pending", **trainer(waiting={}))
    for pods in ([], [waiting], [pod(**UP)]):
        assert job_status(job(), pods, [event]).workers
    history("pets", "0-1", [event])


def test_room_is_counted_on_a_node_that_says_little() -> None:
    assert places_on({"metadata": {"name": "n"}, "spec": {}}, [pod()], {"cpu": 1.0, "pods": 1.0}) == 0
    assert node_refusal({"metadata": {"name": "n"}, "spec": {}}, {}) == "nodes are not ready"
