"""Whether a claim will be there for every worker."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.diagnosis.claims import Storage, claim_verdict

NO_CLASSES = Storage([], [])


def claim(phase: str = "Pending", *modes: str, cls: str | None = "fast", **spec: Any) -> dict[str, Any]:
    wanted = {"accessModes": list(modes) or ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, **spec}
    if cls is not None:
        wanted["storageClassName"] = cls
    return {"metadata": {"name": "c"}, "spec": wanted, "status": {"phase": phase}}


def nodes(count: int) -> list[Any]:
    """In two zones in turn."""
    return [{"metadata": {"name": f"n{i}", "labels": {"zone": "ab"[i % 2], "name": f"n{i}"}}} for i in range(count)]


def storage_class(name: str, mode: str = "Immediate", *, default: bool = False, by: str = "example.com/disk") -> Any:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {"metadata": {"name": name, "annotations": annotations}, "provisioner": by, "volumeBindingMode": mode}


def volume(cls: str, *modes: str, size: str = "5Gi", phase: str = "Available") -> Any:
    spec = {"storageClassName": cls, "accessModes": list(modes), "capacity": {"storage": size}}
    return {"metadata": {"name": "v"}, "spec": spec, "status": {"phase": phase}}


RWX = "ReadWriteMany"
LATER = "WaitForFirstConsumer"


@pytest.mark.parametrize(
    ("found", "storage", "result", "detail"),
    [
        (claim("Bound"), NO_CLASSES, "ok", "is bound"),
        (claim("Lost"), NO_CLASSES, "no", "has lost its volume"),
        ({**claim("Bound"), "metadata": {"deletionTimestamp": "now"}}, NO_CLASSES, "no", "is being deleted"),
        (claim(), NO_CLASSES, "no", "StorageClass fast, which is not there, and no volume that fits is there"),
        (claim(), Storage([storage_class("slow")], []), "no", "waits for StorageClass fast, which is not there"),
        (claim(), Storage([storage_class("fast", LATER)], []), "ok", "gets its volume from StorageClass fast with the"),
        (claim(), Storage([storage_class("fast")], []), "unknown", "has no volume of StorageClass fast yet"),
        (claim(), Storage(None, None), "unknown", "is not bound yet by StorageClass fast"),
        (claim(), Storage([], None), "unknown", "waits for StorageClass fast, which is not there; volumes may not be"),
        (claim(), Storage([], [volume("fast", RWX)]), "ok", "a volume that fits is there"),
        (claim(), Storage([], [volume("fast", "ReadWriteOnce")]), "no", "no volume that fits is there"),
        (claim(), Storage([], [volume("fast", RWX, size="1Mi")]), "no", "no volume that fits is there"),
        (claim(), Storage([], [volume("fast", RWX, phase="Bound")]), "no", "no volume that fits is there"),
        (claim(), Storage([], [volume("slow", RWX)]), "no", "no volume that fits is there"),
        (claim(), Storage([storage_class("fast", by="kubernetes.io/no-provisioner")], []), "no", "makes no volumes"),
        (claim(cls=None), NO_CLASSES, "no", "names no StorageClass, and the cluster has no default one"),
        (claim(cls=None), Storage(None, None), "unknown", "is not bound yet"),
        (claim(cls=None), Storage([storage_class("any", LATER, default=True)], []), "ok", "from StorageClass any"),
        (claim(cls=""), Storage([storage_class("any", LATER, default=True)], []), "no", "has no StorageClass"),
        (claim(cls="", volumeName="v"), NO_CLASSES, "no", "waits for PersistentVolume v, which is not there"),
        (claim(cls="", volumeName="v"), Storage([], [volume("", RWX)]), "unknown", "is not bound to Persist"),
    ],
)  # fmt: skip
def test_a_claim_has_or_gets_a_volume_or_never_will(found: Any, storage: Storage, result: str, detail: str) -> None:
    verdict = claim_verdict(found, storage, workers=1, nodes=nodes(3), writes=True)
    assert verdict[0] == result
    assert detail in verdict[1]


@pytest.mark.parametrize(
    ("modes", "workers", "there", "writes", "result"),
    [
        (["ReadWriteOnce"], 1, 3, True, "ok"),
        (["ReadWriteOnce"], 2, 3, True, "no"),
        (["ReadWriteOnce"], 2, 3, False, "no"),
        (["ReadWriteOnce"], 2, 1, True, "ok"),
        (["ReadWriteOnce"], 2, None, True, "unknown"),
        (["ReadWriteOnce", RWX], 2, 3, True, "ok"),
        (["ReadOnlyMany"], 2, 3, False, "ok"),
        (["ReadOnlyMany"], 1, 3, True, "no"),
        (["ReadOnlyMany", "ReadWriteOnce"], 2, 3, True, "no"),
        (["ReadWriteOncePod"], 2, 1, True, "no"),
        (["ReadWriteOncePod"], 1, 1, True, "ok"),
    ],
)
def test_a_claim_can_be_mounted_by_all_workers(
    modes: list[str], workers: int, there: int | None, writes: bool, result: str
) -> None:
    some = None if there is None else nodes(there)
    found = claim_verdict(claim("Bound", *modes), NO_CLASSES, workers=workers, nodes=some, writes=writes)
    assert found[0] == result, found


def test_what_never_comes_counts_before_what_can_not_be_shared() -> None:
    verdict = claim_verdict(claim("Pending", "ReadWriteOnce"), NO_CLASSES, workers=2, nodes=None, writes=True)
    assert verdict[0] == "no"


def tied(operator: str, key: str, *values: str) -> Any:
    """A volume that only some nodes reach."""
    expression = {"key": key, "operator": operator, **({"values": list(values)} if values else {})}
    affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
    found = volume("fast", "ReadWriteOnce", phase="Bound")
    return {**found, "spec": {**found["spec"], "nodeAffinity": affinity}}


@pytest.mark.parametrize(
    ("terms", "workers", "result"),
    [
        (("In", "zone", "a", "b"), 1, "ok"),
        (("In", "zone", "c"), 1, "no"),
        (("NotIn", "zone", "a", "b"), 1, "no"),
        (("Exists", "zone"), 1, "ok"),
        (("DoesNotExist", "zone"), 1, "no"),
        (("Exists", "disk"), 1, "no"),
        (("In", "zone", "a"), 2, "no"),
        (("In", "name", "n1"), 2, "ok"),
    ],
)
def test_a_volume_is_where_a_worker_can_be(terms: tuple[str, ...], workers: int, result: str) -> None:
    bound = claim("Bound", "ReadWriteOnce", volumeName="v")
    found = claim_verdict(bound, Storage([], [tied(*terms)]), workers=workers, nodes=nodes(4), writes=True)
    assert found[0] == result, found
