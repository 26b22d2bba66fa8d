"""Labels and annotations of a job's objects."""

from __future__ import annotations

CANCELLED_ANNOTATION = "maskfleet/cancelled"


PROGRESS_ANNOTATION = "maskfleet/progress"


PROGRESS_JSON_ANNOTATION = "maskfleet/progress.json"


EPOCH_LABEL = "maskfleet/epoch"


JOB_ANNOTATION = "maskfleet/job"


QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


COMPONENT_LABELS = {"app.kubernetes.io/name": "maskfleet", "app.kubernetes.io/component": "worker"}


ALL_JOBS = "app.kubernetes.io/name=maskfleet"


def instance(name: str) -> str:
    """The label selector of the workers of a job."""
    return f"{ALL_JOBS},app.kubernetes.io/instance={name},app.kubernetes.io/component=worker"


INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
