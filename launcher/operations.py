"""What can be done with a job that was submitted: the Python API, which the command line uses too.

Every function takes the :class:`Cluster` to talk to; without one it takes that of the current kubeconfig.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from launcher.job_status import CANCELLED_ANNOTATION, DULL_EVENTS, JobStatus, job_status
from launcher.kubernetes_api import ApiError, Cluster, Object, Unreachable
from launcher.manifests import QUEUE_LABEL
from launcher.mirror import Mirror
from launcher.submission import Submission, asked_job, get_job, has_ended, submit
from trainer.exit_codes import TIMED_OUT, BadInput, MaskfleetError, NotFound
from trainer.settings import Layer

ALL_JOBS = "app.kubernetes.io/name=maskfleet"
_INTERESTING = ",".join(f"reason!={reason}" for reason in DULL_EVENTS)


class TimedOut(MaskfleetError):
    """What was waited for did not happen in time."""

    exit_code = TIMED_OUT


def status(name: str, cluster: Cluster | None = None) -> JobStatus:
    """Where the job stands, in one request for each kind of object whatever the number of workers.

    Raises:
        NotFound: there is no such job.
    """
    cluster = cluster or Cluster.connect()
    job = get_job(cluster, name)
    pods = cluster.list("Pod", labels=instance(name))
    return job_status(job, pods, _events(cluster), _nodes(cluster), _workload(cluster, job))


def list_jobs(cluster: Cluster | None = None) -> list[JobStatus]:
    """All jobs of the namespace, the newest first."""
    cluster = cluster or Cluster.connect()
    jobs = cluster.list("Job", labels=ALL_JOBS)
    pods: dict[str, list[Object]] = {}
    for pod in cluster.list("Pod", labels=f"{ALL_JOBS},app.kubernetes.io/component=worker"):
        pods.setdefault(pod["metadata"]["labels"].get("app.kubernetes.io/instance", ""), []).append(pod)
    events = _events(cluster)
    jobs.sort(key=lambda job: job["metadata"]["creationTimestamp"], reverse=True)
    return [job_status(job, pods.get(job["metadata"]["name"], []), events) for job in jobs]


def wait(
    name: str,
    cluster: Cluster | None = None,
    *,
    timeout: float | None = None,
    on_change: Callable[[JobStatus], None] | None = None,
) -> JobStatus:
    """Waits until the job has ended, over outages of the API server; ``on_change`` gets every new phase or reason.

    Raises:
        NotFound: there is no such job, or it was deleted meanwhile.
        TimedOut: it has not ended after ``timeout`` seconds.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    seen = None
    for now in follow(name, cluster):
        if on_change and (now.phase, now.reason) != seen:
            seen = (now.phase, now.reason)
            on_change(now)
        if now.ended:
            return now
        if deadline is not None and time.monotonic() > deadline:
            break
    why = f": {now.reason}" if now.reason else ""
    raise TimedOut(f"job {name} has not ended after {timeout:g} s; it is {now.phase}{why}")


def follow(name: str, cluster: Cluster | None = None, *, seconds: float = 1.0) -> Iterator[JobStatus]:
    """The status now and then about every ``seconds``, from watches: nothing is listed again and again.

    Raises:
        NotFound: there is no such job, or it was deleted meanwhile.
    """
    cluster = cluster or Cluster.connect()
    yield status(name, cluster)
    patient = cluster.patient(3600)
    with (
        Mirror(patient, "Job", fields=f"metadata.name={name}") as jobs,
        Mirror(patient, "Pod", labels=instance(name)) as pods,
        Mirror(patient, "Event", fields=_INTERESTING) as events,
    ):
        nodes, next_nodes = _nodes(cluster), 0.0
        while True:
            job = jobs.objects().get(name)
            if job is None:
                raise NotFound(f"job {name} was deleted")
            if time.monotonic() > next_nodes:
                nodes, next_nodes = _nodes(cluster), time.monotonic() + 5
            workload = _workload(cluster, job)
            yield job_status(job, list(pods.objects().values()), list(events.objects().values()), nodes, workload)
            time.sleep(seconds)


