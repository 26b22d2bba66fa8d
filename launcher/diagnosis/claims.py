"""Whether a claim can be mounted by all workers of a job, as far as the objects tell. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from launcher.job.labels import annotations_of, labels_of
from launcher.job.quantities import parse_quantity

Object = Mapping[str, Any]
Verdict = tuple[Literal["ok", "no", "unknown"], str]

_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_BY_HAND = "kubernetes.io/no-provisioner"


@dataclass(frozen=True)
class Storage:
    """What the cluster has: None where we may not look."""

    classes: Sequence[Object] | None
    volumes: Sequence[Object] | None


def claim_verdict(
    claim: Object, storage: Storage, *, workers: int, nodes: Sequence[Object] | None, writes: bool
) -> Verdict:
    """Whether the claim will be there for every worker.

    Args:
        nodes: those that could take a worker; None if they are not known.
        writes: whether the workers write into it.
    """
    if claim["metadata"].get("deletionTimestamp"):
        return "no", "is being deleted"
    phase = claim.get("status", {}).get("phase", "Pending")
    if phase == "Lost":
        return "no", "has lost its volume"
    volume = next((v for v in storage.volumes or [] if v["metadata"]["name"] == claim["spec"].get("volumeName")), None)
    if nodes and volume is not None:
        reached = [node for node in nodes if _reaches(node, volume)]
        if not reached:
            return "no", f"its volume {volume['metadata']['name']} can be mounted on no node that may take a worker"
        nodes = reached
    bound: Verdict = ("ok", "is bound") if phase == "Bound" else _binding(claim, storage)
    modes = claim.get("status", {}).get("accessModes") or claim["spec"].get("accessModes", [])
    shared = _sharing(modes, workers, None if nodes is None else len(nodes), writes=writes)
    return bound if shared is None or bound[0] == "no" else shared


def _reaches(node: Object, volume: Object) -> bool:
    """Whether the volume's own terms let it be mounted on the node; those that we do not know count as if they did."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required") or {}
    terms = required.get("nodeSelectorTerms") or []
    labels = labels_of(node)
    return not terms or any(all(_holds(e, labels) for e in term.get("matchExpressions") or []) for term in terms)


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return True


def _sharing(modes: Sequence[str], workers: int, nodes: int | None, *, writes: bool) -> Verdict | None:
    if writes and set(modes) == {"ReadOnlyMany"}:
        return "no", "can only be read (ReadOnlyMany), and the workers write into it"
    if workers == 1 or "ReadWriteMany" in modes or ("ReadOnlyMany" in modes and not writes):
        return None
    if set(modes) == {"ReadWriteOncePod"}:
        return "no", f"can be mounted by one pod alone (ReadWriteOncePod), not by {workers} workers"
    if nodes == 1:
        return None
    needed = "ReadWriteMany" if writes else "ReadOnlyMany or ReadWriteMany"
    why = f"can be mounted on one node alone ({', '.join(modes)}): {workers} workers on several need {needed}"
    return "no" if nodes else "unknown", why


def _binding(claim: Object, storage: Storage) -> Verdict:
    """Of a claim that has no volume yet."""
    spec = claim["spec"]
    if volume := spec.get("volumeName"):
        known = [each["metadata"]["name"] for each in storage.volumes or []]
        if storage.volumes is not None and volume not in known:
            return "no", f"waits for PersistentVolume {volume}, which is not there"
        return "unknown", f"is not bound to PersistentVolume {volume} yet"
    name = spec.get("storageClassName")
    if name is None:
        if storage.classes is None:
            return "unknown", "is not bound yet"
        default = [each for each in storage.classes if annotations_of(each).get(_DEFAULT_CLASS) == "true"]
        name = default[0]["metadata"]["name"] if default else ""
        if not name:
            return _by_hand(claim, storage, "names no StorageClass, and the cluster has no default one")
    if name == "":
        return _by_hand(claim, storage, "has no StorageClass")
    if storage.classes is None:
        return "unknown", f"is not bound yet by StorageClass {name}"
    found = next((c for c in storage.classes if c["metadata"]["name"] == name), None)
    if found is None:
        return _by_hand(claim, storage, f"waits for StorageClass {name}, which is not there", name)
    if found.get("provisioner") == _BY_HAND:
        return _by_hand(claim, storage, f"is of StorageClass {name}, which makes no volumes", name)
    if found.get("volumeBindingMode") == "WaitForFirstConsumer":
        return "ok", f"gets its volume from StorageClass {name} with the first pod"
    return "unknown", f"has no volume of StorageClass {name} yet: see 'kubectl describe pvc'"


def _by_hand(claim: Object, storage: Storage, why: str, name: str = "") -> Verdict:
    """Nobody makes a volume for the claim, so one that fits has to be there."""
    if storage.volumes is None:
        return "unknown", f"{why}; volumes may not be listed"
    if any(_fits(volume, claim, name) for volume in storage.volumes):
        return "ok", f"{why}; a volume that fits is there"
    return "no", f"{why}, and no volume that fits is there"


def _fits(volume: Object, claim: Object, name: str) -> bool:
    spec, asked = volume["spec"], claim["spec"]
    wanted = (asked.get("selector") or {}).get("matchLabels") or {}
    labels = volume["metadata"].get("labels") or {}
    return (
        volume.get("status", {}).get("phase") == "Available"
        and spec.get("storageClassName", "") == name
        and set(asked.get("accessModes", [])) <= set(spec.get("accessModes", []))
        and parse_quantity(spec["capacity"]["storage"]) >= parse_quantity(asked["resources"]["requests"]["storage"])
        and wanted.items() <= labels.items()
    )
