"""Pods stream to a bucket and go on from it. The bucket is the strict fake, on an address that pods reach."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.cluster.kubernetes_api import Cluster
from launcher.job.training_job import TrainingJob
from launcher.operations import following as operations
from launcher.operations import submission
from launcher.streaming.download.restore import restore
from launcher.streaming.download.stored_logs import stored_logs
from launcher.streaming.stores.opening import open_store
from maskfleet.config import TrainConfig
from maskfleet.run_directory import RunDirectory
from tests.cluster.conftest import Scripted
from tests.fakes.gcs import FakeGcs, Fault
from tests.helpers.processes import LocalRun, inspect
from tests.helpers.sample_run import assert_manifests_verify, copied_files

DESTINATION = "gs://bucket/run"
MANIFESTS = "checkpoints/manifests/step-"

PRETENDED_TRAINING = """
import random, signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
from maskfleet.checkpoint_manifest import CheckpointManifest
from maskfleet.files import FileDigest, write_atomically
from maskfleet.run_directory import RunDirectory
directory = RunDirectory(run)
directory.logs.mkdir(exist_ok=True)
log = directory.worker_log(worker).open("a", buffering=1)
steps = directory.checkpoint_steps() if worker == 0 else []
print("begins after step", steps[0] if steps else 0, file=log)
for step in range(steps[0] + 1 if steps else 1, 9):
    time.sleep(1)
    print("step", step, file=log)
    if worker == 0:
        prefix = directory.checkpoint_prefix(step)
        paths = [prefix.with_name(prefix.name + suffix) for suffix in (".data-00000-of-00001", ".index")]
        for path in paths:
            write_atomically(path, random.Random(step).randbytes(50_000))
        manifest = CheckpointManifest(step, 1, float(step), None, {path.name: FileDigest.of(path) for path in paths})
        write_atomically(directory.checkpoint_manifest(step), manifest.serialize())
"""


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


def delete_chief(cluster: Cluster) -> None:
    (pod,) = cluster.list("Pod", labels="batch.kubernetes.io/job-completion-index=0")
    cluster.delete("Pod", pod["metadata"]["name"])


def test_a_replaced_pod_goes_on_from_the_bucket(cluster: Cluster, scripted: Scripted, fake: FakeGcs) -> None:
    environment = (f"SCRIPT={PRETENDED_TRAINING}", f"STORAGE_EMULATOR_HOST={fake.url}")
    job = scripted("", name="run", env=environment, workers=2, output="gs://bucket", max_restarts=3)
    submission.submit(job, cluster)
    wait_until(lambda: f"{MANIFESTS}00000003.json" in copied_files(fake))
    delete_chief(cluster)
    end = operations.wait("run", cluster, timeout=180)
    assert (end.phase, end.exit_code) == ("Succeeded", 0), end
    assert end.details["streamer"]["lag_bytes"] == 0  # told after the last byte was sent
    copied = copied_files(fake)
    assert [name for name in sorted(copied) if name.startswith(MANIFESTS)] == [
        f"{MANIFESTS}{step:08d}.json" for step in range(1, 9)
    ]
    assert_manifests_verify(fake)
    lines = {worker: list(log) for worker, log in stored_logs(open_store(DESTINATION)).items()}
    begins = [int(line.split()[-1]) for line in lines[0] if line.startswith("begins")]
    assert begins[0] == 0
    assert len(begins) == 2
    assert begins[1] >= 3
    assert lines[0][-1] == "step 8"
    assert lines[1] == ["begins after step 0", *(f"step {step}" for step in range(1, 9))]


ENDS_IN_AN_OUTAGE = """
from maskfleet.run_directory import RunDirectory
directory = RunDirectory(run)
directory.logs.mkdir(exist_ok=True)
log = directory.worker_log(worker).open("a", buffering=1)
print("begins", file=log)
time.sleep(20)
print("ends", file=log)
"""


def test_the_end_of_a_run_that_does_not_reach_the_bucket_is_no_success(
    cluster: Cluster, scripted: Scripted, fake: FakeGcs
) -> None:
    environment = (f"SCRIPT={ENDS_IN_AN_OUTAGE}", f"STORAGE_EMULATOR_HOST={fake.url}")
    # Of the grace, 35 s are the trainer's: the streamer gives up after 10.
    submission.submit(scripted("", name="run", env=environment, output="gs://bucket", grace="45s"), cluster)
    wait_until(lambda: "logs/worker-0.log" in copied_files(fake))
    time.sleep(1)  # for all that belongs to this append
    fake.faults.add(Fault("status", status=503, times=10**6))
    end = operations.wait("run", cluster, timeout=180)
    assert (end.phase, end.exit_code) == ("Succeeded", 1), end
    assert re.fullmatch(r"not all of the run was streamed: \d+ bytes of logs/worker-0\.log", end.not_streamed), end
    assert end.reason.endswith(end.not_streamed)
    assert end.details["streamer"]["lag_bytes"] > 0


@pytest.mark.long
def test_training_whose_pod_is_lost_ends_with_the_undisturbed_weights(
    cluster: Cluster, trainer_image: str, fake: FakeGcs, tmp_path: Path
) -> None:
    settings = {"encoder_weights": "none", "unfreeze_from": "none", "image_size": 32, "epochs": 1, "threads": 1}
    training = TrainConfig.model_validate({**settings, "global_batch": 6, "checkpoint_steps": 5})
    job = TrainingJob(
        name="run",
        image=trainer_image,
        workers=2,
        cpu="500m",
        memory="2Gi",
        output="gs://bucket",
        max_restarts=5,
        env=(f"STORAGE_EMULATOR_HOST={fake.url}",),
        training=training,
    )
    submission.submit(job, cluster)
    wait_until(lambda: any(name.startswith(MANIFESTS) for name in copied_files(fake)), 400)
    delete_chief(cluster)
    end = operations.wait("run", cluster, timeout=900)
    assert end.phase == "Succeeded", end
    assert_manifests_verify(fake)
    streamed = RunDirectory(tmp_path / "streamed")
    assert restore(open_store(DESTINATION), streamed) is not None
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in training.model_dump(exclude_unset=True).items()]
    path = tmp_path / "undisturbed"
    with LocalRun(path, f"--run-dir={path}", "--workers=2", "--", *flags) as undisturbed:
        assert undisturbed.wait() == 0, undisturbed.output.read_text()
    assert inspect(streamed)["sha256"] == inspect(undisturbed.directory)["sha256"]
