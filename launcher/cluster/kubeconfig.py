"""Which cluster, user and namespace a kubeconfig names, read as kubectl reads it. Runs no plugin, sends nothing.

Of several files in ``KUBECONFIG`` the first that names a cluster, user, context or current context counts, for all of
that entry; files that are not there are passed over. A relative path is relative to its own file. The rules are those
of https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from maskfleet.errors import BadInput
from maskfleet.text import one_line

POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod has its own account: ``token``, ``ca.crt`` and ``namespace``."""
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Entry(BaseModel):
    """What we know of an entry; the rest of it is somebody else's. A null is as good as nothing."""

    model_config = ConfigDict(
        extra="ignore", strict=True, frozen=True, populate_by_name=True, alias_generator=lambda n: n.replace("_", "-")
    )


class Extension(_Entry):
    name: str
    extension: Any = None


class ClusterEntry(_Entry):
    server: str | None = None
    tls_server_name: str | None = None
    insecure_skip_tls_verify: bool | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    proxy_url: str | None = None
    extensions: list[Extension] | None = None


class Variable(_Entry):
    name: str
    value: str = ""


class Plugin(_Entry):
    """A program that gives credentials: ``exec`` of a user."""

    model_config = ConfigDict(alias_generator=to_camel)

    command: str
    args: list[str] | None = None
    env: list[Variable] | None = None
    api_version: str
    install_hint: str | None = None
    interactive_mode: str | None = None
    provide_cluster_info: bool | None = None


class UserEntry(_Entry):
    token: str | None = None
    token_file: str | None = Field(default=None, validation_alias="tokenFile")
    username: str | None = None
    password: str | None = None
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    exec: Plugin | None = None
    auth_provider: dict[str, Any] | None = None
    as_: str | None = Field(default=None, validation_alias="as")
    as_uid: str | None = None
    as_groups: list[str] | None = None
    as_user_extra: dict[str, list[str]] | None = None


class ContextEntry(_Entry):
    cluster: str | None = None
    user: str | None = None
    namespace: str | None = None


class _Cluster(_Entry):
    name: str
    cluster: ClusterEntry | None = None


class _User(_Entry):
    name: str
    user: UserEntry | None = None


class _Context(_Entry):
    name: str
    context: ContextEntry | None = None


class _File(_Entry):
    current_context: str | None = None
    clusters: list[_Cluster] | None = None
    users: list[_User] | None = None
    contexts: list[_Context] | None = None


@dataclass(frozen=True)
class Access:
    """A cluster, who we are there, and the namespace. Paths in it are absolute.

    Attributes:
        context: its name in the kubeconfig; None in a pod, which has its own account and no kubeconfig.
        file: the kubeconfig that describes the user.
    """

    context: str | None
    cluster: ClusterEntry
    user: UserEntry
    namespace: str
    user_name: str = ""
    file: Path = Path()

    @property
    def origin(self) -> str:
        """Where this is said, for an error."""
        return "this pod's own account" if self.context is None else f"kubeconfig {self.file}: context {self.context}"


def find(kubeconfig: Path | None, context: str | None) -> Access:
    """What ``kubeconfig`` (``KUBECONFIG``, ~/.kube/config) names, or where it names nothing the account of this pod.

    Raises:
        BadInput: there is no configuration, it can't be read, or it has no such context.
    """
    places = _places(kubeconfig)
    origin = "kubeconfig " + os.pathsep.join(map(str, places))
    mend = "; name another with --kubeconfig or --context"
    read = {place: _read(place, mend) for place in places}
    files = {place: file for place, file in read.items() if file is not None}
    if kubeconfig and not files:
        raise BadInput(f"{origin}: there is no such file{mend}")
    chosen = context or next((file.current_context for file in files.values() if file.current_context), None)
    if chosen is None:
        if kubeconfig is None and is_in_pod():
            return _of_pod()
        if not files:
            raise BadInput(f"{origin}: there is no such file{mend}")
        raise BadInput(f"{origin}: expected a current-context, found none{mend}")
    entry, _ = _first(chosen, ((file.contexts, place) for place, file in files.items()))
    if entry is None:
        known = sorted({each.name for file in files.values() for each in file.contexts or []})
        found = f"found {', '.join(known[:10])}{', …' * (len(known) > 10)}" if known else "found none"
        raise BadInput(f"{origin}: expected a context {chosen}, {one_line(found)}{mend}")
    named = entry.context or ContextEntry()
    cluster, home = _first(named.cluster or "", ((file.clusters, place) for place, file in files.items()))
    if cluster is None or cluster.cluster is None or not cluster.cluster.server:
        raise BadInput(f"{origin}: context {chosen}: expected a cluster {named.cluster} with its server{mend}")
    user, users_file = _first(named.user or "", ((file.users, place) for place, file in files.items()))
    return Access(
        chosen,
        _absolute(cluster.cluster, home, "certificate_authority"),
        _absolute_user((user and user.user) or UserEntry(), users_file),
        named.namespace or (_pods_namespace() if is_in_pod() else "") or "default",
        named.user or "",
        users_file,
    )


