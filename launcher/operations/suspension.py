"""Suspends a Job, so that its workers save and end, and releases it again."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from launcher.cluster.kubernetes_api import Object
from launcher.cluster.namespace import Namespace
from launcher.diagnosis.pods import seconds
from launcher.diagnosis.time_spent import stopped_seconds
from launcher.job.labels import CANCELLED_ANNOTATION, STOPPED_ANNOTATION, annotations_of


def suspend(name: str, cluster: Namespace) -> None:
    """Notes when, by which the job is told apart from one that somebody else has suspended."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    cluster.patch("Job", name, {"metadata": {"annotations": {CANCELLED_ANNOTATION: now}}, "spec": {"suspend": True}})


def release(job: Object, cluster: Namespace, *, by_queue: bool = False) -> None:
    """Takes the note away and adds up how long the job was stopped.

    With ``by_queue`` that is all, and whoever admits the jobs of a queue releases it.
    """
    name, noted = job["metadata"]["name"], annotations_of(job)
    annotations: dict[str, str | None] = {CANCELLED_ANNOTATION: None}
    if (cancelled := noted.get(CANCELLED_ANNOTATION)) is not None:
        stopped = max(0.0, time.time() - seconds(cancelled)) + stopped_seconds(noted)
        annotations[STOPPED_ANNOTATION] = f"{stopped:.0f}"
    change: Object = {"metadata": {"annotations": annotations}}
    if not by_queue:
        change["spec"] = {"suspend": False}
    cluster.patch("Job", name, change)
