"""What people see of a job: whole reasons, few lines, times with date and zone."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from launcher.cli import main
from launcher.cluster.kubernetes_api import Cluster
from launcher.diagnosis.reasons import steady
from launcher.job.training_job import TrainingJob
from launcher.operations import following
from launcher.operations.description import describe, describe_lines
from launcher.operations.preflight import preflight
from launcher.operations.submission import submit
from launcher.operations.tensorboard import in_cluster
from maskfleet.errors import BadSettings
from tests.fakes.cluster import CREATED, FakeCluster, Object, worker_pod

FAILED = {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": CREATED}]}


def submitted(**settings: Any) -> Any:
    cluster = FakeCluster({"kind": "Node", "metadata": {"name": "node-1"}})
    submit(TrainingJob(name="pets", **settings), cluster)
    return cluster


def waiting_pod(reason: str, message: str) -> Object:
    return worker_pod(0, phase="Pending", waiting={"reason": reason, "message": message})


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_cuts_neither_the_reason_nor_the_last_output(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = submitted()
    words = " ".join(f"word-{number}" for number in range(40))
    trace = "\n".join(f"line {number} \x1b[2J" for number in range(19))
    ended = {"exitCode": 2, "message": f"{trace}\nerror: {words}", "finishedAt": CREATED}
    cluster.objects["Pod", "p"] = worker_pod(0, phase="Failed", terminated=ended)
    cluster.objects["Job", "pets"]["status"] = FAILED
    monkeypatch.setattr(Cluster, "connect", lambda *_, **__: cluster)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "10")
    shown = CliRunner().invoke(main, ["status", "--watch", "pets"]).stdout
    whole = re.sub(r"\s+", "", shown)
    reason = following.status("pets", cluster).reason
    assert re.sub(r"\s+", "", reason) in whole
    assert all(f"line{number}\\x1b[2J" in whole for number in range(19))
    assert "\x1b[2J" not in shown


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("container trainer: 5f3a9c0d1e2b4c6d is dead", "container trainer: 0a1b2c3d4e5f6071 is dead", True),
        ("sandbox " + "ab12" * 16, "sandbox " + "cd34" * 16, True),
        ("pod 6f1d7f0e-1c3b-4a5d-9e8f-001122334455", "pod 6f1d7f0e-1c3b-4a5d-9e8f-665544332211", True),
        ("back-off 10s restarting", "back-off 1m20s restarting", True),
        ('pods "pets-0-x7kqz" is forbidden', 'pods "pets-3-bb2cd" is forbidden', True),
        (
            "dial tcp 10.0.0.1:43210->10.0.0.2:443: i/o timeout",
            "dial tcp 10.0.0.1:5111->10.0.0.2:443: i/o timeout",
            True,
        ),
        ("at 2026-11-23T10:00:00.123Z", "at 2026-11-23T10:00:05Z", True),
        ("took 1.25ms", "took 17µs", True),
        ("no node can take it (3 nodes)", "no node can take it (4 nodes)", False),
        ("worker 0 was lost", "worker 1 was lost", False),
        ("Secret gcs is missing", "Secret aws is missing", False),
        ("requested: cpu=2", "requested: cpu=3", False),
        ("exit code 1", "exit code 7", False),
        ("image maskfleet/trainer:1 can't be pulled", "image maskfleet/trainer:2 can't be pulled", False),
    ],
)
def test_what_passes_is_no_news_and_what_matters_is(one: str, other: str, same: bool) -> None:
    assert (steady(one) == steady(other)) is same


def test_wait_says_a_reason_once_though_each_try_has_a_container_of_another_id() -> None:
    cluster = submitted()
    tries = 0

    def again(request: str) -> None:
        nonlocal tries
        if request == "get Job":  # once for each look
            tries += 1
            cluster.objects["Pod", "p"] = waiting_pod("RunContainerError", f"id {tries:064x} failed, back-off {tries}s")
            if tries > 5:
                cluster.objects["Job", "pets"]["status"] = FAILED

    cluster.before = again
    said: list[str] = []
    patched = pytest.MonkeyPatch()
    patched.setattr("launcher.operations.following.follow", lambda name, cluster: iter(looks(cluster)))
    try:
        following.wait("pets", cluster, on_change=lambda now: said.append(now.phase))
    finally:
        patched.undo()
    assert said == ["Starting", "Failed"]


def looks(cluster: Any) -> Any:
    while True:
        yield following.status("pets", cluster)


def test_workers_that_wait_for_the_same_share_a_row_and_a_sentence() -> None:
    cluster = submitted(workers=50)
    for worker in range(50):
        pod = worker_pod(
            worker, phase="Pending", waiting={"reason": "RunContainerError", "message": f"id {worker:064x}"}
        )
        cluster.objects["Pod", str(worker)] = pod
    now = following.status("pets", cluster)
    assert now.reason.startswith("all 50 workers: container trainer: RunContainerError: id ")


def test_describe_has_times_with_date_and_zone() -> None:
    cluster = submitted()
    cluster.objects["Event", "e"] = {
        "kind": "Event",
        "metadata": {"name": "e", "creationTimestamp": CREATED},
        "involvedObject": {"kind": "Job", "name": "pets"},
        "reason": "Suspended",
        "message": "Job suspended",
        "firstTimestamp": "2026-11-23T23:00:00-02:00",
        "lastTimestamp": "2026-11-24T02:00:00Z",
        "count": 3,
    }
    line = describe_lines(describe("pets", cluster))[-1]
    assert line == "2026-11-24 01:00:00Z  Job/pets  Suspended  Job suspended (3 times until 2026-11-24 02:00:00Z)"


def test_describe_shows_a_job_whose_settings_another_version_has_written() -> None:
    cluster = submitted()
    cluster.objects["Job", "pets"]["metadata"]["annotations"]["maskfleet/job"] = '{"later": true}'
    found = describe("pets", cluster)
    assert (found["job"], found["status"]["name"]) == ({}, "pets")


@pytest.mark.parametrize(("workers", "room"), [(1, "room for 1 of 1"), (20, "room for 13 of 20")])
def test_there_is_no_room_for_more_workers_than_are_asked_for(workers: int, room: str) -> None:
    node = {
        "kind": "Node", "metadata": {"name": "n"}, "spec": {},
        "status": {
            "allocatable": {"cpu": "28", "memory": "1Ti", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }  # fmt: skip
    cluster: Any = FakeCluster(node)
    whole = cluster.create

    def create(manifest: Object, **how: Any) -> Object:
        if manifest["kind"] == "SelfSubjectAccessReview":
            return {"status": {"allowed": True}}
        made: Object = whole(manifest, **how)
        return made

    cluster.create = create
    (found,) = [
        check for check in preflight(TrainingJob(name="pets", workers=workers), cluster) if "room" in check.what
    ]
    assert found.detail.startswith(room)


@pytest.mark.parametrize("line", ["env: TOKEN=hidden", "env: {TOKEN: hidden}", "mount: hidden"])
def test_a_list_that_is_none_is_asked_for_without_showing_what_stands_there(line: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(line)
    with pytest.raises(BadSettings, match="expected a list, in YAML a line '- VALUE' for each value, found ") as error:
        TrainingJob.from_sources(file, TrainingJob.parse_flags([]))
    assert "hidden" not in str(error.value)


class Answering(FakeCluster):
    """TensorBoard's pods run at once and answer."""

    def create(self, manifest: Object, **how: Any) -> Object:
        made = super().create(manifest, **how)
        if manifest["kind"] == "Pod":
            self.objects["Pod", manifest["metadata"]["name"]]["status"] = {"phase": "Running"}
        return made

    def connect_to_pod(self, pod: str, port: int) -> Any:
        assert ("Pod", pod) in self.objects
        ours, self.theirs = socket.socketpair()
        self.theirs.sendall(b"HTTP/1.0 200 OK\r\n")
        return ours


def test_the_end_of_one_tensorboard_leaves_another_s_alone() -> None:
    cluster: Any = Answering()
    job = TrainingJob(name="pets", output="pvc:runs")
    submit(job, cluster)
    made = cluster.get("Job", "pets")
    with in_cluster(job, made, cluster) as one:
        with in_cluster(job, made, cluster) as other:
            assert one != other
        assert [name for kind, name in cluster.objects if kind == "Pod"] == [one]
    assert not [name for kind, name in cluster.objects if kind == "Pod"]


def test_a_port_that_is_taken_is_known_before_a_pod_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = submitted(output="pvc:runs")
    monkeypatch.setattr(Cluster, "connect", lambda *_, **__: cluster)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = CliRunner().invoke(main, ["tensorboard", "pets", "--port", str(taken.getsockname()[1])])
    assert done.exit_code == 2
    assert "choose another, or 0 for any that is free" in done.stderr
    assert "create Pod" not in cluster.requests
