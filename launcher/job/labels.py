"""Labels and annotations of a job's objects: who sets each, and who reads it.

The files in ``k8s/base`` carry those of app.kubernetes.io themselves; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NAME_LABEL = "app.kubernetes.io/name"
INSTANCE_LABEL = "app.kubernetes.io/instance"
COMPONENT_LABEL = "app.kubernetes.io/component"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
APPLICATION = "maskfleet"
WORKER, TENSORBOARD = "worker", "tensorboard"
MANAGER = "launcher"
FIELD_MANAGER = "maskfleet-launcher"
"""Under this name, that of its requests' User-Agent, the API server notes what the launcher has changed."""
COMPONENT_LABELS = {NAME_LABEL: APPLICATION, COMPONENT_LABEL: WORKER}
"""Of every worker's pod, with the instance beside them: what the Service and the NetworkPolicy select."""

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""On the Job, by ``--queue``; Kueue admits it."""
EPOCH_LABEL = "maskfleet/epoch"
"""On the Job, by the chief's sidecar: ``3-of-20``, for ``kubectl get jobs -L``."""

JOB_ANNOTATION = "maskfleet/job"
"""On the Job, by submit: the TrainingJob in JSON, which resume, logs and tensorboard read."""
CODE_ANNOTATION = "maskfleet/code"
"""On a Job: the fingerprint of the user's own code that it was submitted with."""
CANCELLED_ANNOTATION = "maskfleet/cancelled"
"""On the Job, by cancel: when; resume takes it away."""
STOPPED_ANNOTATION = "maskfleet/stopped-seconds"
"""On the Job, by resume: how long it has been cancelled, all times together."""
PROGRESS_ANNOTATION = "maskfleet/progress"
"""On the Job, by the chief's sidecar: a sentence for people."""
PROGRESS_JSON_ANNOTATION = "maskfleet/progress.json"
"""On the Job, by the chief's sidecar: the run's progress, state and streamer, which status reads."""

WORKERS_ANNOTATION = "maskfleet/workers"
"""On a job's pods, by submit and scale: how many workers it has, ``8`` or ``2..8``; a variable of their containers."""
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
"""On a pod, by the Job's controller: which worker it is."""
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
"""On a pod, by the Job's controller: whose it is."""
FAILURES_ANNOTATIONS = (
    "batch.kubernetes.io/job-index-failure-count",
    "batch.kubernetes.io/job-index-ignored-failure-count",
)
"""On a pod, by the Job's controller: how many pods of this worker have failed before, counted and not."""


@dataclass(frozen=True)
class GangScheduler:
    """One that makes a PodGroup of each Job whose annotation says how many of its pods are placed at once or not."""

    group: str
    annotation: str


# Without their annotations the least number is 1. Volcano: pkg/controllers/podgroup, getMinMemberFromUpperRes. KAI:
# https://github.com/NVIDIA/KAI-Scheduler/blob/main/docs/batch/README.md
GANG_SCHEDULERS: Mapping[str, GangScheduler] = {
    "volcano": GangScheduler("scheduling.volcano.sh", "scheduling.volcano.sh/group-min-member"),
    "kai-scheduler": GangScheduler("scheduling.run.ai", "kai.scheduler/batch-min-member"),
}
"""By the name of --scheduler-name; their annotations are on the Job, by submit."""

SPOT_LABELS = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "kubernetes.azure.com/scalesetpriority": "spot",
    "karpenter.sh/capacity-type": "spot",
}
"""On nodes that the cloud may take back: of GKE, EKS, AKS and Karpenter."""

ALL_JOBS = f"{NAME_LABEL}={APPLICATION}"
"""Selector of all objects of ours."""
ALL_WORKERS = f"{ALL_JOBS},{COMPONENT_LABEL}={WORKER}"
"""Selector of the pods of all jobs' workers."""


def instance(name: str) -> str:
    """The label selector of the workers of a job."""
    return f"{ALL_JOBS},{INSTANCE_LABEL}={name},{COMPONENT_LABEL}={WORKER}"


def instance_objects(name: str) -> str:
    """The label selector of all objects of a job that the launcher, or ``k8s/base``, has made."""
    return f"{instance(name)},{MANAGED_BY_LABEL}={MANAGER}"


def namespace_of(manifest: Mapping[str, Any]) -> str:
    namespace: str = manifest["metadata"].get("namespace") or "default"
    return namespace


def labels_of(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = manifest["metadata"].get("labels") or {}
    return labels


def annotations_of(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    annotations: Mapping[str, str] = manifest["metadata"].get("annotations") or {}
    return annotations
