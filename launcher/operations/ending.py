"""What ends a job, and starts an ended one again."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from launcher.cluster.kubernetes_api import ApiError, Cluster, Object
from launcher.cluster.namespace import Namespace
from launcher.job.labels import CANCELLED_ANNOTATION, QUEUE_LABEL, instance, labels_of
from launcher.job.training_job import TrainingJob
from launcher.operations.submission import Submission, submit
from launcher.operations.submitted import asked_job, get_job, has_ended, is_cancelled
from launcher.operations.surroundings import workload_of, workloads_of
from maskfleet.backoff import pauses
from maskfleet.errors import INTERRUPTED, BadInput, MaskfleetError, NotFound, TimedOut
from maskfleet.settings import Layer

_BEYOND_GRACE_SECONDS = 60.0  # for a deleted pod to be gone


class NotStartedAgain(MaskfleetError):
    """A job was deleted to be submitted anew, and was not; its settings are in a file."""

    def __init__(self, job: TrainingJob, namespace: str, file: Path, cause: MaskfleetError | KeyboardInterrupt) -> None:
        known = isinstance(cause, MaskfleetError)
        super().__init__(
            f"job {job.name} was being started again and is not ({cause if known else 'interrupted'}): "
            f"'launcher submit -n {namespace} -f {file}' does it; its settings are in that file"
        )
        self.exit_code = cause.exit_code if isinstance(cause, MaskfleetError) else INTERRUPTED


def cancel(name: str, cluster: Namespace | None = None) -> tuple[str, ...]:
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
    if workload := workload_of(job, workloads_of(cluster, [job])):
        cluster.patch("Workload", workload["metadata"]["name"], {"spec": {"active": False}})
    change = {"metadata": {"annotations": {CANCELLED_ANNOTATION: now}}, "spec": {"suspend": True}}
    cluster.patch("Job", name, change)
    with contextlib.suppress(BadInput):  # not made by this launcher: where its output goes is not known
        if asked_job(job).output is None:
            return ("without --output its logs and checkpoints go with its pods: a resumed job starts over",)
    return ()


def resume(name: str, cluster: Namespace | None = None, *, training: Sequence[str] = ()) -> Submission:
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
        if workload := workload_of(job, workloads_of(cluster, [job])):
            cluster.patch("Workload", workload["metadata"]["name"], {"spec": {"active": True}})
        change: Object = {"metadata": {"annotations": {CANCELLED_ANNOTATION: None}}}
        if QUEUE_LABEL not in labels_of(job):
            change["spec"] = {"suspend": False}
        cluster.patch("Job", name, change)
        return Submission(name, cluster.namespace, False, ())
    asked = asked_job(job)
    changed = [Layer("{}", asked.training.model_dump()), type(asked.training).parse_flags(training)]
    return _start_again(asked.with_training(type(asked.training).resolve(changed)), cluster)


def _start_again(job: TrainingJob, cluster: Namespace) -> Submission:
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


def delete(name: str, cluster: Namespace | None = None, *, timeout: float | None = None) -> None:
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


def _until_gone(name: str, cluster: Namespace, timeout: float) -> None:
    kinds = ("Job", "Pod", "ConfigMap", "Service")
    waits = pauses(0.1, 1.0, timeout=timeout)
    while True:
        left = next((kind for kind in kinds if cluster.list(kind, labels=instance(name), metadata_only=True)), None)
        if left is None:
            return
        pause = next(waits, None)
        if pause is None:
            raise TimedOut(
                f"job {name} is being deleted, but its {left} is still there after {timeout:g} s; "
                f"'launcher status {name}' shows its pods"
            )
        time.sleep(pause)


def _check_not_ended(job: Object) -> None:
    if has_ended(job):
        raise BadInput(f"job {job['metadata']['name']} has ended already")
