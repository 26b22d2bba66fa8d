"""Credentials from a program that the kubeconfig names (``exec``), as kubectl runs it.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.cluster.kubeconfig import ClusterEntry, Plugin
from maskfleet.errors import BadInput
from maskfleet.text import one_line

_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_CLUSTER_EXTENSION = "client.authentication.k8s.io/exec"


def ask_plugin(plugin: Plugin, cluster: ClusterEntry, where: str) -> Mapping[str, Any]:
    """Runs a credential plugin and returns the status that it answers with. ``where`` begins an error's line.

    Raises:
        BadInput: it is not there, fails, or gives no credentials.
    """
    if plugin.api_version not in _VERSIONS:
        raise BadInput(f"{where}: apiVersion: expected {' or '.join(_VERSIONS)}, found {plugin.api_version}")
    mode = plugin.interactive_mode or ("IfAvailable" if plugin.api_version.endswith("v1beta1") else "")
    if mode not in ("Never", "IfAvailable", "Always"):
        raise BadInput(f"{where}: interactiveMode: expected Never, IfAvailable or Always, found {mode or 'nothing'}")
    asks = sys.stdin is not None and sys.stdin.isatty()
    if mode == "Always" and not asks:
        raise BadInput(f"{where}: wants to ask, and standard input is no terminal: log in with it first")
    interactive = mode != "Never" and asks
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.provide_cluster_info:
        spec["cluster"] = _cluster_info(cluster)
    request = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    variables = {each.name: each.value for each in plugin.env or []}
    told = None if sys.stderr is not None and sys.stderr.isatty() else subprocess.PIPE  # at a terminal it may ask there
    try:
        done = subprocess.run(
            [plugin.command, *(plugin.args or [])],
            env={**os.environ, **variables, "KUBERNETES_EXEC_INFO": json.dumps(request)},
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=told,
            check=False,
        )
    except (OSError, ValueError) as error:
        hint = f": {one_line(plugin.install_hint)}" if plugin.install_hint else ""
        raise BadInput(f"{where}: can't be run: {getattr(error, 'strerror', None) or error}{hint}") from error
    if done.returncode:
        said = one_line((done.stderr or b"").decode(errors="replace"))
        raise BadInput(f"{where}: gave no credentials, exit code {done.returncode}" + (f": {said}" if said else ""))
    return _status(done.stdout, plugin.api_version, where)


def _cluster_info(cluster: ClusterEntry) -> Mapping[str, Any]:
    authority = cluster.certificate_authority_data
    if not authority and cluster.certificate_authority:
        authority = base64.b64encode(Path(cluster.certificate_authority).read_bytes()).decode()
    known = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": authority,
        "proxy-url": cluster.proxy_url,
        "config": next((e.extension for e in cluster.extensions or [] if e.name == _CLUSTER_EXTENSION), None),
    }
    return {key: value for key, value in known.items() if value}


def _status(printed: bytes, version: str, where: str) -> Mapping[str, Any]:
    try:
        answer = json.loads(printed)
    except (ValueError, RecursionError):
        answer = None
    status = answer.get("status") if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or answer.get("kind") != "ExecCredential" or not isinstance(status, dict):
        # What it printed may hold half of a secret: it is not shown.
        raise BadInput(f"{where}: expected an ExecCredential with its status in JSON, found {len(printed)} other bytes")
    if answer.get("apiVersion") != version:
        raise BadInput(
            f"{where}: expected apiVersion {version}, found {one_line(str(answer.get('apiVersion')))}: "
            "let the kubeconfig name the version that the plugin speaks"
        )
    return status
