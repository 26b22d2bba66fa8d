"""Who we are to the API server: a token, a password or a certificate, and how it is renewed when it has expired."""

from __future__ import annotations

import atexit
import base64
import binascii
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from launcher.cluster.exec_plugin import ask_plugin
from launcher.cluster.kubeconfig import Access, UserEntry
from maskfleet.errors import BadInput
from maskfleet.files import read_plain
from maskfleet.text import one_line

_LONGEST_TOKEN = 1 << 20
"""Bytes of a file with a token."""
_TOKEN_FILE_SECONDS = 60.0
"""A token in a file is exchanged there before it expires, in a pod every hour; client-go looks as often."""

_OF_A_HEADER = "!#$&'*+^`|~"
"""What a header's name may have besides letters, digits and ``-._`` (RFC 9110, token), but for the escaping ``%``."""


@dataclass(frozen=True)
class Identity:
    """What a request carries: a header, and the files of a client certificate. ``until`` is by ``time.monotonic``."""

    authorization: str | None = None
    certificate: str | None = None
    key: str | None = None
    until: float = field(default=float("inf"), compare=False)


class Credentials:
    """The identity of a user, asked for when it is first needed, and again once it has expired or is refused."""

    def __init__(self, ask: Callable[[], Identity] = Identity) -> None:
        self._ask = ask
        self._identity: Identity | None = None
        self._lock = threading.Lock()

    def current(self) -> Identity:
        """Raises BadInput if there are no credentials."""
        with self._lock:
            if self._identity is None or time.monotonic() >= self._identity.until:
                self._identity = self._ask()
            return self._identity

    def instead_of(self, refused: Identity) -> Identity | None:
        """Another identity than the one that the server has just refused; None if there is no other."""
        with self._lock:
            if self._identity == refused:  # nobody else has renewed it meanwhile
                self._identity = self._ask()
            return None if self._identity == refused else self._identity


def credentials_of(access: Access) -> Credentials:
    """The credentials of a kubeconfig's user, or of a pod. Runs nothing yet.

    Raises:
        BadInput: what it says of them contradicts itself, or names a file that can't be read.
    """
    user = access.user
    where = f"{access.origin}: user {access.user_name}".rstrip()
    password = user.username or user.password
    if password and (user.token or user.token_file):
        raise BadInput(f"{where}: expected a token or a username with its password, found both")
    if user.exec and user.auth_provider:
        raise BadInput(f"{where}: expected exec or auth-provider, found both")
    certificate = file_of(user.client_certificate, user.client_certificate_data, f"{where}: client-certificate")
    key = file_of(user.client_key, user.client_key_data, f"{where}: client-key")
    if bool(certificate) != bool(key):
        there, missing = ("client-certificate", "client-key")[:: 1 if certificate else -1]
        raise BadInput(f"{where}: expected a {missing} beside its {there}, found none")
    own = Identity(None, certificate, key)
    if user.token_file:
        return Credentials(lambda: _from_file(user, own, where))
    if user.token:
        return _fixed(own, f"Bearer {user.token}")
    if password:
        pair = f"{user.username or ''}:{user.password or ''}".encode()
        return _fixed(own, "Basic " + base64.b64encode(pair).decode())
    if user.exec:
        plugin = user.exec
        where = f"{where}: {plugin.command}"
        return Credentials(lambda: _identity(ask_plugin(plugin, access.cluster, where), own, where))
    if user.auth_provider:
        return Credentials(lambda: _from_provider(access, own, where))
    if not certificate:
        raise BadInput(f"{where}: expected a token, a certificate, exec or a username with its password, found none")
    return _fixed(own, None)


def impersonation(user: UserEntry) -> list[tuple[str, str]]:
    """The headers by which the user acts as another one."""
    headers = [("Impersonate-User", user.as_), ("Impersonate-Uid", user.as_uid)]
    headers += [("Impersonate-Group", group) for group in user.as_groups or []]
    for key, values in (user.as_user_extra or {}).items():
        # A key such as example.com/scopes is no name of a header as it is; the server undoes this.
        headers += [(f"Impersonate-Extra-{quote(key, safe=_OF_A_HEADER)}", value) for value in values]
    return [(name, value) for name, value in headers if value]


