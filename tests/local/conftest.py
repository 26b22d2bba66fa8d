"""Runs that several tests compare with, and servers that we did not write, where they are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from maskfleet.run_directory import RunDirectory
from tests.helpers.processes import LocalRun, inspect, until


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run of two workers that nobody disturbed."""
    path: Path = tmp_path_factory.mktemp("undisturbed") / "run"
    with LocalRun.start(path) as run:
        assert run.wait() == 0, run.output.read_text()
    return run.directory


@pytest.fixture(scope="session")
def undisturbed_state(undisturbed: RunDirectory) -> str:
    """The SHA-256 over the undisturbed run's final state."""
    return str(inspect(undisturbed)["sha256"])


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with closing(socket.socket()) as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def run_server(program: str, arguments: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(port), program)
        yield
    finally:
        process.terminate()
        process.wait(20)


def installed(program: str, install: str) -> str:
    places = [os.environ["PATH"], str(Path.home() / "go" / "bin"), str(Path.home() / ".local" / "bin")]
    path = shutil.which(program, path=os.pathsep.join(places))
    if path is None:
        pytest.skip(f"not run: needs {program} on the PATH ({install})")
    return path


def amazon_at(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret-secret")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # In a place of its own: botocore, which it needs, and the Kubernetes client exclude each other (python-dateutil).
    program, port = installed("moto_server", "pipx install 'moto[server]>=5.1,<6'"), free_port()
    amazon_at(port, monkeypatch)
    for _ in run_server(program, ["--host", "127.0.0.1", "--port", str(port)], port):
        bucket = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
        urllib.request.urlopen(bucket, timeout=60).close()
        yield "s3://bucket/run"


@pytest.fixture
def versitygw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    program, port = installed("versitygw", "go install github.com/versity/versitygw/cmd/versitygw@latest"), free_port()
    (tmp_path / "s3" / "bucket").mkdir(parents=True)
    amazon_at(port, monkeypatch)
    options = ["--port", f"127.0.0.1:{port}", "--access", "key", "--secret", "secret-secret", "--quiet"]
    for _ in run_server(program, [*options, "posix", str(tmp_path / "s3")], port):
        yield "s3://bucket/run"


@pytest.fixture
def fake_gcs_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    program, port = installed("fake-gcs-server", "go install github.com/fsouza/fake-gcs-server@latest"), free_port()
    (tmp_path / "gcs" / "bucket").mkdir(parents=True)
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    options = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", url, "-backend", "memory"]
    for _ in run_server(program, [*options, "-data", str(tmp_path / "gcs")], port):
        yield "gs://bucket/run"
