"""The project's own image trains on the cluster, and ends with the bits of a local run whatever happens to its pods."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from launcher.cluster.kubernetes_api import Cluster
from launcher.job.training_job import TrainingJob
from launcher.operations import ending, submission
from launcher.operations import following as operations
from launcher.operations.description import describe, describe_lines
from launcher.operations.logs import logs
from launcher.operations.pod_log import LogRequest
from launcher.operations.scaling import scale
from launcher.operations.tensorboard import in_cluster
from maskfleet.run_directory import RunDirectory
from tests.cluster.conftest import Kit, until
from tests.helpers.processes import INVARIANT, SETTINGS, LocalRun, inspect, losses
from tests.helpers.shared import shared
from trainer.training.hyperparameters import SETTINGS_AND_SCORES

SIZE = ["--cpu", "900m", "--memory", "2500Mi", "--grace", "40"]
DISTURBED_SECONDS = 90
"""How long the disturbed run trains, about, so that it is still at it when the last fault comes."""


def job(image: str, *flags: str, training: tuple[str, ...] = SETTINGS) -> TrainingJob:
    given = ["--name", "job", "--image", image, *SIZE, *flags]
    return TrainingJob.from_sources(None, TrainingJob.parse_flags(given), training)


def test_two_workers_end_with_the_weights_of_a_local_run(
    open_cluster: Cluster, trainer_image: str, output: Path, tmp_path: Path, kit: Kit
) -> None:
    pets, weights = shared("data", "oxford_iiit_pet"), shared("data", "weights")
    (file,) = weights.glob("*.h5")
    settings = ("--image-size=64", "--epochs=2", "--batch-per-replica=8", "--threads=1", "--unfreeze-from=none")
    asked = job(
        trainer_image, "--workers", "2", "--data", f"host:{pets}", "--mount", f"host:{weights}=/weights", "--output",
        f"host:{output}", training=(*settings, f"--encoder-weights=/weights/{file.name}"),
    )  # fmt: skip
    submission.submit(asked, open_cluster)
    end = operations.wait("job", open_cluster, timeout=1500)
    assert end.phase == "Succeeded", end
    assert end.details["epoch"] == 2
    assert end.progress is not None
    assert end.progress.startswith("epoch 2 of 2, step ")
    assert open_cluster.get("Job", "job")["metadata"]["labels"]["maskfleet/epoch"] == "2-of-2"
    assert any("2 worker(s), 2 replica(s)" in line.text for line in logs("job", open_cluster, LogRequest()))
    happened = [event["reason"] for event in describe("job", open_cluster)["events"]]
    assert {"TrainingStarted", "CheckpointSaved", "TrainingEnded"} <= set(happened)

    made = open_cluster.get("Job", "job")
    with in_cluster(asked, made, open_cluster) as pod, closing(open_cluster.connect_to_pod(pod, 6006)) as board:
        board.sendall(b"GET /data/runs HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: board.recv(1 << 16), b""))
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1]) == ["train", "validation", SETTINGS_AND_SCORES]

    local = tmp_path / "local"
    arguments = (f"--data=folder:{pets}", f"--encoder-weights={file}")
    with LocalRun(local, f"--run-dir={local}", "--workers=2", "--", *settings, *arguments) as run:
        assert run.process.wait(1500) == 0, run.output.read_text()
    assert inspect(RunDirectory(output / "job"))["sha256"] == inspect(RunDirectory(local))["sha256"]


@pytest.mark.long
def test_four_workers_train_on_one_node_in_a_restricted_namespace(cluster: Cluster, trainer_image: str) -> None:
    asked = job(trainer_image, "--workers", "4", "--cpu", "400m", "--memory", "1500Mi")
    submission.submit(asked, cluster)
    until("job", cluster, lambda now: now.details.get("step", 0) > 0, seconds=900)
    assert {worker.phase for worker in operations.status("job", cluster).workers} == {"Running"}
    ending.cancel("job", cluster)


@pytest.mark.long
def test_a_job_goes_on_with_other_numbers_of_workers(
    open_cluster: Cluster, trainer_image: str, output: Path, tmp_path: Path
) -> None:
    """Two, then three, then one: each step has the loss that it has where nobody changed the number."""
    training = (*SETTINGS, *INVARIANT, "--epochs=4")
    asked = job(
        trainer_image, "--workers", "2", "--cpu", "450m", "--memory", "1500Mi", "--output", f"host:{output}",
        training=training,
    )  # fmt: skip
    submission.submit(asked, open_cluster)
    for workers, step in ((3, 8), (1, 60)):
        until("job", open_cluster, lambda now, step=step: now.details.get("step", 0) > step, seconds=900)  # type: ignore[misc]
        scale("job", workers, open_cluster)
        until("job", open_cluster, lambda now: now.phase in ("Running", "Succeeded"), seconds=300)
        assert len(operations.status("job", open_cluster).workers) == workers
    end = operations.wait("job", open_cluster, timeout=1500)
    assert end.phase == "Succeeded", end

    local = tmp_path / "local"
    with LocalRun(local, f"--run-dir={local}", "--", *training) as run:
        assert run.process.wait(1500) == 0, run.output.read_text()
    expected, found = losses(RunDirectory(local)), losses(RunDirectory(output / "job"))
    assert sorted(found) == sorted(expected) == list(range(1, 161))
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, abs=1e-4), f"step {step}"


@dataclass
class Disturbed:
    """A running job, and what may happen to it."""

    cluster: Cluster
    kit: Kit

    def pod(self, worker: int) -> str:
        now = until("job", self.cluster, lambda now: now.workers[worker].phase == "Running", seconds=300)
        return f"{self.cluster.namespace}/{now.workers[worker].pod}"

    def step(self) -> int:
        return int(operations.status("job", self.cluster.patient(60)).details.get("step", 0))

    def delete(self, worker: int) -> str:
        pod = self.pod(worker)
        self.cluster.delete("Pod", pod.split("/")[1])
        return pod

    def kill(self, worker: int) -> str:
        pod = self.pod(worker)
        self.kit("fault", "kill", pod, "trainer")
        return pod

    def freeze(self, worker: int) -> str:
        pod = self.pod(worker)
        self.kit("fault", "freeze", pod, "trainer")
        return pod

    def drain(self) -> str:
        pod = self.pod(0)
        self.kit("fault", "drain-node", "--grace-period=40")
        until("job", self.cluster, lambda now: now.phase in ("Restarting", "Pending"), seconds=120)
        self.tells(r"FailedScheduling +.*unschedulable", pod)
        self.kit("fault", "uncordon")
        return pod

    def stop_api(self) -> str:
        pod = self.pod(0)
        self.kit("fault", "api-down")
        time.sleep(30)
        self.kit("fault", "api-up")
        return pod

    def tells(self, pattern: str, pod: str) -> None:
        """Waits until describe gives the reason; ``{pod}`` in the pattern is the pod that the fault has met."""
        wanted = re.compile(pattern.replace("{pod}", re.escape(pod.split("/")[1])))
        deadline = time.monotonic() + 180
        while True:
            text = "\n".join(describe_lines(describe("job", self.cluster.patient(60))))
            if wanted.search(text):
                return
            assert time.monotonic() < deadline, f"no {wanted.pattern} in\n{text}"
            time.sleep(0.5)


@dataclass(frozen=True)
class Trouble:
    """What happens, what describe says of it, and whether it costs a restart."""

    cause: Callable[[Disturbed], str]
    told: str = ""
    restarts: bool = True


STOPPED = r"Pod/{pod} +Killing +Stopping container trainer"
FAULTS: dict[str, Trouble] = {
    "a worker's pod deleted": Trouble(lambda job: job.delete(1), STOPPED),
    "the chief's pod deleted": Trouble(lambda job: job.delete(0), STOPPED),
    "a worker's container killed": Trouble(lambda job: job.kill(1), "trainer was killed by signal 9"),
    "a worker's container frozen": Trouble(lambda job: job.freeze(1), r"Pod/{pod} +Unhealthy +Liveness probe failed"),
    "node drained": Trouble(Disturbed.drain, STOPPED),
    "API server away for 30 s": Trouble(Disturbed.stop_api, restarts=False),
}
"""The last one may outlast the training."""


@pytest.fixture
def epochs(tmp_path: Path) -> int:
    """As many as take DISTURBED_SECONDS of training on this machine now, by a run of one."""
    path = tmp_path / "measured"
    with LocalRun.start(path) as run:
        assert run.wait() == 0, run.output.read_text()
    (line,) = run.directory.metrics.read_text().splitlines()
    return min(60, max(2, round(DISTURBED_SECONDS / json.loads(line)["training_seconds"])))


@pytest.fixture
def whole_again(kit: Kit) -> Iterator[None]:
    try:
        yield
    finally:
        kit("fault", "api-up")
        kit("fault", "uncordon")


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_whatever_happens_to_its_pods_a_run_ends_with_the_undisturbed_bits(
    open_cluster: Cluster, trainer_image: str, output: Path, tmp_path: Path, epochs: int, kit: Kit, whole_again: None
) -> None:
    training = (*SETTINGS, f"--epochs={epochs}", "--checkpoint-steps=20")
    asked = job(trainer_image, "--workers", "2", "--output", f"host:{output}", training=training)
    submission.submit(asked, open_cluster)
    disturbed = Disturbed(open_cluster, kit)
    until("job", open_cluster, lambda now: now.details.get("step", 0) > 10, seconds=900)
    for name, trouble in FAULTS.items():
        before, at = disturbed.step(), time.monotonic()
        pod = trouble.cause(disturbed)
        done = time.monotonic()
        if trouble.restarts:
            until("job", open_cluster, lambda now: now.phase not in ("Running", "Succeeded"), seconds=120)
        noticed = time.monotonic()
        if trouble.told:
            disturbed.tells(trouble.told, pod)
        until("job", open_cluster, lambda now: now.phase in ("Running", "Succeeded"), seconds=600)
        until("job", open_cluster, lambda now, step=before: now.details.get("step", 0) > step, seconds=600)  # type: ignore[misc]
        new = time.monotonic()
        print(
            f"{name}: caused in {done - at:.0f} s, seen after {noticed - done:.0f} s, new step {new - done:.0f} s later"
        )
    end = operations.wait("job", open_cluster, timeout=1500)
    assert end.phase == "Succeeded", end
    told = [event for event in describe("job", open_cluster)["events"] if event["reason"] == "TrainingRestarted"]
    assert len(told) >= 2
    assert all("worker" in event["message"] for event in told), told

    local = tmp_path / "local"
    with LocalRun(local, f"--run-dir={local}", "--workers=2", "--", *training) as run:
        assert run.process.wait(1500) == 0, run.output.read_text()
    assert inspect(RunDirectory(output / "job"))["sha256"] == inspect(RunDirectory(local))["sha256"]
