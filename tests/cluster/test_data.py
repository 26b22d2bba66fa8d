"""A data set in a bucket, brought into every pod before its trainer starts."""

from __future__ import annotations

import io
from pathlib import Path

from launcher.cluster.kubernetes_api import Cluster
from launcher.job.training_job import TrainingJob
from launcher.operations import following as operations
from launcher.operations import submission
from launcher.operations.logs import logs
from launcher.operations.pod_log import LogRequest
from launcher.streaming.stores.opening import open_store
from maskfleet.files import FileDigest
from tests.cluster.conftest import Scripted, until
from tests.fakes.gcs import FakeGcs
from tests.helpers.processes import SETTINGS

LIST_DATA = """
import pathlib
print(sorted(str(path) for path in pathlib.Path('/data').rglob('*') if path.is_file()))
print((pathlib.Path('/data') / 'images' / 'cat.jpg').read_bytes() == b'cat' * 1000)
try:
    pathlib.Path('/data/new').touch()
except OSError as error:
    print(error.strerror)
"""


def test_every_worker_has_the_buckets_files_verified_and_read_only(
    cluster: Cluster, scripted: Scripted, fake: FakeGcs, tmp_path: Path
) -> None:
    store = open_store("gs://bucket/pets")
    for name, content in (("images/cat.jpg", b"cat" * 1000), ("annotations/list.txt", b"cat 1 1 1\n")):
        file = tmp_path / "file"
        file.write_bytes(content)
        store.put(name, io.BytesIO(content), FileDigest.of(file), None)
    environment = (f"SCRIPT={LIST_DATA}", f"STORAGE_EMULATOR_HOST={fake.url}")
    submission.submit(scripted("", workers=2, data="gs://bucket/pets", env=environment), cluster)
    assert operations.wait("job", cluster, timeout=120).phase == "Succeeded"
    for worker in (0, 1):
        printed = [line.text for line in logs("job", cluster, LogRequest(workers=frozenset({worker})))]
        assert printed == ["['/data/annotations/list.txt', '/data/images/cat.jpg']", "True", "Read-only file system"]


def test_an_empty_bucket_folder_fails_the_job_at_once_with_its_address(
    cluster: Cluster, scripted: Scripted, fake: FakeGcs
) -> None:
    environment = ("SCRIPT=", f"STORAGE_EMULATOR_HOST={fake.url}")
    job = scripted("", data="gs://bucket/nothing", env=environment, max_restarts=6)
    submission.submit(job, cluster)
    failed = until("job", cluster, lambda now: now.phase == "Failed")
    assert failed.reason == "--data gs://bucket/nothing: there is nothing: expected the data set's files"


def test_a_cache_on_a_claim_is_found_by_the_next_pod(cluster: Cluster, trainer_image: str) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "caches"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    cluster.create(claim)
    told = []
    for name, workers in (("first", "2"), ("second", "1")):
        flags = ["--name", name, "--image", trainer_image, "--workers", workers, "--cpu", "500m", "--memory", "1500Mi",
                 "--grace", "40", "--cache-volume", "pvc:caches/of/team"]  # fmt: skip
        job = TrainingJob.from_sources(None, TrainingJob.parse_flags(flags), SETTINGS)
        submission.submit(job, cluster)
        end = operations.wait(name, cluster, timeout=600)
        assert end.phase == "Succeeded", end
        lines = [line.text for line in logs(name, cluster, LogRequest())]
        told.append([line for line in lines if "into /cache/of/team/synthetic-32-" in line])
    assert [len(lines) for lines in told] == [1, 0], "of the two workers one reads the images, of the next job none"
