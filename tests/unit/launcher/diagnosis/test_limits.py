"""What a LimitRange says to a worker."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.diagnosis.limits import fitted, limit_range_troubles
from launcher.job.manifests import manifests
from launcher.job.training_job import TrainingJob


def troubles(limit: dict[str, Any], **settings: Any) -> list[str]:
    job = TrainingJob(name="job", **{"cpu": "2", "memory": "4Gi", **settings})
    return list(limit_range_troubles({"spec": {"limits": [limit]}}, manifests(job)[0]))


@pytest.mark.parametrize(
    ("limit", "settings", "said"),
    [
        ({"type": "Container", "max": {"cpu": "2", "memory": "4Gi"}}, {}, []),
        ({"type": "Container", "max": {"cpu": "500m"}}, {}, [
            "the streamer's limit of 1 cpu is more than 500m: --streamer-cpu",
            "the trainer's limit of 2 cpu is more than 500m: --cpu"]),
        ({"type": "Container", "max": {"memory": "4Gi"}}, {"streamer_memory": "5Gi"}, [
            "the streamer's limit of 5.0 GiB memory is more than 4Gi: --streamer-memory"]),
        ({"type": "Container", "min": {"cpu": "100m"}}, {}, [
            "the streamer asks for 0.05 cpu, less than 100m: --streamer-cpu"]),
        ({"type": "Container", "min": {"cpu": "100m"}}, {"streamer_cpu": "100m"}, []),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "10"}}, {}, [
            "the streamer's limit of cpu is more than 10 times what it asks for: --streamer-cpu"]),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "1"}}, {"streamer_cpu": "500m"}, []),
        ({"type": "Container", "max": {"ephemeral-storage": "10Gi"}}, {"scratch": "5Gi"}, [
            "the streamer has no limit of ephemeral-storage, at most 10Gi is allowed"]),
        ({"type": "Container", "max": {"ephemeral-storage": "10Gi"}, "default": {"ephemeral-storage": "1Gi"}},
         {"scratch": "5Gi"}, []),
        ({"type": "Pod", "max": {"cpu": "2500m"}}, {}, ["the worker's limit of 3 cpu is more than 2500m"]),
        ({"type": "Pod", "max": {"cpu": "2500m"}}, {"streamer_cpu": "500m"}, []),
        ({"type": "Pod", "max": {"cpu": "60m"}}, {"streamer_cpu": "10m", "cpu": "50m"}, []),
        ({"type": "Pod", "max": {"cpu": "59m"}}, {"streamer_cpu": "10m", "cpu": "50m"}, [
            "the worker's limit of 0.06 cpu is more than 59m"]),
        ({"type": "Pod", "min": {"cpu": "300m"}}, {"streamer_cpu": "100m", "cpu": "200m"}, []),
        ({"type": "Pod", "min": {"cpu": "4"}}, {}, ["the worker asks for 2.05 cpu, less than 4"]),
        ({"type": "PersistentVolumeClaim", "max": {"storage": "1"}}, {}, []),
    ],
)  # fmt: skip
def test_a_worker_outside_of_a_limit_range_is_told_which_flag_mends_it(
    limit: dict[str, Any], settings: dict[str, Any], said: list[str]
) -> None:
    assert troubles(limit, **settings) == said


def test_the_container_that_prepares_has_the_streamer_s_share() -> None:
    job = TrainingJob(name="job", output="gs://b", streamer_cpu="100m", streamer_memory="256Mi")
    prepare, streamer = manifests(job)[0]["spec"]["template"]["spec"]["initContainers"]
    amounts = {"cpu": "100m", "memory": "256Mi"}
    assert prepare["resources"] == streamer["resources"] == {"requests": amounts, "limits": amounts}


FIXED = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "2Gi"}}


@pytest.mark.parametrize(("limits", "expected"), [
    ([], FIXED),
    ([{"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}], FIXED),
    ([{"type": "Container", "max": {"cpu": "500m", "memory": "256Mi"}}],
     {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}}),
    ([{"type": "Pod", "min": {"cpu": "2", "memory": "1Gi"}}],
     {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}}),
    ([{"type": "Container", "max": {"ephemeral-storage": "1Gi"}}],
     {"requests": FIXED["requests"], "limits": {**FIXED["limits"], "ephemeral-storage": "1Gi"}}),
    ([{"type": "Container", "maxLimitRequestRatio": {"memory": "1"}}],
     {"requests": {"cpu": "100m", "memory": "2Gi"}, "limits": FIXED["limits"]}),
])  # fmt: skip
def test_a_pod_of_ours_asks_for_what_is_allowed(limits: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    pod = {"spec": {"containers": [{"name": "tensorboard", "resources": FIXED}]}}
    made = fitted(pod, [{"spec": {"limits": [each]}} for each in limits])
    assert made["spec"]["containers"][0]["resources"] == expected
    assert pod["spec"]["containers"][0]["resources"] == FIXED
