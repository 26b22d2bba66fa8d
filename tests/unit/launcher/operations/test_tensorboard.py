"""TensorBoard's pod, and where it runs."""

from __future__ import annotations

import warnings

import kubernetes_validate
import pytest

from launcher.job.manifests import tensorboard_pod
from launcher.job.training_job import TrainingJob
from launcher.operations.tensorboard import is_local
from maskfleet.errors import BadInput


@pytest.mark.parametrize(
    ("output", "command"),
    [
        ("pvc:runs/team", ["tensorboard", "--logdir", "/output/team/pets/tensorboard", "--port", "6006"]),
        ("s3://bucket/runs", ["launcher", "tensorboard", "s3://bucket/runs/pets", "--port", "6006"]),
    ],
)
def test_the_pod_follows_the_schema_and_reads_the_output_alone(output: str, command: list[str]) -> None:
    pod = tensorboard_pod(TrainingJob(name="pets", output=output, mount=("secret:gcs=/secrets",)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kubernetes_validate.validate(pod, "1.36", strict=True)
    (server,) = pod["spec"]["containers"]
    assert server["args"] == command
    assert all(m.get("readOnly") for m in server["volumeMounts"] if m["name"] != "tmp")
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "tensorboard"


def test_where_the_event_files_can_be_read() -> None:
    assert is_local(TrainingJob(name="pets", output="s3://bucket"))
    assert not is_local(TrainingJob(name="pets", output="pvc:runs"))
    with pytest.raises(BadInput, match="job pets has no --output: its event files are in its chief's pod alone"):
        is_local(TrainingJob(name="pets"))
