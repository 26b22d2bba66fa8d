"""What is asked of the API server: objects, watches, logs, connections to pods.

Requests and answers are plain JSON, so that the thousands of model classes of the kubernetes package are neither
imported nor filled in.
"""

from __future__ import annotations

import copy
import functools
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import quote, urlsplit

from launcher.cluster import kubeconfig as kubeconfigs
from launcher.cluster.connection import ApiError, Connection, Object, Unreachable, set_proxy
from launcher.cluster.credentials import Credentials, credentials_of, file_of, impersonation
from launcher.cluster.pod_command import PodCommand, exec_query
from launcher.cluster.resources import CLUSTER_WIDE, RESOURCES, is_object
from maskfleet.backoff import pauses
from maskfleet.errors import BadInput, NotFound
from maskfleet.text import one_line

__all__ = ["ApiError", "Cluster", "Object", "Unreachable"]

_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0  # seconds before a watch is begun anew
_HEALTHY_SECONDS = 5.0  # a watch that has gone on for longer has not failed
_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]


class Cluster:
    """One namespace of one cluster.

    Attributes:
        context: its name in the kubeconfig; None in a pod.
        patience: for how many seconds a request is repeated while the API server is down or overloaded.
    """

    def __init__(
        self, configuration: Any, namespace: str, credentials: Credentials | None = None,
        headers: list[tuple[str, str]] | None = None, context: str | None = None,
    ) -> None:  # fmt: skip
        self._connection = Connection(configuration, credentials or Credentials(), headers or [])
        self.is_verified = bool(configuration.verify_ssl)
        self.namespace = namespace
        self.context = context
        self.patience = 5.0
        self._versions: dict[tuple[str, str], str] = {}

    @classmethod
    def connect(
        cls, namespace: str | None = None, *, context: str | None = None, kubeconfig: str | Path | None = None
    ) -> Self:
        """Reads the kubeconfig (``KUBECONFIG``, ~/.kube/config) as kubectl does, or in a pod its service account.

        Sends nothing, and runs no plugin yet.

        Raises:
            BadInput: there is no configuration, it can't be read, it has no such context, or its namespace is none.
        """
        access = kubeconfigs.find(Path(kubeconfig) if kubeconfig else None, context)
        origin = "the call" if namespace else access.origin
        chosen = kubeconfigs.checked_namespace(namespace or access.namespace, origin)
        configuration = _configuration(access)
        # Without TLS anybody on the way could read them, and kubectl sends none either.
        secret = configuration.host.startswith("https://")
        credentials, headers = (credentials_of(access), impersonation(access.user)) if secret else (None, None)
        return cls(configuration, chosen, credentials, headers, access.context)

    @property
    def place(self) -> str:
        """The namespace and whose it is, for people."""
        return f"namespace {self.namespace}" + (f" of context {self.context}" if self.context else "")

    def patient(self, seconds: float) -> Self:
        """The same, but a request is repeated for this long."""
        other = copy.copy(self)
        other.patience = seconds
        return other

    def get(self, kind: str, name: str) -> Object:
        """The object called ``name``.

        Raises:
            NotFound: there is none.
        """
        return self._checked(kind, self._json("GET", self._path(kind, name)))

    def list(
        self, kind: str, *, labels: str = "", fields: str = "", metadata_only: bool = False, everywhere: bool = False
    ) -> list[Object]:
        """The objects of a kind, from the API server's cache, in one request however many there are.

        ``everywhere`` asks for those of all namespaces.
        """
        path = self._path(kind, everywhere=everywhere)
        items: list[Object] = self._list(kind, path, labels, fields, metadata_only)["items"]
        return items

    def create(
        self, manifest: Object, *, dry_run: bool = False, warnings: MutableSequence[str] | None = None
    ) -> Object:
        """Creates an object and returns it as the server made it; what the server warns of goes to ``warnings``."""
        query = {"dryRun": "All"} if dry_run else {}
        response = self._send("POST", self._path(manifest["kind"]), query, manifest)
        if warnings is not None:
            warnings.extend(response.headers.getlist("Warning"))
        return self._checked(manifest["kind"], self._connection.answer(response))

    def patch(self, kind: str, name: str, change: Object) -> Object:
        """Lays ``change`` over the object (JSON merge patch) and returns the whole."""
        made = self._json("PATCH", self._path(kind, name), {}, change, "application/merge-patch+json")
        return self._checked(kind, made)

    def delete(self, kind: str, name: str, *, propagation: str = "Background") -> None:
        self._json("DELETE", self._path(kind, name), {}, {"propagationPolicy": propagation})

    def watch(self, kind: str, *, labels: str = "", fields: str = "") -> Iterator[tuple[str, Object]]:
        """Every object now (ADDED), a SYNCED when that is all, then every change (ADDED, MODIFIED, DELETED).

        Goes on over hiccups of the API server; after one everything is told again, from RESTART to SYNCED. One that
        comes soon after another is waited for longer, since every time all objects are listed.
        """
        waits = pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            yield "RESTART", {}
            listed = self._list(kind, self._path(kind), labels, fields, False)
            for item in listed["items"]:
                yield "ADDED", item
            yield "SYNCED", {}
            version = listed["metadata"].get("resourceVersion", "")
            query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
            began = time.monotonic()
            try:
                for line in self._lines(self._path(kind), {**query, **_selectors(labels, fields)}):
                    change, item = self._change(kind, line)
                    if change == "ERROR":  # the version is too old: list again
                        break
                    if change != "BOOKMARK":
                        yield change, item
            except (Unreachable, ConnectionError):
                pass
            except ApiError as error:
                if error.status != 410:  # the same as an ERROR
                    raise
            if time.monotonic() - began > _HEALTHY_SECONDS:
                waits = pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
            time.sleep(next(waits))

    def log(self, pod: str, container: str, **query: str) -> Iterator[bytes]:
        """Lines of a container's log with their line ends; ``query`` is Kubernetes' (follow, sinceTime, …).

        A line without its end is the last one, and perhaps only a part.

        Raises:
            ConnectionError: the stream broke off; what was yielded before is whole.
            ApiError: there is no log, or not yet.
            Unreachable: something else than the API server answers.
        """
        path = self._path("Pod", pod) + "/log"
        yield from self._lines(path, {"container": container, **query})

    def connect_to_pod(self, pod: str, port: int) -> socket.socket:
        """A connection to a port of the pod's loopback interface, through the API server.

        Raises:
            ConnectionError: the API server or the pod does not take it, and may later.
            ApiError: we may not do this.
            BadInput: there are no credentials.
        """
        from kubernetes.stream.ws_client import PortForward

        _quieten_port_forwards()
        try:
            opened = self._connection.websocket(f"{self._path('Pod', pod)}/portforward", [("ports", str(port))])
        except (ApiError, NotFound, Unreachable) as error:
            if isinstance(error, ApiError) and error.is_forbidden:
                raise
            raise ConnectionError(f"{pod}: {error}") from error
        connection: socket.socket = PortForward(opened, [port]).socket(port)
        return connection

    def run_in_pod(self, pod: str, container: str, command: Sequence[str], *, tty: bool) -> PodCommand:
        """Starts ``command`` in a container of the pod, with a terminal of its own if ``tty``.

        Raises:
            NotFound: the pod is gone.
            ApiError: the server refuses it.
            Unreachable: it does not answer.
            BadInput: there are no credentials.
        """
        query = exec_query(container, command, tty=tty)
        return PodCommand(self._connection.websocket(f"{self._path('Pod', pod)}/exec", query))

    def _path(self, kind: str, name: str = "", *, everywhere: bool = False) -> str:
        prefix, plural = RESOURCES[kind]
        if prefix.startswith("/apis/") and prefix.count("/") == 2:
            prefix = self._with_version(prefix, plural)
        scope = "" if everywhere or kind in CLUSTER_WIDE else f"/namespaces/{self.namespace}"
        return f"{prefix}{scope}/{plural}" + (f"/{quote(name, safe='')}" if name else "")

    def _with_version(self, prefix: str, plural: str) -> str:
        """With that of an API group's versions which has the resource: the server's preference, where that has it.

        Raises:
            NotFound: the server does not serve this API group, or the resource in none of its versions.
        """
        if (prefix, plural) not in self._versions:
            answer = group = self._json("GET", prefix)
            try:
                preferred = str(group["preferredVersion"]["version"])
                others = [str(each["version"]) for each in group.get("versions") or []]
                for version in dict.fromkeys([preferred, *others]):
                    answer = self._json("GET", f"{prefix}/{version}")
                    if any(each["name"] == plural for each in answer["resources"]):
                        self._versions[prefix, plural] = version
                        break
                else:
                    raise NotFound(f"the server has no {plural} in {prefix.removeprefix('/apis/')}")
            except (KeyError, TypeError) as error:
                raise self._connection.unlike_the_api(json.dumps(answer).encode()) from error
        return f"{prefix}/{self._versions[prefix, plural]}"

    def _list(self, kind: str, path: str, labels: str, fields: str, metadata_only: bool) -> Object:
        accept = _METADATA_ONLY if metadata_only else "application/json"
        # Version 0 is answered from the API server's memory. Events are not kept there.
        query = {"resourceVersion": "0"} if not path.endswith("/events") else {}
        found = self._json("GET", path, {**query, **_selectors(labels, fields)}, accept=accept)
        found["items"] = found.get("items") or []  # null, where only metadata was asked for and there is nothing
        is_list = str(found["kind"]).endswith("List") and isinstance(found["items"], list)
        if not is_list or not isinstance(found.get("metadata"), dict):
            raise self._connection.unlike_the_api(json.dumps(found).encode())
        for item in found["items"]:
            self._checked(kind, item)
        return found

    def _checked(self, kind: str, found: Any) -> Object:
        """Raises Unreachable if ``found`` is no object of this kind: what we read of any without asking is there."""
        if is_object(kind, found):
            return cast(Object, found)
        raise self._connection.unlike_the_api(json.dumps(found).encode())

    def _change(self, kind: str, line: bytes) -> tuple[str, Object]:
        """Raises Unreachable if it is none: a proxy may put a page of its own into the stream."""
        try:
            change = json.loads(line)
            what, item = str(change["type"]), dict(change["object"])
            return what, item if what in ("ERROR", "BOOKMARK") else self._checked(kind, item)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._connection.unlike_the_api(line) from error

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        return self._connection.answer(self._send(method, path, query or {}, body, content_type, accept))

    def _send(self, *request: Any) -> Any:
        return self._connection.send(*request, patience=self.patience)

    def _lines(self, path: str, query: Mapping[str, str]) -> Iterator[bytes]:
        return self._connection.lines(path, query, patience=self.patience)


