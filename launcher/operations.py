"""What can be done with a job that was submitted: the Python API, which the command line uses too.

Every function takes the :class:`Cluster` to talk to; without one it takes that of the current kubeconfig.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from launcher.job import TrainingJob
from launcher.job_status import CANCELLED_ANNOTATION, DULL_EVENTS, JobStatus, job_status
from launcher.kubernetes_api import ApiError, Cluster, Object, Unreachable
from launcher.manifests import QUEUE_LABEL
from launcher.mirror import Mirror
from launcher.submission import Submission, asked_job, get_job, has_ended, is_cancelled, is_over, submit
from trainer.exit_codes import INTERRUPTED, TIMED_OUT, BadInput, MaskfleetError, NotFound
from trainer.settings import Layer

ALL_JOBS = "app.kubernetes.io/name=maskfleet"
_INTERESTING = ",".join(f"reason!={reason}" for reason in DULL_EVENTS)
_BEYOND_GRACE_SECONDS = 60.0  # for a deleted pod to be gone
_BEHIND_SECONDS = 5.0  # for the watch of the pods to come to what that of their Job has told


class TimedOut(MaskfleetError):
    """What was waited for did not happen in time."""

    exit_code = TIMED_OUT


class NotStartedAgain(MaskfleetError):
    """A job was deleted to be submitted anew, and was not; its settings are in a file."""

    def __init__(self, job: TrainingJob, namespace: str, file: Path, cause: MaskfleetError | KeyboardInterrupt) -> None:
        known = isinstance(cause, MaskfleetError)
        super().__init__(
            f"job {job.name} was being started again and is not ({cause if known else 'interrupted'}): "
            f"'launcher submit -n {namespace} -f {file}' does it; its settings are in that file"
        )
        self.exit_code = cause.exit_code if isinstance(cause, MaskfleetError) else INTERRUPTED


@dataclass(frozen=True)
class Surroundings:
    """What explains the jobs of a namespace beside their pods; asked for once, however many jobs there are.

    ``nodes`` are the names of those that exist, None if they may not be read; ``workloads`` are Kueue's objects.
    """

    events: Sequence[Object]
    nodes: frozenset[str] | None
    workloads: Sequence[Object]

    @classmethod
    def of(cls, cluster: Cluster, jobs: Sequence[Object], *, all_events: bool = False) -> Self:
        """``all_events`` is for those who show them: a status needs only the interesting ones."""
        events = cluster.list("Event", fields="" if all_events else _INTERESTING)
        return cls(events, _nodes(cluster), _workloads(cluster, jobs))

    def status(self, job: Object, pods: Sequence[Object]) -> JobStatus:
        return job_status(job, pods, self.events, self.nodes, _workload_of(job, self.workloads))


def status(name: str, cluster: Cluster | None = None) -> JobStatus:
    """Where the job stands, in one request for each kind of object whatever the number of workers.

    Raises:
        NotFound: there is no such job.
    """
    cluster = cluster or Cluster.connect()
    job = get_job(cluster, name)
    pods = cluster.list("Pod", labels=instance(name))
    return Surroundings.of(cluster, [job]).status(job, pods)


def list_jobs(cluster: Cluster | None = None) -> list[JobStatus]:
    """All jobs of the namespace, the newest first."""
    cluster = cluster or Cluster.connect()
    jobs = cluster.list("Job", labels=ALL_JOBS)
    pods: dict[str, list[Object]] = {}
    for pod in cluster.list("Pod", labels=f"{ALL_JOBS},app.kubernetes.io/component=worker"):
        pods.setdefault(pod["metadata"]["labels"].get("app.kubernetes.io/instance", ""), []).append(pod)
    around = Surroundings.of(cluster, jobs)
    jobs.sort(key=lambda job: job["metadata"]["creationTimestamp"], reverse=True)
    return [around.status(job, pods.get(job["metadata"]["name"], [])) for job in jobs]


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
    patient = cluster.patient(3600)
    now = status(name, cluster)
    if not _is_behind(now):
        yield now
    with (
        Mirror(patient, "Job", fields=f"metadata.name={name}") as jobs,
        Mirror(patient, "Pod", labels=instance(name)) as pods,
        Mirror(patient, "Event", fields=_INTERESTING) as events,
    ):
        nodes, next_nodes, settled = _nodes(cluster), 0.0, float("inf")
        while True:
            job = jobs.objects().get(name)
            if job is None or is_over(job):
                # A watch begins with what the API server remembers, which may be from before a submit or resume.
                job = _asked_anew(name, patient)
            if time.monotonic() > next_nodes:
                nodes, next_nodes = _nodes(cluster), time.monotonic() + 5
            around = Surroundings(list(events.objects().values()), nodes, _workloads(cluster, [job]))
            now = around.status(job, list(pods.objects().values()))
            if _is_behind(now):
                settled = min(settled, time.monotonic() + _BEHIND_SECONDS)
                if time.monotonic() < settled:
                    time.sleep(0.1)
                    continue
            yield now
            time.sleep(seconds)


def _asked_anew(name: str, cluster: Cluster) -> Object:
    try:
        return get_job(cluster, name)
    except NotFound:
        raise NotFound(f"job {name} was deleted") from None


def _is_behind(now: JobStatus) -> bool:
    """Whether the Job is complete and its pods, as far as they are known, are not: what they left is not known yet."""
    return now.phase == "Succeeded" and any(worker.phase != "Succeeded" for worker in now.workers)


def cancel(name: str, cluster: Cluster | None = None) -> tuple[str, ...]:
    """Stops the workers, which save first, and keeps the job with its events, progress and output.

    Returns:
        Notes for the user.

    Raises:
        NotFound: there is no such job.
        BadInput: it has ended already.
    """
    cluster = cluster or Cluster.connect()
    job = get_job(cluster, name)
    _check_not_ended(job)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if workload := _workload_of(job, _workloads(cluster, [job])):
        cluster.patch("Workload", workload["metadata"]["name"], {"spec": {"active": False}})
    change = {"metadata": {"annotations": {CANCELLED_ANNOTATION: now}}, "spec": {"suspend": True}}
    cluster.patch("Job", name, change)
    with contextlib.suppress(BadInput):  # not made by this launcher: where its output goes is not known
        if asked_job(job).output is None:
            return ("without --output its logs and checkpoints go with its pods: a resumed job starts over",)
    return ()


def resume(name: str, cluster: Cluster | None = None, *, training: Sequence[str] = ()) -> Submission:
    """Goes on with a cancelled job, or starts an ended one again from its output, with changed ``training`` flags.

    An ended job is deleted and submitted anew. Should that be interrupted, a file keeps what has to be submitted.

    Raises:
        NotFound: there is no such job.
        BadInput: it is running, or it is only cancelled and can't change its settings, or the settings are wrong;
            nothing was changed.
        NotStartedAgain: it was deleted and not submitted again; the message names the file.
    """
    cluster = cluster or Cluster.connect()
    job = get_job(cluster, name)
    if not has_ended(job):
        if not is_cancelled(job):
            raise BadInput(f"job {name} has not ended: there is nothing to resume; 'launcher status {name}' shows it")
        if training:
            raise BadInput(f"job {name} is only cancelled and keeps its settings: resume it without any after --")
        if workload := _workload_of(job, _workloads(cluster, [job])):
            cluster.patch("Workload", workload["metadata"]["name"], {"spec": {"active": True}})
        change: Object = {"metadata": {"annotations": {CANCELLED_ANNOTATION: None}}}
        if QUEUE_LABEL not in job["metadata"].get("labels", {}):
            change["spec"] = {"suspend": False}
        cluster.patch("Job", name, change)
        return Submission(name, cluster.namespace, False, ())
    asked = asked_job(job)
    changed = [Layer("{}", asked.training.model_dump()), type(asked.training).parse_flags(training)]
    return _start_again(asked.with_training(type(asked.training).resolve(changed)), cluster)


def _start_again(job: TrainingJob, cluster: Cluster) -> Submission:
    with tempfile.NamedTemporaryFile("w", prefix=f"maskfleet-{job.name}-", suffix=".yaml", delete=False) as kept:
        kept.write(job.to_yaml())
    file = Path(kept.name)
    going = False
    try:
        cluster.delete("Job", job.name, propagation="Foreground")
        going = True
        _until_gone(job.name, cluster, job.grace_seconds + _BEYOND_GRACE_SECONDS)
        done = submit(job, cluster)
    except (MaskfleetError, KeyboardInterrupt) as error:
        if isinstance(error, ApiError | NotFound) and not going:  # the server refused: nothing has changed
            file.unlink()
            raise
        raise NotStartedAgain(job, cluster.namespace, file, error) from error
    file.unlink()
    return done


def delete(name: str, cluster: Cluster | None = None, *, timeout: float | None = None) -> None:
    """Deletes the job with all its objects and returns when they are gone; its output stays.

    Without ``timeout`` it waits for a minute longer than the pods have to stream what is left; they need seconds.

    Raises:
        NotFound: there is no such job, or it is not the launcher's.
        TimedOut: a pod is still ending after ``timeout`` seconds.
    """
    cluster = cluster or Cluster.connect()
    pod = get_job(cluster, name)["spec"]["template"]["spec"]
    cluster.delete("Job", name, propagation="Foreground")
    if timeout is None:
        timeout = pod["terminationGracePeriodSeconds"] + _BEYOND_GRACE_SECONDS
    _until_gone(name, cluster, timeout)


def _until_gone(name: str, cluster: Cluster, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    pause = 0.1
    while True:
        kinds = ("Job", "Pod", "ConfigMap", "Service")
        left = next((kind for kind in kinds if cluster.list(kind, labels=instance(name), metadata_only=True)), None)
        if left is None:
            return
        if time.monotonic() > deadline:
            raise TimedOut(
                f"job {name} is being deleted, but its {left} is still there after {timeout:g} s; "
                f"'launcher status {name}' shows its pods"
            )
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def instance(name: str) -> str:
    """The label selector of the workers of a job."""
    return f"{ALL_JOBS},app.kubernetes.io/instance={name},app.kubernetes.io/component=worker"


def _check_not_ended(job: Object) -> None:
    if has_ended(job):
        raise BadInput(f"job {job['metadata']['name']} has ended already")


def _nodes(cluster: Cluster) -> frozenset[str] | None:
    try:
        return frozenset(node["metadata"]["name"] for node in cluster.list("Node", metadata_only=True))
    except (ApiError, Unreachable):  # not everybody may look at nodes
        return None


def _workloads(cluster: Cluster, jobs: Sequence[Object]) -> list[Object]:
    """Kueue's objects, if any of the jobs has a queue."""
    if not any(QUEUE_LABEL in job["metadata"].get("labels", {}) for job in jobs):
        return []
    try:
        return cluster.list("Workload")
    except (ApiError, NotFound, Unreachable):  # Kueue is not installed, or its objects may not be read
        return []


def _workload_of(job: Object, workloads: Sequence[Object]) -> Object | None:
    uid = job["metadata"].get("uid")
    return next((w for w in workloads if any(o["uid"] == uid for o in w["metadata"].get("ownerReferences", []))), None)
