"""What the user talks to: runs here, jobs on a cluster, and the stream to object storage.

The Python API, which the command line uses too::

    from launcher import TrainingJob, submit, status, wait

    submit(TrainingJob(name="pets", workers=4, data="oxford_iiit_pet", output="gs://bucket/runs"))
    wait("pets")

Each verb takes the :class:`Cluster` to talk to; without one it takes that of the current kubeconfig. What goes wrong is
a :class:`MaskfleetError`; :mod:`maskfleet.errors` draws all of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launcher.cluster.connection import ApiError, Unreachable
    from launcher.cluster.kubernetes_api import Cluster
    from launcher.diagnosis.job_status import JobStatus
    from launcher.diagnosis.worker_status import WorkerStatus
    from launcher.job.training_job import TrainingJob
    from launcher.operations.ending import NotStartedAgain, cancel, delete, resume
    from launcher.operations.following import follow, list_jobs, status, wait
    from launcher.operations.logs import logs
    from launcher.operations.named_objects import Check
    from launcher.operations.pod_log import LogLine, LogRequest
    from launcher.operations.preflight import preflight
    from launcher.operations.scaling import Scaled, scale
    from launcher.operations.submission import LeftBehind, Submission, submit
    from launcher.streaming.stores.store import StoreRefused, StoreUnavailable
    from maskfleet.errors import BadData, BadInput, BadSettings, MaskfleetError, NotFound, TimedOut

_HOMES = {
    "launcher.cluster.connection": ("ApiError", "Unreachable"),
    "launcher.cluster.kubernetes_api": ("Cluster",),
    "launcher.diagnosis.job_status": ("JobStatus",),
    "launcher.diagnosis.worker_status": ("WorkerStatus",),
    "launcher.job.training_job": ("TrainingJob",),
    "launcher.operations.ending": ("NotStartedAgain", "cancel", "delete", "resume"),
    "launcher.operations.following": ("follow", "list_jobs", "status", "wait"),
    "launcher.operations.logs": ("logs",),
    "launcher.operations.named_objects": ("Check",),
    "launcher.operations.pod_log": ("LogLine", "LogRequest"),
    "launcher.operations.preflight": ("preflight",),
    "launcher.operations.scaling": ("Scaled", "scale"),
    "launcher.operations.submission": ("LeftBehind", "Submission", "submit"),
    "launcher.streaming.stores.store": ("StoreRefused", "StoreUnavailable"),
    "maskfleet.errors": ("BadData", "BadInput", "BadSettings", "MaskfleetError", "NotFound", "TimedOut"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ApiError",
    "BadData",
    "BadInput",
    "BadSettings",
    "Check",
    "Cluster",
    "JobStatus",
    "LeftBehind",
    "LogLine",
    "LogRequest",
    "MaskfleetError",
    "NotFound",
    "NotStartedAgain",
    "Scaled",
    "StoreRefused",
    "StoreUnavailable",
    "Submission",
    "TimedOut",
    "TrainingJob",
    "Unreachable",
    "WorkerStatus",
    "cancel",
    "delete",
    "follow",
    "list_jobs",
    "logs",
    "preflight",
    "resume",
    "scale",
    "status",
    "submit",
    "wait",
]


def __getattr__(name: str) -> Any:
    """Imports on first use, so that ``launcher --help`` does not wait for what it does not need."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
