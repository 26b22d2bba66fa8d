"""A job with a range of workers: it goes on without those that find no room, and with them when they do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import JobStatus
from launcher.cluster.kubernetes_api import Cluster
from launcher.job.training_job import TrainingJob
from launcher.operations import following as operations
from launcher.operations import submission
from launcher.operations.description import describe
from launcher.operations.scaling import scale
from maskfleet.run_directory import RunDirectory
from tests.cluster.conftest import Kit, Scripted, until
from tests.cluster.test_training import SIZE
from tests.helpers.processes import INVARIANT, SETTINGS, LocalRun, losses

SUPERVISED = """
from maskfleet.config import TrainConfig
from maskfleet.errors import MaskfleetError
from maskfleet.peers import Peers
from maskfleet.run_directory import RunDirectory
from maskfleet.run_lock import open_worker_log
from trainer.supervision.supervisor import supervise
command = [sys.executable, "-c", os.environ["PROGRAM"], str(run)]
run, peers = RunDirectory(run), Peers.from_environment()
with open_worker_log(run, peers.worker) as log:
    try:
        sys.exit(supervise(command, TrainConfig(), peers, run, log))
    except MaskfleetError as error:  # as the trainer's command line does
        print(f"error: {error}")
        sys.exit(error.exit_code)
"""
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
from maskfleet.records import Progress
from maskfleet.run_directory import RunDirectory
run, step, stopped = RunDirectory(Path(sys.argv[1])), 0, []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
while not stopped and not os.path.exists("/shared/end"):
    time.sleep(.5)
    step += 1
    steps = {"count": 1, "seconds": .5, "input": 0, "compute": .4, "all_reduce": .1}
    os.write(int(os.environ["MASKFLEET_HEARTBEAT_FD"]), json.dumps(steps).encode() + b"\\n")
    Progress("running", 0, 9, step, 10**6, loss=1.0).write(run)
sys.exit(143 if stopped else 0)
"""
"""Stands in for a training process: it saves nothing, and all stop when somebody stops all."""
ONLY_POD = "--pod-selector=batch.kubernetes.io/job-completion-index="


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder of the node, which is this machine; training ends when there is a file ``end``."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def range_of_workers(scripted: Scripted, shared: Path) -> Any:
    def job(workers: str, **settings: Any) -> TrainingJob:
        given = {"workers": workers, "shrink_after": "5s", "mount": (f"host:{shared}=/shared",), **settings}
        return scripted(SUPERVISED, **given).model_copy(update={"env": (f"SCRIPT={SUPERVISED}", f"PROGRAM={PROGRAM}")})

    return job


@pytest.fixture
def uncordoned(kit: Kit) -> Iterator[None]:
    try:
        yield
    finally:
        kit("fault", "uncordon")


def trained_by(*workers: int) -> Any:
    def condition(now: JobStatus) -> bool:
        return now.phase == "Running" and (now.workers_range or {}).get("present") == list(workers)

    return condition


def trained_by_some(now: JobStatus, count: int) -> bool:
    return now.phase == "Running" and len((now.workers_range or {}).get("present", ())) == count


def quota(cluster: Cluster, pods: int) -> None:
    hard = {"spec": {"hard": {"pods": str(pods)}}}
    cluster.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, **hard})


def told(cluster: Cluster) -> list[str]:
    """What the job's events say of its workers, in order."""
    events = describe("job", cluster)["events"]
    return [each["message"] for each in events if each["reason"] in ("TrainingStarted", "WorkersChanged")]


def test_it_shrinks_when_a_node_is_drained_and_grows_when_it_is_back(
    open_cluster: Cluster, range_of_workers: Any, shared: Path, kit: Kit, uncordoned: None
) -> None:
    submission.submit(range_of_workers("1..3"), open_cluster)
    until("job", open_cluster, trained_by(0, 1, 2))
    kit("fault", "drain-node", f"{ONLY_POD}1")
    fewer = until("job", open_cluster, trained_by(0, 2))
    assert fewer.reason.startswith("2 of 1..3 workers; worker 1: no node can take it (1 node was unschedulable); ")
    kit("fault", "uncordon")
    until("job", open_cluster, trained_by(0, 1, 2))
    (shared / "end").touch()
    assert operations.wait("job", open_cluster, timeout=60).exit_code == 0
    assert told(open_cluster) == [
        "training starts on 3 of 1 to 3 workers",
        "training goes on with 2 of 1 to 3 workers: worker 1 was told to stop; worker 1 has not come back within 5s",
        "training goes on with 3 of 1 to 3 workers: worker 1 has come",
    ]


