"""Which cluster a kubeconfig names, and what is said of one that names none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.cluster.kubernetes_api import Cluster
from maskfleet.errors import BadInput


def kubeconfig(folder: Path, **fields: Any) -> Path:
    """A file with the contexts ``here``, in the namespace ``team``, and ``there``, without a current one."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "team"}},
            {"name": "there", "context": {"cluster": "c", "user": "u"}},
        ],
    }
    file = folder / "config"
    file.write_text(json.dumps({**content, **fields}))
    return file


@pytest.mark.parametrize(
    ("current", "context", "namespace"),
    [("here", None, "team"), ("here", "there", "default"), (None, "here", "team"), (None, "there", "default")],
)
def test_a_context_that_is_named_needs_no_current_one(
    current: str | None, context: str | None, namespace: str, tmp_path: Path
) -> None:
    file = kubeconfig(tmp_path, **({"current-context": current} if current else {}))
    assert Cluster.connect(context=context, kubeconfig=file).namespace == namespace
    assert Cluster.connect("other", context=context, kubeconfig=file).namespace == "other"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("clusters: [", "while parsing a flow node"),
        ("a: b: c", "mapping values are not allowed in this context"),
        ("", "expected a current-context, found none"),
        ("words", "expected clusters, contexts and users, found something else"),
        ("[1, 2]", "expected clusters, contexts and users, found something else"),
        ("contexts: 5", "contexts: input should be a valid list"),
        ("contexts: []", "expected a current-context, found none"),
        ("current-context: gone", "expected a context gone, found none"),
        (b"\xff\xfe\x00", ""),
        (Path(), "Is a directory"),
        (None, "there is no such file"),
    ],
    ids=str,
)
def test_a_kubeconfig_that_can_not_be_used_gets_one_line(
    content: str | bytes | Path | None, found: str, tmp_path: Path
) -> None:
    file = tmp_path / "config"
    if isinstance(content, str | bytes):
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    elif content is not None:
        file.mkdir()
    with pytest.raises(BadInput) as error:
        Cluster.connect(kubeconfig=file)
    told = str(error.value)
    assert told.startswith(f"kubeconfig {file}: ")
    assert found in told
    assert told.endswith("; name another with --kubeconfig or --context")
    assert "\n" not in told
