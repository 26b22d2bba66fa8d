"""The kinds of objects that are asked for: where the API server has them, and what is expected of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_POOL = "/api/v1"
# Without a version: those of young groups come and go, so the server is asked which it serves.
_KUEUE = "/apis/kueue.x-k8s.io"
_PODGROUPS = ("scheduling.volcano.sh", "scheduling.x-k8s.io", "scheduling.run.ai")
"""Volcano's, coscheduling's and KAI's, which have a kind called as Kubernetes' own."""
RESOURCES: Mapping[str, tuple[str, str]] = {
    "Job": ("/apis/batch/v1", "jobs"),
    "Pod": (_POOL, "pods"),
    "Event": (_POOL, "events"),
    "Service": (_POOL, "services"),
    "ConfigMap": (_POOL, "configmaps"),
    "Secret": (_POOL, "secrets"),
    "ServiceAccount": (_POOL, "serviceaccounts"),
    "ResourceQuota": (_POOL, "resourcequotas"),
    "LimitRange": (_POOL, "limitranges"),
    "PersistentVolumeClaim": (_POOL, "persistentvolumeclaims"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Workload": (_KUEUE, "workloads"),
    "LocalQueue": (_KUEUE, "localqueues"),
    "ClusterQueue": (_KUEUE, "clusterqueues"),
    "PodGroup": ("/apis/scheduling.k8s.io", "podgroups"),
    **{f"PodGroup.{group}": (f"/apis/{group}", "podgroups") for group in _PODGROUPS},
    "Node": (_POOL, "nodes"),
    "Namespace": (_POOL, "namespaces"),
    "PersistentVolume": (_POOL, "persistentvolumes"),
    "StorageClass": ("/apis/storage.k8s.io/v1", "storageclasses"),
    "PriorityClass": ("/apis/scheduling.k8s.io/v1", "priorityclasses"),
    "SelfSubjectAccessReview": ("/apis/authorization.k8s.io/v1", "selfsubjectaccessreviews"),
}
CLUSTER_WIDE = (
    "ClusterQueue", "Node", "Namespace", "PersistentVolume", "PriorityClass", "SelfSubjectAccessReview", "StorageClass",
)  # fmt: skip
_ANSWERED = ("SelfSubjectAccessReview",)
_SPECIFIED = ("Job", "Pod", "Node", "PersistentVolume", "PersistentVolumeClaim")
"""Kinds that are nothing without a spec."""


def resource_of(kind: str) -> tuple[str, str, str]:
    """API group, resource and subresource of ``KIND`` or ``KIND/SUBRESOURCE``, as access reviews name them."""
    name, _, subresource = kind.partition("/")
    prefix, plural = RESOURCES[name]
    return prefix.split("/")[2] if prefix.startswith("/apis/") else "", plural, subresource


def is_object(kind: str, found: Any) -> bool:
    """Whether it is an object of this kind, whole or its metadata alone, as the API server has them.

    In a list they do not say their kind. A review is answered and not kept: it has no name.
    """
    kind = kind.partition(".")[0]
    if not isinstance(found, dict) or found.get("kind", kind) not in (kind, "PartialObjectMetadata"):
        return False
    if kind in _ANSWERED:
        return isinstance(found.get("status"), dict)
    metadata, mapping = found.get("metadata"), dict | None
    return (
        isinstance(metadata, dict)
        and all(isinstance(metadata.get(key), str) for key in ("name", "uid", "creationTimestamp"))
        and all(isinstance(metadata.get(key), mapping) for key in ("labels", "annotations"))
        and all(isinstance(found.get(key), mapping) for key in ("spec", "status"))
        and ("spec" in found or kind not in _SPECIFIED or found.get("kind") == "PartialObjectMetadata")
    )
