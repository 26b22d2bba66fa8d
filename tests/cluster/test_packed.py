"""Packed data that fits neither the pods' disks nor their memory is trained on from its bucket."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest

from launcher.cluster.kubernetes_api import Cluster
from launcher.job.training_job import TrainingJob
from launcher.operations import following as operations
from launcher.operations import submission
from tests.cluster.conftest import until
from tests.fakes.gcs import FakeGcs
from tests.helpers.packed_data import noise_pairs, put_folder, write_packed

SIDE, TRAIN, GLOBAL_BATCH = 816, 1536, 12
"""3 GB: pictures of 2 MB."""
TRAINING = (
    "--model=lraspp", "--encoder=mobilenet_v3", "--encoder-weights=none", "--unfreeze-from=none", "--image-size=384",
    "--epochs=1", f"--global-batch={GLOBAL_BATCH}", "--threads=1", "--checkpoint-steps=10", "--no-export",
)  # fmt: skip


def read_of_shards(fake: FakeGcs) -> int:
    """Bytes that pods have asked for and got so far."""
    total = 0
    for request in list(fake.requests):
        wanted = request.headers.get("range", "").removeprefix("bytes=")
        if request.status == 206 and unquote(request.path).endswith(".tfrecord"):
            start, end = map(int, wanted.split("-"))
            total += end + 1 - start
    return total


@pytest.mark.long
def test_three_gigabytes_pass_through_a_scratch_of_one_and_a_new_pod_reads_what_is_left(
    cluster: Cluster, trainer_image: str, fake: FakeGcs, tmp_path: Path
) -> None:
    data = tmp_path / "drawn"
    write_packed(data, noise_pairs(12, SIDE), train=TRAIN, test=GLOBAL_BATCH)
    put_folder(fake, data, "drawn")
    size = sum(file.stat().st_size for file in data.glob("train-*.tfrecord"))
    assert size > 3e9
    flags = ["--name", "job", "--image", trainer_image, "--workers", "2", "--cpu", "900m", "--memory", "2Gi",
             "--scratch", "1Gi", "--grace", "40", "--data", "packed:gs://bucket/drawn", "--output", "gs://bucket/runs",
             "--env", f"STORAGE_EMULATOR_HOST={fake.url}"]  # fmt: skip
    submission.submit(TrainingJob.from_sources(None, TrainingJob.parse_flags(flags), TRAINING), cluster)
    until("job", cluster, lambda now: now.details.get("step", 0) >= TRAIN // GLOBAL_BATCH // 2, seconds=900)
    (pod,) = cluster.list("Pod", labels="batch.kubernetes.io/job-completion-index=1")
    cluster.delete("Pod", pod["metadata"]["name"])
    deleted_at = read_of_shards(fake)
    end = operations.wait("job", cluster, timeout=1500)
    assert end.phase == "Succeeded", end
    assert {pod["status"].get("reason") for pod in cluster.list("Pod")} == {None}, "a pod was evicted"
    read = read_of_shards(fake)
    print(f"{deleted_at / 1e9:.2f} GB read until a pod was deleted, {read / 1e9:.2f} in all, of {size / 1e9:.2f}")
    assert 0.99 * size < read < 1.15 * size
