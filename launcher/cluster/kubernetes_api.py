"""The only file that talks to the API server.

The kubernetes package reads the kubeconfig and its credentials; requests and answers are plain JSON, so
that its thousands of model classes are neither imported nor filled in.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import yaml

from launcher.cluster.pod_command import PodCommand, Refused
from maskfleet.backoff import pauses
from maskfleet.errors import BadInput, MaskfleetError, NotFound
from maskfleet.text import one_line

if TYPE_CHECKING:
    import urllib3

Object = dict[str, Any]

_POOL = "/api/v1"
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
    "Workload": ("/apis/kueue.x-k8s.io/v1beta1", "workloads"),
    "LocalQueue": ("/apis/kueue.x-k8s.io/v1beta1", "localqueues"),
    "Node": (_POOL, "nodes"),
    "Namespace": (_POOL, "namespaces"),
    "PriorityClass": ("/apis/scheduling.k8s.io/v1", "priorityclasses"),
    "SelfSubjectAccessReview": ("/apis/authorization.k8s.io/v1", "selfsubjectaccessreviews"),
}
_CLUSTER_WIDE = ("Node", "Namespace", "PriorityClass", "SelfSubjectAccessReview")
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_STREAM_SILENCE = 60.0  # seconds; a stream that says nothing for longer is asked for anew
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0  # seconds before a watch is begun anew
_HEALTHY_SECONDS = 5.0  # a watch that has gone on for longer has not failed
_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]


class ApiError(MaskfleetError):
    """The API server refused a request; ``status`` is HTTP's, ``reason`` Kubernetes' word for it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Unreachable(MaskfleetError):
    """The API server did not answer in time."""


