"""What a job that was submitted is, by its object."""

from __future__ import annotations

import base64

from pydantic import ValidationError

from launcher.cluster.kubernetes_api import Object
from launcher.cluster.namespace import Namespace
from launcher.diagnosis.jobs import is_being_deleted
from launcher.job.code import FILE as CODE_FILE
from launcher.job.code import Code
from launcher.job.labels import (
    APPLICATION,
    CANCELLED_ANNOTATION,
    CODE_ANNOTATION,
    INSTANCE_LABEL,
    JOB_ANNOTATION,
    NAME_LABEL,
    annotations_of,
    labels_of,
)
from launcher.job.training_job import TrainingJob
from maskfleet.errors import BadInput, NotFound
from maskfleet.text import one_line


def get_job(cluster: Namespace, name: str) -> Object:
    """The Kubernetes Job.

    Raises:
        NotFound: there is none, or it is not the launcher's.
    """
    try:
        job = cluster.get("Job", name)
    except NotFound as error:
        raise NotFound(
            f"there is no job {name} in namespace {cluster.namespace}; 'launcher list' shows them"
        ) from error
    labels = labels_of(job)
    if labels.get(NAME_LABEL) != APPLICATION:
        raise NotFound(f"job {name} in namespace {cluster.namespace} is not a training job")
    if labels.get(INSTANCE_LABEL) != name:
        raise NotFound(
            f"job {name} in namespace {cluster.namespace} is not the launcher's: expected its name in the label "
            f"{INSTANCE_LABEL} of the Job, its pods and its other objects, found "
            f"{one_line(str(labels.get(INSTANCE_LABEL)), 100)}; kubectl shows it"
        )
    return job


def asked_job(job: Object) -> TrainingJob:
    """What the user asked for, as it is kept on the Kubernetes Job.

    Raises:
        BadInput: it was made by hand, or by a launcher whose settings this one does not know.
    """
    text = annotations_of(job).get(JOB_ANNOTATION)
    name = job["metadata"]["name"]
    if text is None:
        raise BadInput(
            f"job {name} was not made by the launcher: its annotation {JOB_ANNOTATION} is missing, so its settings are "
            "not known; start it anew as it was made"
        )
    try:
        return TrainingJob.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise BadInput(f"job {name} was made by another version of the launcher: {place}: {problem['msg']}") from error


def submitted_code(asked: TrainingJob, job: Object, cluster: Namespace) -> Code | None:
    """The user's own code that a job was submitted with, whatever its folder holds by now; None of one without.

    Raises:
        NotFound: its ConfigMap is gone.
    """
    known = annotations_of(job).get(CODE_ANNOTATION)
    if asked.code is None or known is None:
        return None
    kept = cluster.get("ConfigMap", asked.name).get("binaryData", {}).get(CODE_FILE)
    return Code(known, None if kept is None else base64.b64decode(kept))


def is_cancelled(job: Object) -> bool:
    """Whether 'launcher cancel' has stopped it; a Job may be suspended for other reasons, such as a queue."""
    return CANCELLED_ANNOTATION in annotations_of(job) and bool(job.get("spec", {}).get("suspend"))


def has_ended(job: Object) -> bool:
    """Whether it is complete or has failed."""
    conditions = job.get("status", {}).get("conditions", [])
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def is_finished(job: Object) -> bool:
    """Whether it has ended, is cancelled or is being deleted: nothing more comes of it by itself."""
    return has_ended(job) or is_cancelled(job) or is_being_deleted(job)


def check_not_being_deleted(job: Object) -> None:
    """Raises BadInput of a job whose deletion has begun, which nothing can undo."""
    if is_being_deleted(job):
        name = job["metadata"]["name"]
        raise BadInput(f"job {name} is being deleted: 'launcher status {name}' shows what that waits for")
