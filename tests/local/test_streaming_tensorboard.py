"""Real TensorBoard reads the bucket while the run grows: with gcsfs alone, and with TensorFlow's own gs:// reader."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launcher.tensorboard import tensorboard_command
from tests.fake_gcs import FakeGcs
from tests.streamer_process import DESTINATION, start, stream_until_told
from tests.tls_front import Tunnel, certificate
from trainer.run_directory import RunDirectory

SOON = 10.0
"""Seconds from a scalar's writing until TensorBoard has to show it."""


@pytest.fixture
def fake() -> Iterator[FakeGcs]:
    with FakeGcs() as server:
        yield server


@contextmanager
def tensorboard(environment: dict[str, str]) -> Iterator[str]:
    """A running TensorBoard on the destination; its address."""
    arguments, inherited = tensorboard_command(DESTINATION, port=0, reload_seconds=1)
    process = subprocess.Popen(arguments, env={**inherited, **environment}, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if address := re.search(r"http://\S+", line if line.startswith("TensorBoard") else ""):
                break
        else:
            pytest.fail("TensorBoard ended: " + "".join(lines[-20:]))
        yield address[0]
    finally:
        process.terminate()
        process.stderr.close()  # type: ignore[union-attr]
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


def assert_shown_soon(fake: FakeGcs, run: RunDirectory, address: str) -> list[float]:
    """Writes scalars as training does; seconds until each was shown."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    delays = []
    streamer = start(stream_until_told, run.path, fake.url)
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
    with tensorboard(environment) as address:
        assert_shown_soon(fake, RunDirectory(tmp_path / "run"), address)


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
        with tensorboard(environment) as address:
            assert_shown_soon(fake, RunDirectory(tmp_path / "run"), address)
        assert google.requests
