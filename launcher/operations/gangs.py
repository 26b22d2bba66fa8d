"""Whether a job's workers are placed all at once or none: by Kubernetes itself, or by the scheduler it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from launcher.cluster.kubernetes_api import Object
from launcher.cluster.namespace import Namespace
from launcher.diagnosis.placement import is_gang
from launcher.diagnosis.reasons import SCHEDULER
from launcher.job.labels import GANG_SCHEDULERS, annotations_of, instance
from launcher.job.training_job import TrainingJob
from launcher.operations.named_objects import Check, Result
from launcher.operations.surroundings import seen
from maskfleet.errors import BadInput, NotFound
from maskfleet.text import one_line

_ONE_BY_ONE = "workers are placed one by one, as room appears"
_NOT_KNOWN = "nothing tells whether the scheduler runs; if not, the pods wait for ever"


# https://github.com/kubernetes-sigs/scheduler-plugins, pkg/coscheduling; it runs under any name.
_COSCHEDULING = ("scheduling.x-k8s.io", "scheduling.x-k8s.io/pod-group")
"""Its API group, and the label of pods that names their PodGroup."""


def is_placed_as_gang(job: Object, cluster: Namespace) -> bool:
    """Whether a job that was submitted is placed all at once or not at all, also while it has no pods."""
    if annotations_of(job).keys() & {gang.annotation for gang in GANG_SCHEDULERS.values()}:
        return True
    groups = _pod_groups("", cluster)
    if groups == "hidden":
        return is_gang(cluster.list("Pod", labels=instance(job["metadata"]["name"])))
    return groups != "none" and any(_is_of_job(group, job["metadata"]["uid"]) for group in groups)


def check_range(job: TrainingJob, cluster: Namespace) -> None:
    """Raises BadInput if it has a range of workers and Kubernetes is known to make a gang of each Job here."""
    if not job.count.is_range:
        return
    groups = _pod_groups("", cluster)
    if groups != "none" and groups != "hidden" and any(map(_is_of_job, groups)):
        raise BadInput(_refusal_of_range(job))


def check_gang(job: TrainingJob, cluster: Namespace) -> list[Check]:
    """One line, or none for a single worker of Kubernetes' own scheduler."""
    name = job.scheduler_name or SCHEDULER
    if name == SCHEDULER:
        return [Check("gang", *_of_kubernetes(job, cluster))] if job.count.most > 1 else []
    what = f"scheduler {name}"
    if gang := GANG_SCHEDULERS.get(name):
        if _pod_groups(gang.group, cluster) == "none":
            return [Check(what, "no", f"the server has no PodGroups of {gang.group}: {name} is not installed")]
        together = f"at least {job.count.least} of" if job.count.is_range else "all"
        placed = f"places {together} {job.count.most} workers at once or none; " if job.count.most > 1 else ""
        return [Check(what, "unknown", placed + _NOT_KNOWN)]
    if group := dict(job.pod_labels).get(_COSCHEDULING[1]):
        return [Check(what, *_of_coscheduling(group, job, cluster))]
    return [Check(what, "unknown", _NOT_KNOWN)]


def _of_kubernetes(job: TrainingJob, cluster: Namespace) -> tuple[Result, str]:
    """What the server serves, and has made of other Jobs: the gate of the Job's controller shows nowhere else."""
    groups = _pod_groups("", cluster)
    if groups == "none":
        return "ok", f"none: the server has no PodGroups, so {_ONE_BY_ONE}"
    if groups == "hidden":
        return "unknown", "PodGroups may not be listed"
    if any(map(_is_of_job, groups)):
        if job.count.is_range:
            return "no", _refusal_of_range(job)
        return "ok", f"all {job.workers} workers are placed at once or none: Kubernetes makes PodGroups of Jobs here"
    return "unknown", (
        "the server has PodGroups; whether it makes one of each Job (feature gate WorkloadWithJob) shows with the "
        f"first job of several workers in this namespace: if not, {_ONE_BY_ONE}"
    )


def _refusal_of_range(job: TrainingJob) -> str:
    return (
        f"--workers {job.workers}: Kubernetes makes PodGroups of Jobs here, so that all {job.count.most} are placed at "
        "once or none: expected a number"
    )


def _of_coscheduling(name: str, job: TrainingJob, cluster: Namespace) -> tuple[Result, str]:
    groups = _pod_groups(_COSCHEDULING[0], cluster)
    if groups == "none":
        return "no", f"the server has no PodGroups of {_COSCHEDULING[0]}: coscheduling is not installed"
    if groups == "hidden":
        return "unknown", f"PodGroups may not be listed; {_NOT_KNOWN}"
    by_name = {group["metadata"]["name"]: group for group in groups}
    if name not in by_name:
        there = ", ".join(sorted(by_name)[:5]) or "none in this namespace"
        return "no", f"PodGroup {name} is missing; there is {there}"
    least = by_name[name].get("spec", {}).get("minMember", 1)
    if least != job.count.least:
        found = one_line(str(least), 20)
        return "no", f"PodGroup {name} has minMember {found}, expected the workers, {job.count.least}"
    return "unknown", f"PodGroup {name} is a gang of {least}; {_NOT_KNOWN}"


def _pod_groups(group: str, cluster: Namespace) -> Sequence[Object] | Literal["none", "hidden"]:
    """Those of a scheduler's API group, or of Kubernetes' own: ``none`` where the server has no such kind."""
    try:
        found = seen(lambda: cluster.list(f"PodGroup.{group}" if group else "PodGroup"))
    except NotFound:
        return "none"
    return "hidden" if found is None else found


def _is_of_job(group: Object, uid: str | None = None) -> bool:
    """Whether a PodGroup is that of a Job, or of the Job with this uid."""
    owners = group["metadata"].get("ownerReferences", [])
    return any(owner["kind"] == "Job" and uid in (None, owner["uid"]) for owner in owners)
