"""The same kubeconfig, read by kubectl and by the launcher: the same server, credentials and namespace, or neither."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.cluster import kubeconfig
from launcher.cluster.kubernetes_api import Cluster
from maskfleet.errors import BadInput, MaskfleetError
from tests.fakes.http import Answer, HttpFake, Request
from tests.helpers.tls_front import Tunnel, certificate

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="not run: needs kubectl on PATH, to compare with")

V1 = "client.authentication.k8s.io/v1"


class ApiServer(HttpFake):
    """As much of an API server as kubectl needs to list ConfigMaps."""

    def perform(self, request: Request, *, whole: bool) -> Answer:
        match request.path.removeprefix("/sub"):
            case "/api":
                return Answer.of({"kind": "APIVersions", "versions": ["v1"]})
            case "/apis":
                return Answer.of({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})
            case "/api/v1":
                maps = {"name": "configmaps", "singularName": "", "namespaced": True, "kind": "ConfigMap"}
                resources = [{**maps, "verbs": ["list"]}]
                return Answer.of({"kind": "APIResourceList", "groupVersion": "v1", "resources": resources})
        return Answer.of({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {}, "items": []})


@dataclass
class Ground:
    """Servers and a folder that the cases write into; ``asked`` is what plugins were asked."""

    folder: Path
    servers: Mapping[str, ApiServer]
    tunnel: str
    authority: Path
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, **content: Any) -> str:
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
        return str(file)

    def url(self, name: str) -> str:
        return self.servers[name].url

    def plugin(self, name: str, status: Mapping[str, Any]) -> None:
        """A plugin that notes what it was asked and answers with ``status``."""
        answer = json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status})
        file = self.folder / name
        note = f'echo "$KUBERNETES_EXEC_INFO $* $EXTRA" >> {self.folder}/asked'
        file.write_text(f"#!/bin/sh\n{note}\necho '{answer}'\n")
        file.chmod(0o755)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mapping[str, ApiServer], str, Path]]:
    context, authority = certificate(tmp_path_factory.mktemp("tls"))
    with (
        ApiServer("127.0.0.1", 0, context) as a,
        ApiServer("127.0.0.1", 0, context) as b,
        ApiServer("127.0.0.1", 0) as plain,
        Tunnel(a.port) as tunnel,
    ):
        yield {"a": a, "b": b, "plain": plain}, tunnel.url, authority


@pytest.fixture
def ground(servers: tuple[Mapping[str, ApiServer], str, Path], tmp_path: Path) -> Ground:
    found, tunnel, authority = servers
    for server in found.values():
        server.requests.clear()
    return Ground(tmp_path, found, tunnel, authority)


def cluster(server: str, **more: Any) -> list[Any]:
    tls = more or {"insecure-skip-tls-verify": True}
    return [{"name": "c", "cluster": {"server": server, **tls}}]


def user(**fields: Any) -> list[Any]:
    return [{"name": "u", "user": fields}]


def context(name: str, **more: Any) -> Any:
    return {"name": name, "context": {"cluster": "c", "user": "u", **more}}


def whole(ground: Ground, name: str = "config", *, server: str | None = None, **fields: Any) -> str:
    """A file with everything; ``fields`` replace parts of it."""
    content = {"current-context": "x", "clusters": cluster(server or ground.url("a")), "users": user(token="t"),
               "contexts": [context("x", namespace="team")]}  # fmt: skip
    return ground.write(name, **{**content, **fields})


def exec_user(command: str, **more: Any) -> list[Any]:
    return user(exec={"apiVersion": V1, "command": command, "interactiveMode": "Never", **more})


def token_file(ground: Ground, **beside: Any) -> str:
    (ground.folder / "token").write_text("from-file\n")
    return whole(ground, users=user(tokenFile="token", **beside))


def with_plugin(ground: Ground, command: str, **more: Any) -> str:
    ground.plugin("plugin", {"token": "of-plugin"})
    ground.environment["PATH"] = f"{ground.folder}:{os.environ['PATH']}"
    return whole(ground, users=exec_user(command, **more))


def tls(ground: Ground, **more: Any) -> str:
    (ground.folder / "ca.pem").write_bytes(ground.authority.read_bytes())
    return whole(ground, clusters=cluster(ground.url("a"), **more))


def in_base64(ground: Ground) -> str:
    return base64.b64encode(ground.authority.read_bytes()).decode()


NAME = "storage.googleapis.com"
"""A name of the certificate, which is for no address."""

CASES: Mapping[str, Callable[[Ground], str]] = {
    "one file": whole,
    "the first current context counts": lambda g: ":".join([
        whole(g, "1", **{"current-context": "y"}, contexts=[context("y", namespace="one")]),
        whole(g, "2", **{"current-context": "x"}, contexts=[context("x", namespace="two")]),
    ]),
    "an empty current context is none": lambda g: ":".join([
        g.write("1", **{"current-context": ""}), whole(g, "2"),
    ]),
    "the first entry of a name counts": lambda g: ":".join([
        g.write("1", clusters=cluster(g.url("b")), users=user(username="me", password="pw")), whole(g, "2"),
    ]),
    "an entry counts whole": lambda g: ":".join([
        g.write("1", contexts=[context("x")]), whole(g, "2"),
    ]),
    "a context's parts in three files": lambda g: ":".join([
        g.write("1", clusters=cluster(g.url("b"))), g.write("2", users=user(token="two")),
        g.write("3", **{"current-context": "x"}, contexts=[context("x", namespace="three")]),
    ]),
    "missing and empty files are passed over": lambda g: ":".join([
        str(g.folder / "none"), "", str(Path("/dev/null")), whole(g),
    ]),
    "only missing files": lambda g: f"{g.folder}/none:{g.folder}/neither",
    "a ~ that the shell has left": lambda g: (whole(g, "home/kept", server=g.url("b")), f"~/kept:{whole(g)}")[1],
    "a file that is no YAML": lambda g: ":".join([_text(g, "1", "a: b: c"), whole(g)]),
    "a file of two documents": lambda g: _text(g, "1", Path(whole(g)).read_text() + "\n---\nfoo: bar\n"),
    "a context named twice in one file": lambda g: whole(g, contexts=[context("x"), context("x", namespace="two")]),
    "a cluster named twice in one file": lambda g: whole(g, clusters=cluster(g.url("a")) + cluster(g.url("b"))),
    "a user named twice in one file": lambda g: whole(g, users=user(token="t") + user(token="t")),
    "a file that is no mapping": lambda g: ":".join([_text(g, "1", "words"), whole(g)]),
    "a folder": lambda g: ":".join([str(g.folder), whole(g)]),
    "nulls": lambda g: ":".join([g.write("1", clusters=None, users=None, contexts=None), whole(g)]),
    "no namespace": lambda g: whole(g, contexts=[context("x")]),
    "no current context": lambda g: whole(g, **{"current-context": None}, clusters=cluster("http://127.0.0.1:1")),
    "a current context that is gone": lambda g: whole(g, **{"current-context": "gone"}),
    "a cluster that is gone": lambda g: whole(g, clusters=[]),
    "a user that is gone": lambda g: whole(g, users=[]),
    "a context without a user": lambda g: whole(g, contexts=[{"name": "x", "context": {"cluster": "c"}}]),
    "a context without a user or TLS": lambda g: whole(
        g, server=g.url("plain"), contexts=[{"name": "x", "context": {"cluster": "c"}}]),
    "a cluster without a server": lambda g: whole(g, clusters=[{"name": "c", "cluster": {}}]),
    "a server without a scheme": lambda g: whole(g, clusters=[
        {"name": "c", "cluster": {"server": g.url("plain").removeprefix("http://")}}]),
    "a server without TLS": lambda g: whole(g, server=g.url("plain")),
    "a server without TLS, and a plugin": lambda g: (g.plugin("plugin", {"token": "of-plugin"}), whole(
        g, server=g.url("plain"), users=exec_user("./plugin")))[1],
    "a server with a path": lambda g: whole(g, server=g.url("a") + "/sub/"),
    "a token that is a number": lambda g: whole(g, users=user(token=5)),
    "a password": lambda g: whole(g, users=user(username="me", password="pw")),
    "a password and a token": lambda g: whole(g, users=user(username="me", password="pw", token="t")),
    "a token in a file": token_file,
    "a token in a file beside another": lambda g: token_file(g, token="other"),
    "a token file that is not there": lambda g: whole(g, users=user(tokenFile="none")),
    "another user": lambda g: whole(g, users=user(**{
        "token": "t", "as": "chief", "as-uid": "7", "as-groups": ["g"], "as-user-extra": {"why": ["because"]}})),
    "a plugin on PATH": lambda g: with_plugin(g, "plugin"),
    "a plugin beside the file": lambda g: with_plugin(g, "./plugin"),
    "a plugin with arguments and variables": lambda g: with_plugin(
        g, "plugin", args=["one", "two words"], env=[{"name": "EXTRA", "value": "more"}]),
    "a plugin with nulls": lambda g: with_plugin(g, "plugin", args=None, env=None),
    "a plugin that is told the cluster": lambda g: with_plugin(g, "plugin", provideClusterInfo=True),
    "a plugin that is not there": lambda g: whole(g, users=exec_user("no-such-plugin")),
    "a plugin that fails": lambda g: whole(g, users=exec_user("false")),
    "a plugin that prints nonsense": lambda g: whole(g, users=exec_user("echo", args=["hello"])),
    "a plugin that prints nothing": lambda g: whole(g, users=exec_user("true")),
    "a plugin that gives nothing": lambda g: (g.plugin("plugin", {}), whole(g, users=exec_user("./plugin")))[1],
    "a plugin of an unknown version": lambda g: with_plugin(g, "plugin", apiVersion="client.authentication.k8s.io/v7"),
    "a plugin of another version": lambda g: with_plugin(g, "plugin", apiVersion=V1 + "beta1"),
    "a plugin that must ask": lambda g: with_plugin(g, "plugin", interactiveMode="Always"),
    "a plugin that says not whether it asks": lambda g: with_plugin(g, "plugin", interactiveMode=None),
    "a plugin beside a token": lambda g: (g.plugin("plugin", {"token": "of-plugin"}), whole(g, users=user(
        token="t", exec={"apiVersion": V1, "command": "./plugin", "interactiveMode": "Never"})))[1],
    "an auth-provider that is no more": lambda g: whole(g, users=user(**{"auth-provider": {"name": "azure"}})),
    "a certificate authority beside the file": lambda g: tls(
        g, **{"certificate-authority": "ca.pem", "tls-server-name": NAME}),
    "a certificate authority in it": lambda g: tls(
        g, **{"certificate-authority-data": in_base64(g), "tls-server-name": NAME}),
    "a certificate authority that is not there": lambda g: tls(
        g, **{"certificate-authority": "none.pem", "tls-server-name": NAME}),
    "a certificate for another name": lambda g: tls(g, **{"certificate-authority": "ca.pem"}),
    "a certificate of nobody": lambda g: tls(g, **{"tls-server-name": NAME}),
    "a certificate that is not looked at": lambda g: tls(g, **{"insecure-skip-tls-verify": True}),
    "a certificate authority that is not to be looked at": lambda g: tls(
        g, **{"certificate-authority": "ca.pem", "insecure-skip-tls-verify": True}),
    "a certificate authority of a server without TLS": lambda g: tls(g) and whole(g, clusters=cluster(
        g.url("plain"), **{"certificate-authority": "ca.pem", "insecure-skip-tls-verify": True})),
    "a proxy": lambda g: whole(g, clusters=cluster(
        f"https://{NAME}", **{"proxy-url": g.tunnel, "certificate-authority-data": in_base64(g)})),
    "a proxy of the environment": lambda g: (g.environment.update(HTTPS_PROXY=g.tunnel), whole(g, clusters=cluster(
        f"https://{NAME}", **{"certificate-authority-data": in_base64(g)})))[1],
    "a proxy of the environment is not for this machine": lambda g: (
        g.environment.update(HTTPS_PROXY="http://127.0.0.1:1"), whole(g))[1],
    "NO_PROXY is not about proxy-url": lambda g: (g.environment.update(NO_PROXY="*"), whole(g, clusters=cluster(
        f"https://{NAME}", **{"proxy-url": g.tunnel, "certificate-authority-data": in_base64(g)})))[1],
    "a client certificate without its key": lambda g: tls(
        g, **{"insecure-skip-tls-verify": True}) and whole(g, users=user(**{"client-certificate": "config"})),
}  # fmt: skip


def _text(ground: Ground, name: str, text: str) -> str:
    (ground.folder / name).write_text(text)
    return str(ground.folder / name)


def _question(text: str) -> Any:
    """What a plugin was asked; what is null was not said."""
    without_nulls = json.JSONDecoder(object_hook=lambda found: {k: v for k, v in found.items() if v is not None})
    question, end = without_nulls.raw_decode(text)
    return question, text[end:].split()


SHOWN = ("authorization", "impersonate-user", "impersonate-uid", "impersonate-group", "impersonate-extra-why")


def outcome(ground: Ground) -> list[Any]:
    """What the servers were asked for last and what plugins were asked, since the last call."""
    asked = [
        (name, request.path, {key: request.headers.get(key) for key in SHOWN})
        for name, server in ground.servers.items()
        for request in server.requests
        if request.path.endswith("configmaps")
    ]
    for server in ground.servers.values():
        server.requests.clear()
    file = ground.folder / "asked"
    plugins = _question(file.read_text()) if file.exists() else None
    file.unlink(missing_ok=True)
    return [asked, plugins]


@pytest.mark.parametrize("name", CASES)
def test_the_launcher_goes_where_kubectl_goes(
    name: str, ground: Ground, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "KUBERNETES_SERVICE_HOST", "POD_NAMESPACE"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", CASES[name](ground))
    for variable, value in ground.environment.items():
        monkeypatch.setenv(variable, value)
    assert KUBECTL
    done = subprocess.run(
        [KUBECTL, "get", "configmaps", "--request-timeout=5s"], capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    expected = outcome(ground)
    assert bool(expected[0]) == (done.returncode == 0), done.stderr
    refusal = ""
    try:
        Cluster.connect().patient(0).list("ConfigMap")
    except MaskfleetError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert bool(refusal) == (done.returncode != 0), refusal or done.stderr
    found = outcome(ground)
    assert found == expected if not refusal else not found[0], (found, expected, done.stderr)


NAMES = st.sampled_from(["a", "b"])
OPTIONAL_NAMES = st.sampled_from(["a", "b", "", None])


def entries(kind: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A list of named entries, each name once; or none, in the ways in which that is written."""
    named = st.builds(lambda name, value: {"name": name, kind: value}, NAMES, values)
    return st.sampled_from([None, []]) | st.lists(named, max_size=2, unique_by=lambda entry: entry["name"])


