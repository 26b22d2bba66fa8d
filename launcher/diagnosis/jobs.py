"""What a Job's object says of itself: who has suspended it, and what its deletion waits for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from launcher.job.labels import FIELD_MANAGER
from maskfleet.text import some_of

Object = Mapping[str, Any]

# Those of the garbage collector and of the Job's controller, which take them away by themselves.
_KUBERNETES_OWN = ("foregroundDeletion", "orphan", "batch.kubernetes.io/job-tracking")


def is_being_deleted(job: Object) -> bool:
    return bool(job["metadata"].get("deletionTimestamp"))


def suspended_by(job: Object) -> str | None:
    """Who else than the launcher has suspended a Job: the name under which the API server notes the change.

    None if the launcher did, or if it is not known; and of a Job that is not suspended.
    """
    if not job.get("spec", {}).get("suspend"):
        return None
    for entry in job["metadata"].get("managedFields") or []:
        manager = entry.get("manager", "")
        if "f:suspend" in (entry.get("fieldsV1") or {}).get("f:spec", {}) and manager != FIELD_MANAGER:
            return str(manager)
    return None


def waits_for(objects: Iterable[tuple[str, Object]]) -> str:
    """What a deletion waits for, of the objects (with their kinds) that are still there; empty if nothing is known to.

    A finalizer is named before pods that take their time: it may wait for ever.
    """
    held, ending = [], []
    for kind, each in objects:
        metadata = each["metadata"]
        name = f"{kind} {metadata['name']}"
        foreign = [item for item in metadata.get("finalizers") or [] if item not in _KUBERNETES_OWN]
        if foreign:
            held.append(f"the finalizer {some_of(foreign)} of {name}, which whoever set it takes away")
        elif kind == "Pod":
            until = metadata.get("deletionTimestamp")
            ending.append(f"{name} to end" + (f" (by {until})" if until else ""))
    return some_of([*held, *ending], most=3)
