"""What a job that was submitted is, by its object."""

from __future__ import annotations

from pydantic import ValidationError

from launcher.cluster.kubernetes_api import Object
from launcher.cluster.namespace import Namespace
from launcher.job.labels import APPLICATION, CANCELLED_ANNOTATION, JOB_ANNOTATION, NAME_LABEL, annotations_of, labels_of
from launcher.job.training_job import TrainingJob
from maskfleet.errors import BadInput, NotFound


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
    if labels_of(job).get(NAME_LABEL) != APPLICATION:
        raise NotFound(f"job {name} in namespace {cluster.namespace} is not a training job")
    return job


def asked_job(job: Object) -> TrainingJob:
    """What the user asked for, as it is kept on the Kubernetes Job.

    Raises:
        BadInput: it was made by hand, or by a launcher whose settings this one does not know.
    """
    text = annotations_of(job).get(JOB_ANNOTATION)
    name = job["metadata"]["name"]
    if text is None:
        raise BadInput(f"job {name} was not made by the launcher: its annotation {JOB_ANNOTATION} is missing")
    try:
        return TrainingJob.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise BadInput(f"job {name} was made by another version of the launcher: {place}: {problem['msg']}") from error


def is_cancelled(job: Object) -> bool:
    """Whether 'launcher cancel' has stopped it; a Job may be suspended for other reasons, such as a queue."""
    return CANCELLED_ANNOTATION in annotations_of(job)


def has_ended(job: Object) -> bool:
    """Whether it is complete or has failed."""
    conditions = job.get("status", {}).get("conditions", [])
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions)


def is_finished(job: Object) -> bool:
    """Whether it has ended or is cancelled: nothing more comes of it by itself."""
    return has_ended(job) or is_cancelled(job)
