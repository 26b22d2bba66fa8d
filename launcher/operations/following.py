"""What can be done with a job that was submitted: the Python API, which the command line uses too.

Every function takes the :class:`Cluster` to talk to; without one it takes that of the current kubeconfig.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from launcher.cluster.kubernetes_api import Cluster, Object
from launcher.cluster.namespace import Namespace
from launcher.cluster.watched import Watched
from launcher.diagnosis.job_status import JobStatus
from launcher.diagnosis.reasons import steady
from launcher.job.labels import (
    ALL_JOBS,
    ALL_WORKERS,
    INSTANCE_LABEL,
    JOB_NAME_LABEL,
    instance,
    labels_of,
    namespace_of,
)
from launcher.operations.submitted import get_job, is_finished
from launcher.operations.surroundings import (
    INTERESTING_EVENTS,
    NamespaceView,
    node_names,
    pods_of_all,
    seen,
    workloads_of,
)
from maskfleet.errors import NotFound, TimedOut

_BEHIND_SECONDS = 5.0  # for the watch of the pods to come to what that of their Job has told


def status(name: str, cluster: Namespace | None = None) -> JobStatus:
    """Where the job stands, in one request for each kind of object whatever the number of workers.

    Raises:
        NotFound: there is no such job.
    """
    cluster = cluster or Cluster.connect()
    job = get_job(cluster, name)
    pods = cluster.list("Pod", labels=instance(name))
    around = replace(NamespaceView.of(cluster, [job]), others=pods_of_all(cluster, pods))
    return around.with_said(cluster, pods).status(job, pods)


def list_jobs(cluster: Namespace | None = None, *, everywhere: bool = False) -> list[JobStatus]:
    """All jobs of the namespace, or of all namespaces, the newest first.

    Raises:
        ApiError: with status 403, they may not be seen.
    """
    cluster = cluster or Cluster.connect()
    jobs = cluster.list("Job", labels=ALL_JOBS, everywhere=everywhere)
    pods: dict[tuple[str, str], list[Object]] = {}
    everyone = cluster.list("Pod", labels=ALL_WORKERS, everywhere=everywhere)
    for pod in everyone:
        labels = labels_of(pod)
        job = labels.get(JOB_NAME_LABEL) or labels.get(INSTANCE_LABEL, "")
        pods.setdefault((namespace_of(pod), job), []).append(pod)
    all_around = replace(NamespaceView.of(cluster, jobs, everywhere=everywhere), others=everyone)
    around = {namespace: all_around.within(namespace) for namespace in set(map(namespace_of, jobs))}
    jobs = sorted(jobs, key=lambda job: job["metadata"]["creationTimestamp"], reverse=True)
    return [
        around[namespace].status(job, pods.get((namespace, job["metadata"]["name"]), []))
        for job, namespace in zip(jobs, map(namespace_of, jobs), strict=True)
    ]


def wait(
    name: str,
    cluster: Namespace | None = None,
    *,
    timeout: float | None = None,
    on_change: Callable[[JobStatus], None] | None = None,
) -> JobStatus:
    """Waits until the job has ended, over outages of the API server; ``on_change`` gets every new phase or reason.

    A reason is not new for another id, pause or time in it.

    Raises:
        NotFound: there is no such job, or it was deleted meanwhile.
        TimedOut: it has not ended after ``timeout`` seconds.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    seen = None
    for now in follow(name, cluster):
        if on_change and (now.phase, steady(now.reason)) != seen:
            seen = (now.phase, steady(now.reason))
            on_change(now)
        if now.ended:
            return now
        if deadline is not None and time.monotonic() > deadline:
            break
    why = f": {now.reason}" if now.reason else ""
    raise TimedOut(f"job {name} has not ended after {timeout:g} s; it is {now.phase}{why}")


def follow(name: str, cluster: Namespace | None = None, *, seconds: float = 1.0) -> Iterator[JobStatus]:
    """The status now and then about every ``seconds``, from watches: nothing is listed again and again.

    Raises:
        NotFound: there is no such job, or it was deleted meanwhile.
    """
    cluster = cluster or Cluster.connect()
    patient = cluster.patient(3600)
    now = status(name, cluster)
    if not _is_behind(now):
        yield now
    with (
        Watched(patient, "Job", fields=f"metadata.name={name}") as jobs,
        Watched(patient, "Pod", labels=instance(name)) as pods,
        Watched(patient, "Event", fields=INTERESTING_EVENTS) as events,
    ):
        next_look, settled = 0.0, float("inf")
        while True:
            job = jobs.objects().get(name)
            if job is None or is_finished(job):
                # A watch begins with what the API server remembers, which may be from before a submit or resume.
                job = _asked_anew(name, patient)
            happened = seen(lambda: list(events.objects().values()))
            there = list(pods.objects().values())
            if time.monotonic() > next_look:
                nodes, others = node_names(cluster), pods_of_all(cluster, there)
                next_look = time.monotonic() + 5
            around = NamespaceView(happened, nodes, workloads_of(cluster, [job]), others=others)
            now = around.with_said(cluster, there).status(job, there)
            if _is_behind(now):
                settled = min(settled, time.monotonic() + _BEHIND_SECONDS)
                if time.monotonic() < settled:
                    time.sleep(0.1)
                    continue
            yield now
            time.sleep(seconds)


def _asked_anew(name: str, cluster: Namespace) -> Object:
    try:
        return get_job(cluster, name)
    except NotFound as error:
        raise NotFound(f"job {name} was deleted") from error


def _is_behind(now: JobStatus) -> bool:
    """Whether the Job is complete and its pods, as far as they are known, are not: what they left is not known yet."""
    return now.phase == "Succeeded" and any(each.pod and each.phase != "Succeeded" for each in now.workers)
