"""A cluster in memory, as much of it as the launcher's verbs talk to. It runs nothing."""

from __future__ import annotations

import copy
import socket
import time
import uuid
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from typing import TYPE_CHECKING, Any, Self

from launcher.cluster.kubernetes_api import ApiError, Unreachable
from launcher.job.labels import FIELD_MANAGER
from maskfleet.errors import NotFound

Object = dict[str, Any]
CREATED = "2026-11-23T10:00:00Z"


class FakeCluster:
    """Objects by kind and name. ``requests`` are those that it got, as ``create Job`` and the like.

    ``manager`` is who changes objects, as the API server notes it of a Job's suspension. An object with finalizers is
    not gone when it is deleted.

    ``remembered`` is what the first list of a watch tells of a kind instead of what there is, as an API server's memory
    may; ``before`` is called with each request and may raise.
    """

    namespace = "team"
    place = "namespace team of context here"
    is_verified = True

    def __init__(self, *objects: Object) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.requests: list[str] = []
        self.remembered: dict[str, list[Object]] = {}
        self.logs: dict[str, list[str]] = {}
        self.warning = ""
        self.manager = FIELD_MANAGER
        self.before: Callable[[str], None] = lambda request: None
        for each in objects:
            self.objects[each["kind"], each["metadata"]["name"]] = each

    def patient(self, seconds: float) -> Self:
        return self

    def get(self, kind: str, name: str) -> Object:
        self._note(f"get {kind}")
        if (kind, name) not in self.objects:
            raise NotFound(f"{kind} {name} not found")
        return copy.deepcopy(self.objects[kind, name])

    def list(
        self, kind: str, *, labels: str = "", fields: str = "", metadata_only: bool = False, everywhere: bool = False
    ) -> Sequence[Object]:
        self._note(f"list {kind}" + (" everywhere" if everywhere else ""))
        return self._select(kind, labels, fields, everywhere=everywhere)

    def create(
        self, manifest: Object, *, dry_run: bool = False, warnings: MutableSequence[str] | None = None
    ) -> Object:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self._note(f"{'try' if dry_run else 'create'} {kind}")
        if (kind, name) in self.objects:
            raise ApiError(409, "AlreadyExists", f"{kind} {name} already exists")
        made = copy.deepcopy(manifest)
        made["metadata"] |= {"uid": uuid.uuid4().hex, "creationTimestamp": CREATED, "namespace": self.namespace}
        if kind == "Job":
            self._note_suspension(made)
        if not dry_run:
            self.objects[kind, name] = made
        if warnings is not None and self.warning:
            warnings.append(self.warning)
        return copy.deepcopy(made)

    def patch(self, kind: str, name: str, change: Object) -> Object:
        self._note(f"patch {kind}")
        found = self.objects[kind, name]
        suspended = found.get("spec", {}).get("suspend")
        _merge(found, change)
        if kind == "Job" and found.get("spec", {}).get("suspend") != suspended:
            self._note_suspension(found)
        return found

    def delete(self, kind: str, name: str, *, propagation: str = "Background") -> None:
        self._note(f"delete {kind}")
        found = self.objects.get((kind, name))
        if found is None:
            raise NotFound(f"{kind} {name} not found")
        if found["metadata"].get("finalizers"):
            found["metadata"].setdefault("deletionTimestamp", CREATED)
            return
        del self.objects[kind, name]
        if kind == "Job":
            for key, each in list(self.objects.items()):
                if any(owner["name"] == name for owner in each["metadata"].get("ownerReferences", [])):
                    del self.objects[key]

    def watch(self, kind: str, *, labels: str = "", fields: str = "") -> Iterator[tuple[str, Object]]:
        told: dict[str, Object] = {}
        known = kind in self.remembered
        listed: Sequence[Object] = self.remembered[kind] if known else self._select(kind, labels, fields)
        while True:
            now = {each["metadata"]["name"]: each for each in listed}
            for name, each in now.items():
                if told.get(name) != each:
                    yield "ADDED", each
            for name in told.keys() - now.keys():
                yield "DELETED", told[name]
            told = now
            yield "SYNCED", {}  # again and again, so that a mirror that is stopped sees it
            time.sleep(0.05)
            listed = self._select(kind, labels, fields)

    def log(self, pod: str, container: str, **query: str) -> Iterator[bytes]:
        lines = self.logs[pod]
        if "sinceTime" in query:
            return
        tail = int(query.get("tailLines", len(lines)))
        for line in lines[len(lines) - tail :]:
            yield f"{CREATED.removesuffix('Z')}.000000000Z {line}\n".encode()

    def connect_to_pod(self, pod: str, port: int) -> socket.socket:
        raise ConnectionError(f"{pod}: nothing runs here")

    def run_in_pod(self, pod: str, container: str, command: Sequence[str], *, tty: bool) -> PodCommand:
        raise Unreachable(f"{pod}: nothing runs here")

    def _select(self, kind: str, labels: str, fields: str, *, everywhere: bool = False) -> Sequence[Object]:
        found = [copy.deepcopy(each) for (of, _), each in list(self.objects.items()) if of == kind]
        for each in found:
            each["metadata"].setdefault("namespace", self.namespace)
        found = [each for each in found if everywhere or each["metadata"]["namespace"] == self.namespace]
        for wanted in filter(None, labels.split(",")):
            key, _, value = wanted.partition("=")
            found = [each for each in found if each["metadata"].get("labels", {}).get(key) == value]
        if fields.startswith("metadata.name="):
            found = [each for each in found if each["metadata"]["name"] == fields.partition("=")[2]]
        return found

    def _note_suspension(self, job: Object) -> None:
        entry = {"manager": self.manager, "operation": "Update", "fieldsV1": {"f:spec": {"f:suspend": {}}}}
        job["metadata"]["managedFields"] = [entry]

    def _note(self, request: str) -> None:
        self.before(request)
        self.requests.append(request)


def _merge(target: Object, change: Object) -> None:
    """RFC 7396."""
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


def bare(kind: str, name: str) -> Object:
    """An object with what each has, and no more."""
    return {"kind": kind, "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": CREATED}, "spec": {}}


def worker_pod(
    worker: int, *, job: str = "pets", suffix: str = "abcde", phase: str = "Running", **state: Any
) -> Object:
    """The pod of a worker; ``state`` is that of its trainer, running by default."""
    labels = {"app.kubernetes.io/name": "maskfleet", "app.kubernetes.io/instance": job,
              "app.kubernetes.io/component": "worker"}  # fmt: skip
    trainer = {"name": "trainer", "image": "i:1", "state": state or {"running": {"startedAt": CREATED}}}
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"{job}-{worker}-{suffix}",
            "uid": f"{job}-{worker}-{suffix}",
            "creationTimestamp": CREATED,
            "labels": labels,
            "annotations": {"batch.kubernetes.io/job-completion-index": str(worker)},
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "trainer"}]},
        "status": {"phase": phase, "containerStatuses": [trainer]},
    }


if TYPE_CHECKING:
    from launcher.cluster.namespace import Namespace
    from launcher.cluster.pod_command import PodCommand

    _: Namespace = FakeCluster()