def file_of(path: str | None, data: str | None, what: str) -> str | None:
    """The file ``path``, or one with ``data`` (base64), which counts before it; None without both.

    Raises:
        BadInput: it can't be read, or is no base64.
    """
    if data:
        try:
            # Line ends in it are passed over, as by kubectl: a YAML block has them.
            return _kept_file(base64.b64decode(data.replace("\n", "").replace("\r", ""), validate=True))
        except (binascii.Error, ValueError) as error:
            raise BadInput(f"{what}-data: expected base64: {error}") from error
    if path:
        try:
            with Path(path).open("rb"):
                return path
        except OSError as error:
            raise BadInput(f"{what} {path}: can't be read: {error.strerror}") from error
    return None


def _fixed(own: Identity, authorization: str | None) -> Credentials:
    identity = Identity(authorization, own.certificate, own.key)
    return Credentials(lambda: identity)


def _from_file(user: UserEntry, own: Identity, where: str) -> Identity:
    """The token that is in its file now; what was written beside it counts while the file can't be read."""
    assert user.token_file is not None
    try:
        token = read_plain(Path(user.token_file), _LONGEST_TOKEN).decode().strip()
    except (OSError, ValueError) as error:
        token = ""
        why = getattr(error, "strerror", None) or "is no text"
    else:
        why = "is empty"
    token = token or user.token or ""
    if not token:
        raise BadInput(f"{where}: tokenFile {user.token_file}: {why}")
    return Identity(f"Bearer {token}", own.certificate, own.key, time.monotonic() + _TOKEN_FILE_SECONDS)


def _identity(status: Mapping[str, Any], own: Identity, where: str) -> Identity:
    token, certificate, key = (status.get(name) for name in ("token", "clientCertificateData", "clientKeyData"))
    texts = all(isinstance(value, str) for value in (token, certificate, key) if value is not None)
    if not texts or bool(certificate) != bool(key) or not (token or certificate):
        raise BadInput(f"{where}: expected a token, or a certificate with its key, in its answer's status")
    until = float("inf")
    if expires := status.get("expirationTimestamp"):
        try:
            moment = datetime.fromisoformat(expires)
            until = time.monotonic() + (moment - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError) as error:
            raise BadInput(f"{where}: expirationTimestamp: expected a time as 2030-01-01T00:00:00Z") from error
    return Identity(
        f"Bearer {token}" if token else None,
        _kept_file(certificate.encode()) if certificate else own.certificate,
        _kept_file(key.encode()) if key else own.key,
        until,
    )


def _from_provider(access: Access, own: Identity, where: str) -> Identity:
    """What the kubernetes package makes of an auth-provider, which kubectl is about to give up too.

    A renewed token is written back into the kubeconfig, as the provider's refresh token may be used only once.
    """
    from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

    name = (access.user.auth_provider or {}).get("name")
    if name not in ("oidc", "gcp"):
        raise BadInput(f"{where}: auth-provider: expected oidc, found {name}: use the exec plugin that replaced it")
    try:
        merger = KubeConfigMerger(str(access.file))
        user = next(each for each in merger.config_files[str(access.file)]["users"] if each["name"] == access.user_name)
        content = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": access.user_name}}],
            "clusters": [{"name": "c", "cluster": {}}],
            "users": [user],
        }
        loader = KubeConfigLoader(
            content, config_base_path=str(access.file.parent), config_persister=merger.save_changes
        )
        loader._load_authentication()
        token = getattr(loader, "token", None)
    except Exception as error:  # of a library for each provider
        raise BadInput(f"{where}: auth-provider {name}: {one_line(str(error))}: log in again") from error
    if not token:
        raise BadInput(f"{where}: auth-provider {name}: gives no token that is valid: log in again")
    return Identity(token, own.certificate, own.key, time.monotonic() + _TOKEN_FILE_SECONDS)


_kept: dict[bytes, str] = {}
_kept_lock = threading.Lock()


def _kept_file(content: bytes) -> str:
    """A file with ``content`` for this process alone: OpenSSL reads certificates and keys from nowhere else.

    On Linux it is in memory, so that no key stays on the disk however this process ends.
    """
    with _kept_lock:
        if content not in _kept:
            if hasattr(os, "memfd_create"):
                descriptor = os.memfd_create("maskfleet")
                _kept[content] = f"/proc/self/fd/{descriptor}"
                Path(_kept[content]).write_bytes(content)
            else:
                if not _kept:
                    atexit.register(_forget_files)
                with tempfile.NamedTemporaryFile(prefix="maskfleet-", delete=False) as file:
                    file.write(content)
                _kept[content] = file.name
        return _kept[content]


def _forget_files() -> None:
    for name in _kept.values():
        with contextlib.suppress(OSError):
            Path(name).unlink()
