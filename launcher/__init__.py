"""What the user talks to: runs here, jobs on a cluster, and the stream to object storage.

The Python API, which the command line uses too::

    submit(TrainingJob(name="pets", workers=4, data="oxford_iiit_pet", output="gs://bucket/runs"))
    wait("pets")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.cluster.kubernetes_api import Cluster
    from launcher.job.training_job import TrainingJob
    from launcher.operations.ending import cancel, delete, resume
    from launcher.operations.following import status, wait
    from launcher.operations.submission import submit
    from launcher.status.job_status import JobStatus

__all__ = ["Cluster", "JobStatus", "TrainingJob", "cancel", "delete", "resume", "status", "submit", "wait"]

_HOMES = {
    "Cluster": "cluster.kubernetes_api",
    "JobStatus": "status.job_status",
    "TrainingJob": "job.training_job",
    "cancel": "operations.ending",
    "delete": "operations.ending",
    "resume": "operations.ending",
    "status": "operations.following",
    "submit": "operations.submission",
    "wait": "operations.following",
}


def __getattr__(name: str) -> Any:
    """Imports on first use, so that ``launcher --help`` does not wait for what it does not need."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"launcher.{_HOMES[name]}"), name)
