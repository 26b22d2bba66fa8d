"""Another number of workers for a job that is there: those it has save and end, and as many as asked for go on.

Nothing grows with their number: the Job's completions and parallelism and an annotation of its pods change together,
and the peers' names follow from the index and the count. The Job is suspended meanwhile, since only then the API server
takes a change of its pods.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from launcher.cluster.kubernetes_api import Cluster, Object
from launcher.cluster.namespace import Namespace
from launcher.job.labels import (
    JOB_ANNOTATION,
    QUEUE_LABEL,
    WORKERS_ANNOTATION,
    annotations_of,
    labels_of,
)
from launcher.job.manifests import manifests
from launcher.job.training_job import TrainingJob
from launcher.operations.gangs import is_placed_as_gang
from launcher.operations.submitted import asked_job, check_not_being_deleted, get_job, has_ended, submitted_code
from launcher.operations.suspension import release, suspend
from maskfleet.backoff import pauses
from maskfleet.errors import BadInput, BadSettings, TimedOut
from maskfleet.worker_count import WorkerCount

_BEYOND_GRACE_SECONDS = 60.0  # for the pods of a suspended job to be gone


@dataclass(frozen=True)
class Scaled:
    """What came of :func:`scale`: ``goes_on`` is False of a job that was, and is, stopped."""

    before: WorkerCount
    job: TrainingJob
    goes_on: bool


def scale(
    name: str,
    workers: WorkerCount | int | str,
    cluster: Namespace | None = None,
    *,
    report_line: Callable[[str], object] = lambda line: None,
) -> Scaled:
    """Makes a running job go on with another number of ``workers`` at its next example; a stopped one stays stopped.

    The number may be a range such as ``2..8``, of a job that was made with one.

    The examples of a step and the learning rate stay what they are. Should it be interrupted, the job is cancelled and
    ``resume`` goes on. ``report_line`` gets what is waited for.

    Raises:
        NotFound: there is no such job.
        BadInput: it has ended, is being deleted, keeps its state in its pods alone, is a queue's, or was made by a
            launcher that tells its pods their number otherwise; nothing was changed.
        BadSettings: a step has fewer examples than there would be replicas; nothing was changed.
        TimedOut: its workers have not ended in time; the job is cancelled.
    """
    cluster = cluster or Cluster.connect()
    job = get_job(cluster, name)
    check_not_being_deleted(job)
    asked, count = asked_job(job), parse_workers(workers)
    changed = asked.with_workers(count)
    _check_scalable(job, asked, count)
    stopped = bool(job["spec"].get("suspend"))
    if asked.count == count:
        return Scaled(count, asked, not stopped)
    if is_placed_as_gang(job, cluster):
        raise BadInput(
            f"job {name} is placed as a gang of {asked.workers}, whose number can't be changed: delete it "
            f"and submit it again with --workers {workers}; it goes on from its --output"
        )
    if not stopped:
        suspend(name, cluster)
        report_line(f"its {asked.workers} worker(s) save and end")
    _until_stopped(name, cluster, asked.grace_seconds + _BEYOND_GRACE_SECONDS)
    try:
        _set_workers(changed, cluster)
    finally:
        if not stopped:  # also if the server refused: then it goes on as it was
            release(job, cluster)
    return Scaled(asked.count, changed, not stopped)


def parse_workers(workers: WorkerCount | int | str) -> WorkerCount:
    """Raises BadSettings if it is neither a number of workers nor a range."""
    try:
        return WorkerCount.parse(workers)
    except ValueError as error:
        raise BadSettings(f"--workers {workers}: {error}") from error


def _check_scalable(job: Object, asked: TrainingJob, workers: WorkerCount) -> None:
    """Raises BadInput, naming what stands in the way."""
    name = asked.name
    anew = f"delete it and submit it again with --workers {workers}; it goes on from its --output"
    if has_ended(job):
        raise BadInput(
            f"job {name} has ended: 'launcher resume {name} --workers {workers}' starts it again with {workers}"
        )
    if QUEUE_LABEL in labels_of(job):
        raise BadInput(
            f"job {name} is admitted by the queue {labels_of(job)[QUEUE_LABEL]} with the number of workers that it "
            f"has: {anew}"
        )
    if workers.is_range and "successPolicy" not in job["spec"]:
        raise BadInput(f"job {name} was made for a number of workers, and Kubernetes keeps it to that: {anew}")
    if asked.output is None:
        raise BadInput(
            f"job {name} has no --output: what its workers save goes with their pods, so another number of them would "
            "start over; submit it anew with --output"
        )
    if WORKERS_ANNOTATION not in annotations_of(job["spec"]["template"]):
        raise BadInput(
            f"job {name} was made by an earlier launcher, which tells its pods their number in a way that stays: {anew}"
        )


def _until_stopped(name: str, cluster: Namespace, timeout: float) -> None:
    waits = pauses(0.2, 2.0, timeout=timeout)
    while True:
        status = cluster.get("Job", name).get("status", {})
        if not status.get("active") and not status.get("terminating"):
            return
        pause = next(waits, None)
        if pause is None:
            raise TimedOut(
                f"job {name} is cancelled, but {status.get('active') or status.get('terminating')} of its pods are "
                f"still there after {timeout:g} s: 'launcher status {name}' shows them; then scale it again"
            )
        time.sleep(pause)


def _set_workers(job: TrainingJob, cluster: Namespace) -> None:
    """Changes what depends on the number of workers, in two requests whatever the number."""
    code = None if job.code is None else submitted_code(job, cluster.get("Job", job.name), cluster)
    first, *others = manifests(job, code)
    settings = next(manifest for manifest in others if manifest["kind"] == "ConfigMap")
    cluster.patch("ConfigMap", job.name, {"data": settings["data"]})
    annotations = {JOB_ANNOTATION: first["metadata"]["annotations"][JOB_ANNOTATION]}
    pods = {"metadata": {"annotations": {WORKERS_ANNOTATION: str(job.workers)}}}
    spec: Object = {"completions": job.count.most, "parallelism": job.count.most, "template": pods}
    cluster.patch("Job", job.name, {"metadata": {"annotations": annotations}, "spec": spec})
