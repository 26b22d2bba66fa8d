"""A real TensorBoard on a bucket shows what is written, soon: on gs:// by itself, on any store by the launcher."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from maskfleet.errors import BAD_INPUT, FAILED
from maskfleet.run_directory import RunDirectory
from tests.fakes.gcs import FakeGcs
from tests.fakes.s3 import FakeS3
from tests.helpers.streamer_process import DESTINATION, start, stream_until_told, variables
from tests.helpers.tls_front import Tunnel, certificate

SOON = 10.0
"""Seconds from a scalar's writing until TensorBoard has to show it."""

BY_ITSELF = [
    *(sys.executable, "-m", "tensorboard.main", "--logdir", f"{DESTINATION}/tensorboard", "--port", "0"),
    *("--host", "127.0.0.1", "--reload_interval", "1", "--load_fast", "false"),
]
LAUNCHER = [sys.executable, "-m", "launcher.cli", "tensorboard"]


@pytest.fixture
def fake() -> Iterator[FakeGcs]:
    with FakeGcs() as server:
        yield server


@contextmanager
def tensorboard(command: list[str], environment: dict[str, str]) -> Iterator[str]:
    """A running TensorBoard; its address."""
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        lines = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if address := re.search(r"http://[\w.]+:\d+", line if line.startswith("TensorBoard") else ""):
                break
        else:
            pytest.fail("TensorBoard ended: " + "".join(lines[-20:]))
        yield address[0]
    finally:
        process.terminate()
        process.stdout.close()  # type: ignore[union-attr]
        process.wait(20)


def shown(address: str, tag: str) -> dict[int, float]:
    """What TensorBoard has of a scalar of the run "train", by step."""
    url = f"{address.rstrip('/')}/data/plugin/scalars/scalars?run=train&tag={tag}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return {int(step): value for _, step, value in json.load(answer)}
    except urllib.error.HTTPError as error:
        if error.code in (400, 404):  # nothing was written yet
            return {}
        raise


def assert_shown_soon(url: str, run: RunDirectory, address: str, destination: str = DESTINATION) -> list[float]:
    """Writes scalars as training does; seconds until each was shown."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    delays = []
    streamer = start(stream_until_told, run.path, url, destination)
    writer = EventFileWriter(str(run.tensorboard / "train"))
    try:
        for step in range(1, 5):
            summary = Summary(value=[Summary.Value(tag="loss", simple_value=1 / step)])
            writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
            writer.flush()
            written = time.monotonic()
            while shown(address, "loss").get(step) != pytest.approx(1 / step):
                waited = time.monotonic() - written
                # Only the first one also waits for TensorBoard and the streamer to start.
                assert waited < (SOON if step > 1 else 6 * SOON), f"step {step} was not shown within {waited:.0f} s"
                time.sleep(0.2)
            delays.append(time.monotonic() - written)
    finally:
        writer.close()
        os.kill(streamer.pid or 0, signal.SIGTERM)
        streamer.join(20)
    return delays


def test_tensorboard_with_gcsfs_shows_a_growing_run(fake: FakeGcs, tmp_path: Path) -> None:
    pytest.importorskip("gcsfs")
    absent = tmp_path / "absent" / "tensorflow.py"
    absent.parent.mkdir()
    absent.write_text("raise ImportError('as on a machine without TensorFlow')")
    environment = {"STORAGE_EMULATOR_HOST": fake.url, "PYTHONPATH": str(absent.parent)}
    environment["FSSPEC_GS"] = '{"use_listings_cache": false}'  # which would hide that a file has grown
    with tensorboard(BY_ITSELF, environment) as address:
        assert_shown_soon(fake.url, RunDirectory(tmp_path / "run"), address)


def test_tensorboard_with_tensorflow_shows_a_growing_run(fake: FakeGcs, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    context, bundle = certificate(tmp_path)
    with FakeGcs(tls=context) as google, Tunnel(google.port) as tunnel:
        google.buckets = fake.buckets
        environment = {
            "https_proxy": tunnel.url,
            "no_proxy": "",
            "CURL_CA_BUNDLE": str(bundle),
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
            "NO_GCE_CHECK": "true",
        }
        with tensorboard(BY_ITSELF, environment) as address:
            assert_shown_soon(fake.url, RunDirectory(tmp_path / "run"), address)
        assert google.requests


@pytest.mark.parametrize(("scheme", "service"), [("gs", FakeGcs), ("s3", FakeS3)])
def test_the_launchers_tensorboard_shows_a_growing_run_in_any_bucket(
    scheme: str, service: type[FakeGcs | FakeS3], tmp_path: Path
) -> None:
    destination = f"{scheme}://bucket/run"
    copies = tmp_path / "temporary"
    copies.mkdir()
    with service() as server:
        environment = {**variables(server.url), "TMPDIR": str(copies)}
        with tensorboard([*LAUNCHER, destination, "--port", "0"], environment) as address:
            assert_shown_soon(server.url, RunDirectory(tmp_path / "run"), address, destination)
            assert list(copies.rglob("*tfevents*"))
    assert not [path for path in copies.rglob("*") if path.is_file()]  # SIGTERM ended it, and it cleaned up


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([*LAUNCHER, str(tmp_path), "--port", str(port)], capture_output=True, text=True)
    assert done.returncode == BAD_INPUT
    assert done.stderr == f"error: --port {port}: Address already in use; choose another, or 0 for any that is free\n"


def with_tensorboard(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the launcher says where TensorBoard is this program."""
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard/__init__.py").touch()
    (folder / "tensorboard/main.py").write_text(program)
    command = [*LAUNCHER, str(folder), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_tensorboard_that_is_killed_is_not_quoted(tmp_path: Path) -> None:
    killed = "import os, sys\nprint('all is well', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 9)\n"
    done = with_tensorboard(killed, tmp_path)
    assert done.returncode == FAILED
    assert done.stderr == "error: TensorBoard was killed by SIGKILL\n"


def test_a_tensorboard_that_fails_is_quoted(tmp_path: Path) -> None:
    done = with_tensorboard("import sys\nprint('first', file=sys.stderr)\nsys.exit('why it fails')\n", tmp_path)
    assert done.returncode == FAILED
    assert done.stderr == "first\nwhy it fails\nerror: TensorBoard ended with exit code 1: why it fails\n"
