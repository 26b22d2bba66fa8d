"""What ends a job, and starts an ended one again."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from launcher.cluster.kubernetes_api import ApiError, Cluster, Object
from launcher.cluster.namespace import Namespace
from launcher.diagnosis.jobs import waits_for
from launcher.diagnosis.reasons import steady
from launcher.job.code import Code
from launcher.job.labels import QUEUE_LABEL, instance, instance_objects, labels_of
from launcher.job.manifests import kinds, manifests
from launcher.job.training_job import TrainingJob
from launcher.operations.gangs import check_range
from launcher.operations.scaling import parse_workers, scale
from launcher.operations.submission import Submission, submit
from launcher.operations.submitted import (
    asked_job,
    check_not_being_deleted,
    get_job,
    has_ended,
    is_cancelled,
    submitted_code,
)
from launcher.operations.surroundings import NamespaceView, workload_of, workloads_of
from launcher.operations.suspension import release, suspend
from maskfleet.backoff import pauses
from maskfleet.config import TrainConfig
from maskfleet.errors import INTERRUPTED, BadInput, MaskfleetError, NotFound, TimedOut
from maskfleet.settings import Layer
from maskfleet.text import some_of
from maskfleet.worker_count import WorkerCount

_BEYOND_GRACE_SECONDS = 60.0  # for a deleted pod to be gone
_NOTICE_SECONDS = 5.0  # before and between lines that say what a deletion waits for
_LISTED = ("ConfigMap", "Service")
"""Kinds that are listed at each deletion: whoever may submit may do that."""


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
        BadInput: it has ended already, or is being deleted.
    """
    cluster = cluster or Cluster.connect()
    job = get_job(cluster, name)
    check_not_being_deleted(job)
    _check_not_ended(job)
    if not is_cancelled(job):
        if workload := workload_of(job, workloads_of(cluster, [job])):
            cluster.patch("Workload", workload["metadata"]["name"], {"spec": {"active": False}})
        suspend(name, cluster)
    with contextlib.suppress(BadInput):  # not made by this launcher: where its output goes is not known
        if asked_job(job).output is None:
            return ("without --output its logs and checkpoints go with its pods: a resumed job starts over",)
    return ()


def resume(
    name: str,
    cluster: Namespace | None = None,
    *,
    training: Sequence[str] = (),
    workers: WorkerCount | int | str | None = None,
) -> Submission:
    """Goes on with a cancelled or suspended job, or starts an ended one again from its output.

    An ended job is deleted and submitted anew, with changed ``training`` flags. Should that be interrupted, a file
    keeps what has to be submitted. ``workers`` is another number of them; a step keeps its examples.

    Raises:
        NotFound: there is no such job.
        BadInput: it is running or is being deleted, or it is only stopped and can't change its settings, or they are
            wrong; nothing was changed.
        NotStartedAgain: it was deleted and not submitted again; the message names the file.
    """
    cluster = cluster or Cluster.connect()
    job = get_job(cluster, name)
    check_not_being_deleted(job)
    if not has_ended(job):
        workload = workload_of(job, workloads_of(cluster, [job]))
        _check_stopped(job, workload, cluster)
        if training:
            raise BadInput(f"job {name} is only cancelled and keeps its settings: resume it without any after --")
        if workers is not None:
            scale(name, workers, cluster)
        if workload:
            cluster.patch("Workload", workload["metadata"]["name"], {"spec": {"active": True}})
        release(job, cluster, by_queue=bool(workload) or QUEUE_LABEL in labels_of(job))
        return Submission(name, cluster.namespace, False, ())
    asked = asked_job(job)
    code = submitted_code(asked, job, cluster)
    if workers is not None:
        asked = asked.with_workers(parse_workers(workers))
    flags = TrainConfig.parse_flags(training)
    changed = TrainConfig.overlaid([Layer("{}", asked.training.model_dump())], flags)
    return _start_again(asked.with_training(changed), cluster, code)


def _check_stopped(job: Object, workload: Object | None, cluster: Namespace) -> None:
    """Raises BadInput unless somebody has stopped the job, by 'launcher cancel' or otherwise."""
    name = job["metadata"]["name"]
    if is_cancelled(job) or (workload or {}).get("spec", {}).get("active") is False:
        return
    why = f"has not ended: there is nothing to resume; 'launcher status {name}' shows it"
    if job["spec"].get("suspend"):
        now = NamespaceView.of(cluster, [job]).status(job, cluster.list("Pod", labels=instance(name)))
        if now.phase == "Suspended":
            return
        why = f"has not begun: {now.reason}"
    raise BadInput(f"job {name} {why}")


def _start_again(job: TrainingJob, cluster: Namespace, code: Code | None) -> Submission:
    manifests(job, code)  # what can't be made is refused while the job is still there
    check_range(job, cluster)
    kept = _kept_files(job, code)
    file = kept[0]
    going = False
    try:
        loose = any(_loose(job.name, cluster, _LISTED))
        cluster.delete("Job", job.name, propagation="Foreground")
        going = True
        _until_gone(job.name, cluster, job.grace_seconds + _BEYOND_GRACE_SECONDS)
        if loose:
            _delete_loose(job.name, cluster)
        done = submit(job, cluster, code=code)
    except (MaskfleetError, KeyboardInterrupt) as error:
        if isinstance(error, ApiError | NotFound) and not going:  # the server refused: nothing has changed
            _remove(kept)
            raise
        raise NotStartedAgain(job, cluster.namespace, file, error) from error
    _remove(kept)
    return done


