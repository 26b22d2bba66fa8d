"""A job of a thousand workers with a GPU each, on simulated nodes: what does not grow, and what stays quick."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from launcher.cli import main
from launcher.cluster.kubernetes_api import Cluster
from launcher.diagnosis.job_status import JobStatus
from launcher.diagnosis.tables import describe_status
from launcher.job.training_job import TrainingJob
from launcher.operations import ending, submission
from launcher.operations import following as operations
from maskfleet.records import Event
from maskfleet.run_directory import RunDirectory
from tests.cluster.conftest import Kit, until
from tests.cluster.counting import Counting
from tests.cluster.simulated_workers import SimulatedWorkers, reported
from tests.cluster.test_range_of_workers import told, trained_by_some
from trainer.supervision.rendezvous import GROW_SECONDS

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]

NODES, GPUS = 125, 8
WORKERS = NODES * GPUS
PATIENCE = 900
"""Seconds for a thousand pods to come or go, where much else runs on this machine."""


@pytest.fixture(scope="module")
def fleet(kit: Kit) -> Iterator[None]:
    kit("fleet", str(NODES), "--gpus", str(GPUS))
    try:
        yield
    finally:
        kit("fleet", "0")


def job(name: str, workers: object, *flags: str) -> TrainingJob:
    given = ["--name", name, "--workers", str(workers), "--gpus-per-worker", "1", "--cpu", "1", "--memory", "1Gi",
             "--toleration", "simulated=true:NoSchedule", "--node-selector", "simulated=true", *flags]  # fmt: skip
    return TrainingJob.from_sources(None, TrainingJob.parse_flags(given), ["--global-batch=6000"])


def all_run(workers: int) -> Callable[[JobStatus], bool]:
    return lambda now: [worker.phase for worker in now.workers] == ["Running"] * workers


@contextlib.contextmanager
def removed(nodes: Sequence[str], cluster: Cluster) -> Iterator[None]:
    """Without these nodes; they come back as they were."""
    kept = [node for node in cluster.list("Node") if node["metadata"]["name"] in nodes]
    for node in nodes:
        cluster.delete("Node", node)
    try:
        yield
    finally:
        for node in kept:
            metadata = {key: node["metadata"][key] for key in ("name", "labels", "annotations")}
            spec = {"taints": [taint for taint in node["spec"]["taints"] if taint["key"] == "simulated"]}
            cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec,
                            "status": {key: node["status"][key] for key in ("allocatable", "capacity")}})  # fmt: skip


def test_a_thousand_workers(fleet: None, cluster: Cluster) -> None:
    counts = {}
    for name, workers in (("small", 4), ("large", WORKERS)):
        counting = Counting.connect(cluster.namespace)
        submission.submit(job(name, workers), counting)
        counts[workers] = counting.sent
    # Eight objects, the release, what is known of NetworkPolicies, and of GPUs.
    assert counts == {4: 11, WORKERS: 11}
    ending.delete("small", cluster)

    seen: list[JobStatus] = []
    ages = []
    started = time.monotonic()
    for now in operations.follow("large", cluster):  # what status --watch shows
        seen.append(now)
        if all(worker.phase == "Running" for worker in now.workers):
            break
        ages.append(time.monotonic())
        assert time.monotonic() - started < 400, now.reason
    assert len(now.workers) == WORKERS
    gaps = [later - earlier for earlier, later in pairwise(ages)]
    assert max(gaps, default=0) < 10
    assert len(describe_status(now)) < 20  # those in the same state share a row

    took, own = [], []
    for _ in range(3):
        before, before_own = time.monotonic(), time.process_time()
        operations.status("large", cluster)
        took.append(time.monotonic() - before)
        own.append(time.process_time() - before_own)
    print(f"status of {WORKERS} workers: {min(took):.2f} s, {min(own):.2f} s of them the launcher's own")
    # How long the API server takes depends on what else runs on this machine.
    assert min(own) < 1

    node = now.workers[0].node
    assert node
    with removed([node], cluster):
        lost = until(
            "large", cluster, lambda now: any(worker.node == node or worker.attempt > 1 for worker in now.workers)
        )
        assert any(worker.phase in ("Lost", "Failed", "Stopping", "Pending") for worker in lost.workers)
        assert "its node" in lost.reason or "node lost" in lost.reason or "no node can take it" in lost.reason


@dataclass(frozen=True)
class Typed:
    """What a command has sent and printed; of requests that are repeated until something has happened, one."""

    requests: list[str]
    lines: list[str]
    sent: int


@pytest.fixture
def launcher(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Typed]:
    """A command of the launcher, as it is typed."""

    def typed(*arguments: str, exit_code: int = 0) -> Typed:
        counting = Counting.connect(cluster.namespace).patient(60)
        with monkeypatch.context() as patch:
            patch.setattr(Cluster, "connect", lambda *_, **__: counting)
            done = CliRunner().invoke(main, arguments)
        assert done.exit_code == exit_code, done.output
        return Typed([each for each, _ in groupby(counting.requests)], done.output.splitlines(), counting.sent)

    return typed


def test_a_number_scaled_to_a_thousand_and_back_takes_the_same_requests(
    fleet: None, cluster: Cluster, launcher: Callable[..., Typed]
) -> None:
    submission.submit(job("job", 8, "--output", "gs://bucket/runs"), cluster)
    until("job", cluster, all_run(8), seconds=PATIENCE)
    scaled, shown = [], []
    for workers in (WORKERS, 8):
        scaled.append(launcher("scale", "job", "--workers", str(workers)))
        until("job", cluster, all_run(workers), seconds=PATIENCE)
        assert len(cluster.list("Pod")) == workers
        commands = [("status", "job"), ("describe", "job"), ("list",)]
        shown.append({command[0]: launcher(*command) for command in commands})
        shown[-1]["wait"] = launcher("wait", "job", "--timeout", "15", exit_code=124)
    print(
        "\n".join(scaled[0].requests),
        *[f"{name}: {each.sent}, {len(each.lines)} lines" for name, each in shown[0].items()],
        sep="\n",
    )
    assert scaled[0].requests == scaled[1].requests
    assert len(scaled[0].requests) < 12
    for command in ("status", "describe", "list"):
        assert shown[0][command].requests == shown[1][command].requests
        assert shown[0][command].sent < 8
    assert set(shown[0]["wait"].requests) == set(shown[1]["wait"].requests)
    assert shown[0]["wait"].sent < 24


@pytest.mark.parametrize("most", [16, WORKERS])
def test_a_range_shrinks_and_grows_by_one_event_a_change(
    most: int, fleet: None, cluster: Cluster, tmp_path: Path
) -> None:
    """The nodes of all but eight workers go, and come back; supervisors and the chief's sidecar are at work here."""
    room = [f"sim-{node}" for node in range(most // GPUS)]
    for node in room:
        cluster.patch("Node", node, {"metadata": {"labels": {"room": str(most)}}})
    run, counting = RunDirectory(tmp_path), Counting.connect(cluster.namespace)
    submission.submit(job("job", f"8..{most}", "--node-selector", f"room={most}", "--shrink-after", "60s"), cluster)
    chiefs = until("job", cluster, all_run(most), seconds=PATIENCE).workers[0].node
    without = f"8 of 8..{most} workers; {most - 8} of {most} workers: no node can take it ("
    with SimulatedWorkers(cluster, "job", 8, most, 60, run).at_work(), reported(run, counting, "job"):
        until("job", cluster, lambda now: trained_by_some(now, most), seconds=PATIENCE)
        began = time.monotonic()
        with removed([node for node in room if node != chiefs], cluster):
            fewer = until(
                "job",
                cluster,
                lambda now: trained_by_some(now, 8) and now.reason.startswith(without),
                seconds=PATIENCE,
            )
        again = until("job", cluster, lambda now: trained_by_some(now, most), seconds=PATIENCE)
        seconds = time.monotonic() - began
        happened = [event.kind for event in Event.read_all(run)]
    print(fewer.reason, *told(cluster), sep="\n")
    assert all(len(describe_status(now)) < 30 for now in (fewer, again))
    # Those that come are waited for until ten seconds bring nobody, so how many stops they take is up to the cluster.
    assert happened[:3] == ["start", "restart", "scale"]
    assert 1 <= happened[3:].count("scale") == len(happened) - 3 <= 1 + seconds / GROW_SECONDS
    assert counting.requests.count("POST events") == len(happened)
    others = [each for each in counting.requests if each != "POST events"]
    assert set(others) == {"GET jobs/job", "PATCH jobs/job"}
    assert others.count("GET jobs/job") == 1
    print(f"{len(others)} other requests in {seconds:.0f} s")
    assert len(others) < 10 + seconds / 5