def test_it_is_done_though_a_quota_never_let_a_worker_come(
    open_cluster: Cluster, range_of_workers: Any, shared: Path
) -> None:
    quota(open_cluster, 2)
    submission.submit(range_of_workers("2..3"), open_cluster)
    fewer = until("job", open_cluster, lambda now: trained_by_some(now, 2), seconds=180)
    (missing,) = {0, 1, 2} - set(fewer.workers_range["present"])  # type: ignore[index]
    reason = f"2 of 2..3 workers; worker {missing}: quota few refuses its pods: requested: pods=1"
    assert fewer.reason.startswith(reason)
    (shared / "end").touch()
    end = operations.wait("job", open_cluster, timeout=60)
    assert (end.phase, end.exit_code) == ("Succeeded", 0)
    assert told(open_cluster) == [f"training starts on 2 of 2 to 3 workers: worker {missing} has not come within 5s"]


@pytest.mark.long
def test_another_worker_makes_room_for_the_chief(open_cluster: Cluster, range_of_workers: Any, shared: Path) -> None:
    submission.submit(range_of_workers("1..2"), open_cluster)
    up = until("job", open_cluster, trained_by(0, 1))
    quota(open_cluster, 1)
    open_cluster.delete("Pod", str(up.workers[0].pod))
    until("job", open_cluster, trained_by(0), seconds=300)
    (shared / "end").touch()
    end = operations.wait("job", open_cluster, timeout=60)
    assert (end.phase, end.exit_code) == ("Succeeded", 0)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_a_range_ends_with_the_losses_of_a_run_that_nothing_happened_to(
    open_cluster: Cluster, trainer_image: str, output: Path, tmp_path: Path, kit: Kit, uncordoned: None
) -> None:
    """A node drained of a worker, then of all, and back; a quota; another range."""
    training = (*SETTINGS, *INVARIANT, "--epochs=30")
    flags = [
        "--name", "job", "--image", trainer_image, *SIZE, "--workers", "1..3", "--shrink-after", "10s", "--cpu", "300m",
        "--memory", "1500Mi", "--output", f"host:{output}",
    ]  # fmt: skip
    submission.submit(TrainingJob.from_sources(None, TrainingJob.parse_flags(flags), training), open_cluster)

    def steps_by(*workers: int) -> None:
        """Until these have made a few steps together."""
        began = until("job", open_cluster, trained_by(*workers), seconds=600).details["step"]
        until("job", open_cluster, lambda now: now.details.get("step", 0) > began + 5, seconds=600)

    steps_by(0, 1, 2)
    kit("fault", "drain-node", f"{ONLY_POD}1", "--grace-period=40")
    steps_by(0, 2)
    kit("fault", "drain-node", "--grace-period=40")
    until("job", open_cluster, lambda now: now.phase in ("Restarting", "Pending"), seconds=120)
    time.sleep(10)
    kit("fault", "uncordon")
    steps_by(0, 1, 2)
    quota(open_cluster, 2)
    open_cluster.delete("Pod", str(operations.status("job", open_cluster).workers[2].pod))
    steps_by(0, 1)
    open_cluster.delete("ResourceQuota", "few")
    steps_by(0, 1, 2)
    scale("job", "1..2", open_cluster)
    steps_by(0, 1)
    end = operations.wait("job", open_cluster, timeout=1500)
    assert (end.phase, end.exit_code) == ("Succeeded", 0), end
    print("\n".join(told(open_cluster)), end.time_spent)

    local = tmp_path / "local"
    with LocalRun(local, f"--run-dir={local}", "--", *training) as run:
        assert run.process.wait(1500) == 0, run.output.read_text()
    expected, found = losses(RunDirectory(local)), losses(RunDirectory(output / "job"))
    assert sorted(found) == sorted(expected)
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, abs=1e-4), f"step {step}"