def _kept_files(job: TrainingJob, code: Code | None) -> list[Path]:
    """What submits the job should this be interrupted: its settings, and the code that went with its ConfigMap."""
    with tempfile.NamedTemporaryFile("w", prefix=f"maskfleet-{job.name}-", suffix=".yaml", delete=False) as kept:
        files = [Path(kept.name)]
        if code is not None and code.archive is not None:
            files.append(files[0].with_suffix(".zip"))
            files[1].write_bytes(code.archive)
            job = job.model_copy(update={"code": files[1]})
        kept.write(job.to_yaml())
    return files


def _remove(files: Sequence[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def delete(
    name: str,
    cluster: Namespace | None = None,
    *,
    timeout: float | None = None,
    report_line: Callable[[str], None] = lambda text: None,
) -> None:
    """Deletes the job with all its objects and returns when they are gone; its output stays.

    Objects that kubectl has made do not go with the Job: those that carry the job's labels are deleted after it, also
    if the Job itself is gone already. Without ``timeout`` it waits for a minute longer than the pods have to stream
    what is left; they need seconds. ``report_line`` gets what is waited for.

    Raises:
        NotFound: there is no such job, or it is not the launcher's.
        TimedOut: something is still there after ``timeout`` seconds; the message says what keeps it.
        MaskfleetError: an object that kubectl has made may not be deleted.
    """
    cluster = cluster or Cluster.connect()
    job = find_job(name, cluster)
    loose = any(_loose(name, cluster, _LISTED))
    if job is not None:
        cluster.delete("Job", name, propagation="Foreground")
        if timeout is None:
            grace = job["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)  # Kubernetes' own default
            timeout = grace + _BEYOND_GRACE_SECONDS
        _until_gone(name, cluster, timeout, report_line)
    if loose or job is None:
        _delete_loose(name, cluster)


def find_job(name: str, cluster: Namespace) -> Object | None:
    """The Job that :func:`delete` would delete; None where only other objects of it are left.

    Raises:
        NotFound: there is neither, or the Job is not the launcher's.
    """
    try:
        return get_job(cluster, name)
    except NotFound:
        gone = not cluster.list("Job", fields=f"metadata.name={name}", metadata_only=True)
        if gone and any(_loose(name, cluster, _LISTED)):
            return None
        raise


def _loose(name: str, cluster: Namespace, of_kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Kind and name of the job's objects that nobody owns, by their labels."""
    for kind in of_kinds:
        for each in cluster.list(kind, labels=instance_objects(name), metadata_only=True):
            if not each["metadata"].get("ownerReferences"):
                yield kind, each["metadata"]["name"]


def _delete_loose(name: str, cluster: Namespace) -> None:
    refused = []
    for kind in (*kinds(), "Pod"):  # of a Job that was deleted without what it owns
        try:
            for _, found in _loose(name, cluster, [kind]):
                with contextlib.suppress(NotFound):
                    cluster.delete(kind, found)
        except ApiError as error:
            refused.append(f"{kind}: {error}")
    if refused:
        raise MaskfleetError(f"job {name} is deleted, but not all of its objects: {some_of(refused, most=3)}")


def _until_gone(
    name: str, cluster: Namespace, timeout: float, report_line: Callable[[str], None] = lambda text: None
) -> None:
    waits = pauses(0.1, 1.0, timeout=timeout)
    said, notice = "", time.monotonic() + _NOTICE_SECONDS
    while True:
        left = next((kind for kind in ("Job", "Pod", *_LISTED) if _is_left(kind, name, cluster)), None)
        if left is None:
            return
        pause = next(waits, None)
        if pause is None or time.monotonic() > notice:
            held = _held_up(name, cluster)
            if pause is None:
                raise TimedOut(
                    f"job {name} is being deleted, but its {left} is still there after {timeout:g} s"
                    + (f": it waits for {held}" if held else "")
                    + f"; 'launcher status {name}' shows its pods"
                )
            if held and steady(held) != said:
                report_line(f"waits for {held}")
                said = steady(held)
            notice = time.monotonic() + _NOTICE_SECONDS
        time.sleep(pause)


def _is_left(kind: str, name: str, cluster: Namespace) -> bool:
    found = cluster.list(kind, labels=instance(name), metadata_only=True)
    return any(kind not in _LISTED or each["metadata"].get("ownerReferences") for each in found)


def _held_up(name: str, cluster: Namespace) -> str:
    found = ((kind, cluster.list(kind, labels=instance(name), metadata_only=True)) for kind in ("Job", "Pod"))
    return waits_for((kind, each) for kind, objects in found for each in objects)


def _check_not_ended(job: Object) -> None:
    if has_ended(job):
        raise BadInput(f"job {job['metadata']['name']} has ended already")