def checked_namespace(namespace: str, origin: str) -> str:
    """``namespace``, which becomes a part of each request's path; ``origin`` says where it stands.

    Raises:
        BadInput: no namespace can be called so.
    """
    if not _NAMESPACE.fullmatch(namespace):
        raise BadInput(
            f"{origin}: namespace: expected at most 63 lower-case letters, digits and '-', found "
            f"{one_line(repr(namespace), 80)}; name one with --namespace"
        )
    return namespace


def is_in_pod() -> bool:
    """Whether this is a pod that may talk to its cluster."""
    variables = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
    return all(os.environ.get(name) for name in variables) and (POD / "token").is_file()


def _of_pod() -> Access:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    cluster = ClusterEntry(server=server, certificate_authority=str(POD / "ca.crt"))
    return Access(None, cluster, UserEntry(token_file=str(POD / "token")), _pods_namespace() or "default")


def _pods_namespace() -> str:
    if named := os.environ.get("POD_NAMESPACE"):
        return named
    try:
        return (POD / "namespace").read_text().strip()
    except (OSError, ValueError):
        return ""


def _places(kubeconfig: Path | None) -> Sequence[Path]:
    if kubeconfig is not None:
        return [kubeconfig.expanduser()]
    if listed := os.environ.get("KUBECONFIG"):
        # A shell has expanded a ~ where it does so; kubectl takes what is left for a name, and so do we.
        return [Path(part) for part in dict.fromkeys(listed.split(os.pathsep)) if part]
    return [Path("~/.kube/config").expanduser()]


def _read(place: Path, mend: str) -> _File | None:
    """The file's content; None if it is not there."""
    try:
        content = next(yaml.load_all(place.read_bytes(), Loader=_LOADER), None)  # a pipe too, as of <(…)
        file = _File.model_validate({} if content is None else content)
        if not (twice := _twice(file)):
            return file
        why = f"{twice}; remove all but one"
    except FileNotFoundError:
        return None
    except OSError as error:
        why = error.strerror or str(error)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        said = problem["msg"][:1].lower() + problem["msg"][1:]
        why = f"{where}: {said}" if where else "expected clusters, contexts and users, found something else"
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = "expected YAML: " + one_line(str(error))
    raise BadInput(f"kubeconfig {place}: {why}{mend}")


def _twice(file: _File) -> str | None:
    """What is named twice in one file, in words: kubectl goes nowhere then."""
    for what, entries in (("clusters", file.clusters), ("users", file.users), ("contexts", file.contexts)):
        name, times = next(iter(Counter(entry.name for entry in entries or []).most_common(1)), ("", 0))
        if times > 1:
            return f"{what}: expected each name once, found {one_line(name, 80)} {times} times"
    return None


Named = TypeVar("Named", _Cluster, _User, _Context)


def _first(name: str, lists: Iterable[tuple[list[Named] | None, Path]]) -> tuple[Named | None, Path]:
    """The first entry of this name, with the file that has it."""
    found = ((entry, place) for entries, place in lists for entry in entries or [] if entry.name == name)
    return next(found, (None, Path()))


def _absolute_user(user: UserEntry, home: Path) -> UserEntry:
    user = _absolute(user, home, "client_certificate", "client_key", "token_file")
    if user.exec and os.sep in user.exec.command:  # a bare name is looked for on PATH
        return user.model_copy(update={"exec": _absolute(user.exec, home, "command")})
    return user


Paths = TypeVar("Paths", ClusterEntry, UserEntry, Plugin)


def _absolute(entry: Paths, home: Path, *fields: str) -> Paths:
    folder = home.absolute().parent
    paths = {field: str(folder / path) for field in fields if (path := getattr(entry, field))}
    return entry.model_copy(update=paths)
