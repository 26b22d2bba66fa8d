"""Suspends a Job, so that its workers save and end, and releases it again."""

from __future__ import annotations

from datetime import UTC, datetime

from launcher.cluster.kubernetes_api import Object
from launcher.cluster.namespace import Namespace
from launcher.job.labels import CANCELLED_ANNOTATION


def suspend(name: str, cluster: Namespace) -> None:
    """Notes when, by which the job is told apart from one that somebody else has suspended."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    cluster.patch("Job", name, {"metadata": {"annotations": {CANCELLED_ANNOTATION: now}}, "spec": {"suspend": True}})


def release(name: str, cluster: Namespace, *, by_queue: bool = False) -> None:
    """With ``by_queue`` only the note goes, and whoever admits the jobs of a queue releases it."""
    change: Object = {"metadata": {"annotations": {CANCELLED_ANNOTATION: None}}}
    if not by_queue:
        change["spec"] = {"suspend": False}
    cluster.patch("Job", name, change)
