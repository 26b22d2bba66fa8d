"""From a TrainingJob to a running Job: creates what it needs in an order in which nothing is left over."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from launcher.cluster.kubernetes_api import ApiError, Cluster, Object
from launcher.cluster.namespace import Namespace
from launcher.job.manifests import manifests, with_owner
from launcher.job.training_job import TrainingJob
from launcher.operations.admission import try_objects, try_pod
from launcher.operations.submitted import asked_job, has_ended, is_cancelled
from maskfleet.errors import BadInput, MaskfleetError, NotFound

_GARBAGE_SECONDS = 60.0  # for the objects of a deleted job of the same name to go


@dataclass(frozen=True)
class Submission:
    """What ``submit`` did: ``new`` is False where the same job was there already; ``notes`` are for the user."""

    name: str
    namespace: str
    new: bool
    notes: tuple[str, ...]


def submit(job: TrainingJob, cluster: Namespace | None = None, *, dry_run: bool = False) -> Submission:
    """Creates the job's objects and releases it. The same job again finishes what was interrupted.

    With ``dry_run`` the server checks and changes nothing.

    Raises:
        BadInput: a different job has this name.
        ApiError: the server refuses an object; those made before are deleted again.
    """
    cluster = cluster or Cluster.connect()
    if dry_run:
        return _dry_run(job, cluster)
    first, *others = manifests(job)
    new = True
    warnings: list[str] = []
    try:
        made = cluster.create(first, warnings=warnings)
    except ApiError as error:
        if error.status != 409:
            raise
        made, new = cluster.get("Job", job.name), False
        _check_same(job, made)
    try:
        for manifest in others:
            _create_owned(cluster, with_owner(manifest, made))
        # Pod Security never refuses a Job for its pods, but warns of it in its answer, unless told not to. Only then
        # one of the pods is tried: where folders of the node are allowed, this costs no request.
        if job.uses_host_paths and (not new or any("PodSecurity" in warning for warning in warnings)):
            _check_pod_is_allowed(job, cluster, job.service_account or job.name)
    except MaskfleetError:
        if new:
            cluster.delete("Job", job.name)
        raise
    if made["spec"].get("suspend") and not job.queue:
        cluster.patch("Job", job.name, {"spec": {"suspend": False}})
    return Submission(job.name, cluster.namespace, new, notes(job))


def _dry_run(job: TrainingJob, cluster: Namespace) -> Submission:
    """Goes through :func:`submit` with a server that keeps nothing."""
    new = True
    for found in try_objects(job, cluster):
        if found.answer == "refused" and found.error is not None:
            raise found.error
        if found.answer == "exists" and found.kind == "Job":
            _check_same(job, cluster.get("Job", job.name))
            new = False
        elif found.answer == "exists":
            _check_owned(job.name, found.kind, cluster)
    if job.uses_host_paths:
        # The job's own account may not be there yet.
        _check_pod_is_allowed(job, cluster, job.service_account or "default")
    return Submission(job.name, cluster.namespace, new, notes(job))


def _check_owned(name: str, kind: str, cluster: Namespace) -> None:
    """Raises BadInput if the object of this name is not the job's."""
    try:
        owners = cluster.get(kind, name)["metadata"].get("ownerReferences", [])
    except NotFound:  # gone since
        return
    if not any(owner["name"] == name for owner in owners):
        raise _taken(name, kind)


def notes(job: TrainingJob) -> tuple[str, ...]:
    """What the user of a job that starts should know of it."""
    if job.output is None:
        return (
            "without --output the run lives in its chief's pod: it survives a crash of any process, but a lost chief "
            "pod starts it over, and nothing remains when the job is deleted",
        )
    place = job.output_place
    if place and place.kind == "host" and job.workers > 1:
        return ("--output host: is a folder of whichever node the chief runs on; a chief on another node starts over",)
    return ()


def _check_same(asked: TrainingJob, made: Object) -> None:
    """Raises BadInput unless ``made`` was made for the same job and may go on."""
    name = asked.name
    if made["metadata"].get("deletionTimestamp"):
        raise BadInput(f"job {name} is being deleted: wait until 'launcher status {name}' does not find it any more")
    before = asked_job(made).dump()
    now = asked.dump()
    flat_before, flat_now = ({**d, **d["training"]} for d in (before, now))
    different = [key for key in {**flat_before, **flat_now} if flat_before.get(key) != flat_now.get(key)]
    different = [key for key in different if key != "training"]
    if different:
        key = different[0]
        flag = "--" + key.replace("_", "-")
        raise BadInput(
            f"--name {name}: a job of this name exists with {flag} {flat_before.get(key)}, not {flat_now.get(key)}: "
            f"choose another name, or delete it first with 'launcher delete {name}'"
        )
    if has_ended(made):
        raise BadInput(f"--name {name}: this job has ended: 'launcher resume {name}' goes on with it")
    if is_cancelled(made):
        raise BadInput(f"--name {name}: this job is cancelled: 'launcher resume {name}' goes on with it")


def _create_owned(cluster: Namespace, manifest: Object) -> None:
    """Creates an object of the job, or finds that it is there already."""
    uid = manifest["metadata"]["ownerReferences"][0]["uid"]
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    deadline = time.monotonic() + _GARBAGE_SECONDS
    while True:
        try:
            cluster.create(manifest)
            return
        except ApiError as error:
            if error.status != 409:
                raise
        with contextlib.suppress(NotFound):  # gone since: create it
            owners = cluster.get(kind, name)["metadata"].get("ownerReferences", [])
            if any(owner["uid"] == uid for owner in owners):
                return
            # The garbage collector has not yet come to the objects of a deleted job of this name.
            if not any(owner["name"] == name for owner in owners) or time.monotonic() > deadline:
                raise _taken(name, kind)
            time.sleep(0.3)


def _taken(name: str, kind: str) -> BadInput:
    return BadInput(f"--name {name}: there is a {kind} of this name which is not the job's: choose another")


def _check_pod_is_allowed(job: TrainingJob, cluster: Namespace, account: str) -> None:
    """Raises BadInput if Pod Security would refuse the job's pods.

    A quota that is used up now may have room later; the Job waits for it.
    """
    found = try_pod(job, cluster, account)
    if found.is_of_pod_security:
        raise BadInput(
            f"--name {job.name}: {found.reason}; bring the files in by pvc:CLAIM/PATH or a bucket instead of host:"
        )