class Cluster:
    """One namespace of one cluster.

    ``patience`` is how many seconds a request is repeated for while the API server is down or overloaded.
    """

    def __init__(self, configuration: Any, namespace: str) -> None:
        from kubernetes import client

        self._configuration = configuration
        self._pool: urllib3.PoolManager = client.ApiClient(configuration).rest_client.pool_manager
        self._host = configuration.host.rstrip("/")
        self.namespace = namespace
        self.patience = 5.0

    @classmethod
    def connect(
        cls, namespace: str | None = None, *, context: str | None = None, kubeconfig: str | Path | None = None
    ) -> Self:
        """Reads the kubeconfig (``KUBECONFIG``, ~/.kube/config), or in a pod its service account. Sends nothing.

        Raises:
            BadInput: there is no configuration, it can't be read, or it has no such context.
        """
        from kubernetes import client, config

        configuration = client.Configuration()
        configuration.retries = False
        configuration.socket_options = _KEEP_ALIVE
        configuration.connection_pool_maxsize = 64
        file = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or "~/.kube/config"
        places = [Path(part).expanduser() for part in file.split(os.pathsep) if part]
        own = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
        try:
            if not kubeconfig and not any(place.is_file() for place in places) and own.is_file():
                config.load_incluster_config(client_configuration=configuration)
                default = own.read_text().strip()
            else:
                default = _load_kubeconfig(file, context, configuration)
        except (config.ConfigException, OSError, ValueError, yaml.YAMLError) as error:
            line = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
            raise BadInput(f"kubeconfig {file}: {line}; name another with --kubeconfig or --context") from error
        return cls(configuration, namespace or default)

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
        return self._json("GET", self._path(kind, name))

    def list(
        self, kind: str, *, labels: str = "", fields: str = "", metadata_only: bool = False, everywhere: bool = False
    ) -> list[Object]:
        """The objects of a kind, from the API server's cache, in one request however many there are.

        ``everywhere`` asks for those of all namespaces.
        """
        path = "{}/{}".format(*RESOURCES[kind]) if everywhere else self._path(kind)
        items: list[Object] = self._list(path, labels, fields, metadata_only)["items"]
        return items

    def create(
        self, manifest: Object, *, dry_run: bool = False, warnings: MutableSequence[str] | None = None
    ) -> Object:
        """Creates an object and returns it as the server made it; what the server warns of goes to ``warnings``."""
        query = {"dryRun": "All"} if dry_run else {}
        response = self._send("POST", self._path(manifest["kind"]), query, manifest)
        if warnings is not None:
            warnings.extend(response.headers.getlist("Warning"))
        return self._object(response)

    def patch(self, kind: str, name: str, change: Object) -> Object:
        """Lays ``change`` over the object (JSON merge patch) and returns the whole."""
        return self._json("PATCH", self._path(kind, name), {}, change, "application/merge-patch+json")

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
            listed = self._list(self._path(kind), labels, fields, False)
            for item in listed["items"]:
                yield "ADDED", item
            yield "SYNCED", {}
            version = listed["metadata"]["resourceVersion"]
            query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
            began = time.monotonic()
            try:
                for line in self._lines(self._path(kind), {**query, **_selectors(labels, fields)}):
                    change = json.loads(line)
                    if change["type"] == "ERROR":  # the version is too old: list again
                        break
                    if change["type"] != "BOOKMARK":
                        yield change["type"], change["object"]
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
        """
        path = self._path("Pod", pod) + "/log"
        yield from self._lines(path, {"container": container, **query})

    def connect_to_pod(self, pod: str, port: int) -> socket.socket:
        """A connection to a port of the pod's loopback interface, through the API server.

        Raises:
            ConnectionError: the API server or the pod does not take it.
        """
        from kubernetes import client, stream

        _quieten_port_forwards()
        api = client.CoreV1Api(client.ApiClient(self._configuration))
        try:
            forward = stream.portforward(
                api.connect_get_namespaced_pod_portforward, pod, self.namespace, ports=str(port)
            )
        except client.ApiException as error:
            raise ConnectionError(f"{pod}: {error.reason}") from error
        connection: socket.socket = forward.socket(port)
        return connection

    def run_in_pod(self, pod: str, container: str, command: Sequence[str], *, tty: bool) -> PodCommand:
        """Starts ``command`` in a container of the pod, with a terminal of its own if ``tty``.

        Raises:
            NotFound: the pod is gone.
            ApiError: the server refuses it.
            Unreachable: it does not answer.
        """
        path = f"{self._path('Pod', pod)}/exec"
        token = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        try:
            return PodCommand.start(self._configuration, f"{self._host}{path}", token, container, command, tty=tty)
        except Refused as refused:
            raise _refusal(refused.answer, path) from refused
        except ConnectionError as error:
            raise Unreachable(f"{self._host}: no connection to {pod}: {error}") from error

    def _path(self, kind: str, name: str = "") -> str:
        prefix, plural = RESOURCES[kind]
        scope = "" if kind in _CLUSTER_WIDE else f"/namespaces/{self.namespace}"
        return f"{prefix}{scope}/{plural}" + (f"/{name}" if name else "")

    def _list(self, path: str, labels: str, fields: str, metadata_only: bool) -> Object:
        accept = _METADATA_ONLY if metadata_only else "application/json"
        # Version 0 is answered from the API server's memory. Events are not kept there.
        query = {"resourceVersion": "0"} if not path.endswith("/events") else {}
        return self._json("GET", path, {**query, **_selectors(labels, fields)}, accept=accept)

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        return self._object(self._send(method, path, query or {}, body, content_type, accept))

    def _object(self, response: urllib3.BaseHTTPResponse) -> Object:
        """The answer, which every API server gives as an object of a kind.

        Raises:
            Unreachable: something else answered, such as the login page of a proxy.
        """
        try:
            answer = json.loads(response.data)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict) and "kind" in answer:
            return answer
        html = "html" in response.headers.get("Content-Type", "")
        found = "HTML: a login page or a proxy?" if html else one_line(response.data[:80].decode(errors="replace"))
        raise Unreachable(f"{self._host} does not answer as Kubernetes' API server does; found {found or 'nothing'}")

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        stream: float | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """One request, repeated while the server is down; ``stream`` is the read time-out of a stream, seconds."""
        import urllib3

        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": accept, "User-Agent": "maskfleet-launcher"}
        if token := self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization"):
            headers["Authorization"] = token
        if body is not None:
            headers["Content-Type"] = content_type
        failure: MaskfleetError | None = None
        waits = pauses(0.1, 2.0, timeout=self.patience)
        while True:
            try:
                response = self._pool.request(
                    method,
                    url,
                    headers=headers,
                    body=None if body is None else json.dumps(body).encode(),
                    preload_content=stream is None,
                    timeout=urllib3.Timeout(connect=5, read=stream or 30),
                    retries=False,
                )
            except urllib3.exceptions.SSLError as error:
                raise Unreachable(f"{self._host}: TLS: {error}") from error
            except (urllib3.exceptions.HTTPError, OSError, ssl.SSLError) as error:
                failure = Unreachable(f"the API server at {self._host} does not answer: {_root(error)}")
            else:
                if response.status < 400:
                    return response
                if method == "DELETE" and response.status == 404 and failure is not None:
                    return response  # the request before did it, and its answer was lost
                failure = _refusal(response, path)
                if response.status not in (429, 500, 502, 503, 504):
                    raise failure
            pause = next(waits, None)
            if pause is None:
                raise failure
            time.sleep(pause)

    def _lines(self, path: str, query: Mapping[str, str]) -> Iterator[bytes]:
        """Lines of a streamed answer, with their ends.

        Raises:
            ConnectionError: the stream broke off, or was silent for a minute, which a dead one is too.
        """
        import urllib3

        response = self._send("GET", path, query, stream=_STREAM_SILENCE)
        rest = b""
        try:
            while True:
                try:
                    piece = response.read1()
                except (urllib3.exceptions.HTTPError, OSError) as error:
                    raise ConnectionError(str(error)) from error
                if not piece:
                    break
                *lines, rest = (rest + piece).split(b"\n")
                yield from (line + b"\n" for line in lines)
            if rest:
                yield rest
        finally:
            response.close()


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


def resource_of(kind: str) -> tuple[str, str, str]:
    """API group, resource and subresource of ``KIND`` or ``KIND/SUBRESOURCE``, as access reviews name them."""
    name, _, subresource = kind.partition("/")
    prefix, plural = RESOURCES[name]
    return prefix.split("/")[2] if prefix.startswith("/apis/") else "", plural, subresource


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}


def _load_kubeconfig(file: str, context: str | None, configuration: Any) -> str:
    """Fills in ``configuration`` and returns the namespace of ``context``; without one the file's current one counts.

    ``load_kube_config`` tells no namespace, and ``list_kube_config_contexts`` wants a current context at any rate.
    """
    from kubernetes.config import ConfigException
    from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

    try:
        found = KubeConfigMerger(file)
        if found.config is None:
            raise ConfigException("there is no such file")
        loader = KubeConfigLoader(found.config, context, config_base_path=None, config_persister=found.save_changes)
        loader.load_and_set(configuration)
    except (AttributeError, KeyError, TypeError) as error:  # the library takes the YAML's form for granted
        raise ConfigException("expected clusters, contexts and users, found something else") from error
    return loader.current_context["context"].get("namespace") or "default"


def _refusal(response: urllib3.BaseHTTPResponse, path: str) -> MaskfleetError:
    try:
        status = json.loads(response.data)
        reason, message = status.get("reason", ""), status.get("message", "")
    except ValueError:
        reason, message = "", response.data[:200].decode(errors="replace")
    message = " ".join(message.split()) or f"HTTP {response.status} for {path}"
    if response.status == 404:
        return NotFound(message)
    if response.status == 401:
        message = "the API server does not accept the credentials of the kubeconfig: log in again"
    return ApiError(response.status, reason, message)


def _root(error: BaseException) -> str:
    """The cause that a person understands, at the end of urllib3's chain."""
    reason = getattr(error, "reason", None) or error.__cause__ or error
    return re.sub(r"^\[Errno -?\d+\] ", "", str(reason).rsplit(": ", 1)[-1])
