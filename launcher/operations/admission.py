"""Whether the server would take a job's objects: it is asked by a dry run, which keeps nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from launcher.cluster.kubernetes_api import ApiError, Object
from launcher.cluster.namespace import Namespace
from launcher.diagnosis import reasons
from launcher.job.code import Code
from launcher.job.manifests import manifests, worker_pod
from launcher.job.training_job import TrainingJob
from maskfleet.errors import MaskfleetError, NotFound
from maskfleet.text import one_line

RIGHTS = ("Role", "RoleBinding")
"""By which the chief's sidecar may put progress and events on the Job. Who may not give them trains without."""


@dataclass(frozen=True)
class Finding:
    """What the server said to one object.

    Attributes:
        answer: ``exists``: there is one of its name; ``untried``: the server could not say, and need not;
            ``left out``: we may not make it, and the job runs without it.
        error: what it answered, unless the object is admitted.
        made: the object as it would be kept, if it is admitted.
    """

    kind: str
    answer: Literal["admitted", "exists", "refused", "untried", "left out"]
    error: MaskfleetError | None = None
    made: Object = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """The refusal in a line; of a pod in the words of the Job's controller, which will meet it."""
        if self.error is None:
            return ""
        if self.kind == "Pod" and isinstance(self.error, ApiError):
            return reasons.refused_creation(str(self.error))
        return one_line(str(self.error))

    @property
    def is_of_pod_security(self) -> bool:
        return isinstance(self.error, ApiError) and self.error.status == 403 and "PodSecurity" in str(self.error)


def try_objects(job: TrainingJob, cluster: Namespace, code: Code | None = None) -> Iterator[Finding]:
    """One finding for each object of the job, the Job's first; ``code`` is the user's own that goes with it."""
    for manifest in manifests(job, code):
        yield _try(manifest, cluster)


def lacks(job: TrainingJob, made: Object) -> str:
    """What the server has not kept of a Job that can't do without; an older one drops what it does not know."""
    spec = made["spec"]
    if not any(each.get("restartPolicy") == "Always" for each in spec["template"]["spec"]["initContainers"]):
        return "this Kubernetes has no sidecar containers, so no trainer would be started: expected 1.29 or newer"
    if job.count.is_range and not spec.get("successPolicy"):
        return (
            "this Kubernetes has no success policy of Jobs, so a range of workers would never be done: expected 1.31 "
            f"or newer, or --workers {job.count.most}"
        )
    return ""


def try_pod(job: TrainingJob, cluster: Namespace, account: str) -> Finding:
    """What the server says to a worker's pod; ``account`` is a ServiceAccount that is there already."""
    return _try(worker_pod(manifests(job)[0], account), cluster)


def _try(manifest: Object, cluster: Namespace) -> Finding:
    kind = manifest["kind"]
    try:
        made = cluster.create(manifest, dry_run=True)
    except ApiError as error:
        if error.status == 409:
            return Finding(kind, "exists", error)
        if kind in RIGHTS and error.is_forbidden:
            return Finding(kind, "left out", error)
        # Nobody but the Job's controller need be able to make its pods.
        untried = (kind == "Pod" and "cannot create resource" in str(error)) or "not support dry run" in str(error)
        return Finding(kind, "untried" if untried else "refused", error)
    except NotFound as error:
        # Only who may do anything may bind a Role that is not there yet, as none is in a dry run.
        return Finding(kind, "untried" if kind == "RoleBinding" else "refused", error)
    return Finding(kind, "admitted", made=made)