def cancel(name: str, cluster: Cluster | None = None) -> None:
    """Stops the workers, which save first, and keeps the job with its events, progress and output.

    Raises:
        NotFound: there is no such job.
        BadInput: it has ended already.
    """
    cluster = cluster or Cluster.connect()
    job = get_job(cluster, name)
    _check_not_ended(job)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if workload := _workload(cluster, job):
        cluster.patch("Workload", workload["metadata"]["name"], {"spec": {"active": False}})
    change = {"metadata": {"annotations": {CANCELLED_ANNOTATION: now}}, "spec": {"suspend": True}}
    cluster.patch("Job", name, change)


def resume(name: str, cluster: Cluster | None = None, *, training: Sequence[str] = ()) -> Submission:
    """Goes on with a cancelled job, or starts an ended one again from its output, with changed ``training`` flags.

    Raises:
        NotFound: there is no such job.
        BadInput: it is running, or it is only cancelled and can't change its settings.
    """
    cluster = cluster or Cluster.connect()
    job = get_job(cluster, name)
    if not has_ended(job):
        if CANCELLED_ANNOTATION not in (job["metadata"].get("annotations") or {}):
            raise BadInput(f"job {name} has not ended: there is nothing to resume; 'launcher status {name}' shows it")
        if training:
            raise BadInput(f"job {name} is only cancelled and keeps its settings: resume it without any after --")
        if workload := _workload(cluster, job):
            cluster.patch("Workload", workload["metadata"]["name"], {"spec": {"active": True}})
        change: Object = {"metadata": {"annotations": {CANCELLED_ANNOTATION: None}}}
        if QUEUE_LABEL not in job["metadata"].get("labels", {}):
            change["spec"] = {"suspend": False}
        cluster.patch("Job", name, change)
        return Submission(name, cluster.namespace, False, ())
    asked = asked_job(job)
    config = type(asked.training).resolve(
        [Layer("{}", asked.training.model_dump()), type(asked.training).parse_flags(training)]
    )
    delete(name, cluster)
    return submit(asked.model_copy(update={"training": config}), cluster)


def delete(name: str, cluster: Cluster | None = None, *, timeout: float = 120) -> None:
    """Deletes the job with all its objects and returns when they are gone; its output stays.

    Raises:
        NotFound: there is no such job.
        TimedOut: a pod is still ending after ``timeout`` seconds.
    """
    cluster = cluster or Cluster.connect()
    cluster.delete("Job", name, propagation="Foreground")
    deadline = time.monotonic() + timeout
    pause = 0.1
    while True:
        kinds = ("Job", "Pod", "ConfigMap", "Service")
        left = next((kind for kind in kinds if cluster.list(kind, labels=instance(name), metadata_only=True)), None)
        if left is None:
            return
        if time.monotonic() > deadline:
            raise TimedOut(f"job {name} is being deleted, but its {left} is still there after {timeout:g} s")
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def instance(name: str) -> str:
    """The label selector of the workers of a job."""
    return f"{ALL_JOBS},app.kubernetes.io/instance={name},app.kubernetes.io/component=worker"


def _check_not_ended(job: Object) -> None:
    if has_ended(job):
        raise BadInput(f"job {job['metadata']['name']} has ended already")


def _events(cluster: Cluster) -> list[Object]:
    return cluster.list("Event", fields=_INTERESTING)


def _nodes(cluster: Cluster) -> frozenset[str] | None:
    try:
        return frozenset(node["metadata"]["name"] for node in cluster.list("Node", metadata_only=True))
    except (ApiError, Unreachable):  # not everybody may look at nodes
        return None


def _workload(cluster: Cluster, job: Object) -> Object | None:
    """Kueue's object for a job that has a queue."""
    if QUEUE_LABEL not in job["metadata"].get("labels", {}):
        return None
    uid = job["metadata"]["uid"]
    try:
        workloads = cluster.list("Workload")
    except (ApiError, NotFound, Unreachable):  # Kueue is not installed, or its objects may not be read
        return None
    return next((w for w in workloads if any(o["uid"] == uid for o in w["metadata"].get("ownerReferences", []))), None)
