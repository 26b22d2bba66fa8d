"""What explains the jobs of a namespace beside their pods."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from launcher.cluster.kubernetes_api import ApiError, Object, Unreachable
from launcher.cluster.namespace import Namespace
from launcher.diagnosis.job_status import DULL_EVENTS, JobStatus, job_status
from launcher.diagnosis.jobs import suspended_by
from launcher.diagnosis.placement import is_partly_placed
from launcher.diagnosis.reasons import SAID, is_preparing
from launcher.job.labels import ALL_WORKERS, QUEUE_LABEL, labels_of, namespace_of
from maskfleet.errors import NotFound

T = TypeVar("T")

_MOST_ASKED = 4
"""Pods whose last line is asked for, each by a request of its own."""

INTERESTING_EVENTS = ",".join(f"reason!={reason}" for reason in DULL_EVENTS)


@dataclass(frozen=True)
class NamespaceView:
    """What explains the jobs of a namespace beside their pods; asked for once, however many jobs there are.

    ``events`` and ``nodes``, the names of those that exist, are None if they may not be listed; ``workloads`` are those
    of Kueue; ``others`` the pods of all jobs, where some of one's find no node.
    """

    events: Sequence[Object] | None
    nodes: frozenset[str] | None
    workloads: Sequence[Object]
    said: Sequence[Object] = ()
    others: Sequence[Object] = ()

    @classmethod
    def of(
        cls, cluster: Namespace, jobs: Sequence[Object], *, all_events: bool = False, everywhere: bool = False
    ) -> Self:
        """``all_events`` is for those who show them: a status needs only the interesting ones.

        ``everywhere`` asks for what explains the jobs of all namespaces; :meth:`within` takes those of one.
        """
        fields = "" if all_events else INTERESTING_EVENTS
        events = seen(lambda: cluster.list("Event", fields=fields, everywhere=everywhere))
        return cls(events, node_names(cluster), workloads_of(cluster, jobs, everywhere=everywhere))

    def within(self, namespace: str) -> Self:
        """Without what has happened in other namespaces, where others may have the same names."""
        ours = None if self.events is None else [each for each in self.events if namespace_of(each) == namespace]
        return replace(self, events=ours, others=[each for each in self.others if namespace_of(each) == namespace])

    @property
    def unseen(self) -> tuple[str, ...]:
        """The kinds of objects that may not be listed."""
        return tuple(name for name, found in (("events", self.events), ("nodes", self.nodes)) if found is None)

    def with_said(self, cluster: Namespace, pods: Sequence[Object]) -> Self:
        """With what ``pods`` say while they fetch their data."""
        return replace(self, said=said_while_preparing(cluster, pods))

    def status(self, job: Object, pods: Sequence[Object]) -> JobStatus:
        told = [*(self.events or ()), *self.said]
        found = job_status(job, pods, told, self.nodes, workload_of(job, self.workloads), self.others)
        return replace(found, unseen=self.unseen)


def pods_of_all(cluster: Namespace, pods: Sequence[Object]) -> Sequence[Object]:
    """Those of all jobs, which may have the room that some of ``pods`` lack; none where that is not so."""
    return (seen(lambda: cluster.list("Pod", labels=ALL_WORKERS)) if is_partly_placed(pods) else None) or ()


def said_while_preparing(cluster: Namespace, pods: Sequence[Object]) -> list[Object]:
    """The last line of the first few pods that fetch their data, as events: how far it is, or an outage."""
    said = []
    for pod in [pod for pod in pods if is_preparing(pod)][:_MOST_ASKED]:
        name = pod["metadata"]["name"]
        with contextlib.suppress(ApiError, NotFound, Unreachable, ConnectionError):  # not to be seen, or not yet
            for line in cluster.log(name, "prepare", tailLines="1"):
                text = line.decode(errors="replace").strip()
                said.append({"reason": SAID, "message": text, "involvedObject": {"kind": "Pod", "name": name},
                             "metadata": {"namespace": namespace_of(pod)}})  # fmt: skip
    return said


def seen(ask: Callable[[], T]) -> T | None:
    """What ``ask`` gives; None if we may not see it. What may be seen is shown without it."""
    try:
        return ask()
    except ApiError as error:
        if not error.is_forbidden:
            raise
        return None


def limit_ranges(cluster: Namespace) -> Sequence[Object]:
    """Those of the namespace that we may see."""
    return seen(lambda: cluster.list("LimitRange")) or ()


def node_names(cluster: Namespace) -> frozenset[str] | None:
    try:
        return frozenset(node["metadata"]["name"] for node in cluster.list("Node", metadata_only=True))
    except (ApiError, Unreachable):  # not everybody may look at nodes
        return None


def workloads_of(cluster: Namespace, jobs: Sequence[Object], *, everywhere: bool = False) -> list[Object]:
    """Kueue's objects, if any of the jobs has a queue, or was suspended by Kueue, which may take in all jobs."""
    if not any(QUEUE_LABEL in labels_of(job) or (suspended_by(job) or "").startswith("kueue") for job in jobs):
        return []
    try:
        return list(cluster.list("Workload", everywhere=everywhere))
    except (ApiError, NotFound, Unreachable):  # Kueue is not installed, or its objects may not be read
        return []


def workload_of(job: Object, workloads: Sequence[Object]) -> Object | None:
    uid = job["metadata"].get("uid")
    return next((w for w in workloads if any(o["uid"] == uid for o in w["metadata"].get("ownerReferences", []))), None)
