"""What the user talks to: runs here, jobs on a cluster, and the stream to object storage.

The Python API, which the command line uses too::

    from launcher import TrainingJob, submit, status, wait

    submit(TrainingJob(name="pets", workers=4, data="oxford_iiit_pet", output="gs://bucket/runs"))
    wait("pets")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.job import TrainingJob
    from launcher.job_status import JobStatus
    from launcher.kubernetes_api import Cluster
    from launcher.operations import cancel, delete, resume, status, wait
    from launcher.submission import submit

__all__ = ["Cluster", "JobStatus", "TrainingJob", "cancel", "delete", "resume", "status", "submit", "wait"]

_HOMES = {"TrainingJob": "job", "JobStatus": "job_status", "Cluster": "kubernetes_api", "submit": "submission"}


def __getattr__(name: str) -> Any:
    """Imports on first use, so that ``launcher --help`` does not wait for what it does not need."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"launcher.{_HOMES.get(name, 'operations')}"), name)