@functools.cache
def _quieten_port_forwards() -> None:
    """Has the client library's proxy threads end without a word when either side hangs up, which is no error.

    They do not catch it, and Python prints a traceback of every thread that ends so.
    """
    others = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        thread = arguments.thread
        if thread is None or not thread.name.startswith("Kubernetes port forward proxy"):
            others(arguments)

    threading.excepthook = hook


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}


def _configuration(access: kubeconfigs.Access) -> Any:
    """The kubernetes package's description of a server: its address, TLS and proxy."""
    from kubernetes import client

    cluster, where = access.cluster, f"{access.origin}: cluster"
    assert cluster.server is not None
    configuration = client.Configuration()
    for what, url in (("server", cluster.server), ("proxy-url", cluster.proxy_url)):
        try:
            _ = urlsplit(url or "").port
        except ValueError as error:
            # What is found is not shown, nor in parts: that of a proxy may hold a password.
            raise BadInput(f"{where}: {what}: expected a URL such as https://host:6443, found none") from error
    scheme, separator, _ = cluster.server.partition("://")
    if separator and scheme.lower() not in ("http", "https"):
        raise BadInput(f"{where}: server: expected https:// or http://, found {one_line(scheme, 20)}://")
    configuration.host = ("" if "://" in cluster.server else "http://") + cluster.server.rstrip("/")
    configuration.verify_ssl = not cluster.insecure_skip_tls_verify
    authority = file_of(
        cluster.certificate_authority, cluster.certificate_authority_data, f"{where}: certificate-authority"
    )
    if authority and not configuration.verify_ssl and configuration.host.startswith("https://"):
        raise BadInput(
            f"{where}: expected certificate-authority or insecure-skip-tls-verify, found both: remove the one that is "
            "not meant"
        )
    configuration.ssl_ca_cert = authority
    configuration.tls_server_name = cluster.tls_server_name
    set_proxy(configuration, cluster.proxy_url)
    configuration.retries = False
    configuration.socket_options = _KEEP_ALIVE
    configuration.connection_pool_maxsize = 64
    if not configuration.verify_ssl:
        import urllib3

        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user is told once, in our words
    return configuration