CLUSTER = st.builds(lambda n: {"server": f"https://{n}.example"}, st.sampled_from("pqrs"))
USER = st.builds(lambda n: {"token": n}, st.sampled_from("pqrs"))
CONTEXT = st.fixed_dictionaries({"cluster": NAMES}, optional={"user": NAMES, "namespace": OPTIONAL_NAMES})
CONTENT = st.fixed_dictionaries(
    {},
    optional={"current-context": OPTIONAL_NAMES, "clusters": entries("cluster", CLUSTER),
              "users": entries("user", USER), "contexts": entries("context", CONTEXT)},
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(files=st.lists(CONTENT, min_size=1, max_size=3), context=st.sampled_from([None, None, "a"]))
def test_files_are_merged_as_kubectl_merges_them(files: list[Any], context: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder) / str(number) for number in range(len(files))]
        for place, content in zip(places, files, strict=True):
            place.write_text(json.dumps(content))
        listed = ":".join(map(str, places))
        command = [str(KUBECTL), "config", "view", "--minify", "--raw", "-o", "json"]
        command += ["--context", context] if context else []
        environment = {**os.environ, "KUBECONFIG": listed, "HOME": folder}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", listed)
            patch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
            try:
                found = kubeconfig.find(None, context)
            except BadInput as error:
                assert done.returncode != 0, error  # noqa: PT017
                return
    if done.returncode:  # kubectl shows no context whose user is missing, and would go there without one
        assert "user" in done.stderr.lower() or "auth info" in done.stderr.lower(), done.stderr
        assert found.user.token is None
        return
    shown = json.loads(done.stdout)
    (chosen,) = shown["contexts"]
    tokens = [each["user"].get("token") for each in shown["users"] or []] or [None]
    assert found.context == chosen["name"]
    assert found.cluster.server == shown["clusters"][0]["cluster"]["server"]
    assert found.namespace == chosen["context"].get("namespace", "default")
    assert [found.user.token] == tokens
