"""What streaming costs: bytes sent for bytes logged, throughput and CPU time of uploads, images/s with it and without.

Everything is measured on this machine's loopback interface; shares of what raw TCP does there are comparable, rates by
themselves are not.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from launcher.streaming.stores.opening import open_store
from launcher.streaming.upload.priority import lower_priority
from launcher.streaming.upload.streamer import Streamer
from maskfleet.files import FileDigest
from maskfleet.tfrecords import frame
from tests.benchmarks.null_gcs import PIECE, serve_null_gcs, serve_null_tcp
from tests.benchmarks.row import Row
from tests.benchmarks.turns import environment, own_process
from tests.fakes.gcs import FakeGcs
from tests.helpers.processes import LocalRun
from tests.helpers.sample_run import EVENTS, SampleRun

FLUSHES, FLUSH_BYTES, FLUSH_SECONDS = 1000, 50_000, 0.02
CHECKPOINTS, CHECKPOINT_BYTES = 20, 30_000_000
TURNS = 5
TRAINING_TURNS = 6


def rows() -> Iterable[Row]:
    yield from flush_rows()
    yield from upload_rows()
    yield from training_rows()


def flush_rows() -> Iterator[Row]:
    """One event file that is flushed a thousand times while the streamer runs at its default interval."""
    source = random.Random(0)
    with FakeGcs() as fake, tempfile.TemporaryDirectory() as folder, environment(STORAGE_EMULATOR_HOST=fake.url):
        sample = SampleRun(Path(folder) / "run")
        streamer = Streamer(sample.run, open_store("gs://bucket/run"))
        running = threading.Thread(target=streamer.run)
        running.start()
        for _ in range(FLUSHES):
            sample.append(EVENTS, frame(source.randbytes(FLUSH_BYTES - 16)))
            time.sleep(FLUSH_SECONDS)
        streamer.stop()
        running.join()
        file, there = FileDigest.of(sample.path(EVENTS)), fake.buckets.get("bucket", f"run/{EVENTS}")
        assert (there.size, there.crc32c) == (file.size, file.crc32c)
        writes = [request for request in fake.requests if request.method in ("POST", "PUT")]
        sent = sum(request.wire_bytes for request in fake.requests)
        yield Row(
            "1,000 flushes of 50 KB: bytes on the wire / bytes of the file",
            sent / file.size,
            "x",
            "1.01 or less is wanted",
        )
        appends = sum(request.path.endswith("/compose") for request in writes)
        yield Row("1,000 flushes of 50 KB: appends", appends, "", "the object equals the file (crc32c)")


def upload_rows() -> Iterator[Row]:
    """Checkpoints into a server that forgets them, against raw TCP and against gcloud's own command."""
    size = CHECKPOINTS * CHECKPOINT_BYTES
    with tempfile.TemporaryDirectory() as folder, serving(serve_null_tcp) as sink, serving(serve_null_gcs) as url:
        sample = SampleRun(Path(folder) / "run")
        for step in range(1, CHECKPOINTS + 1):
            sample.checkpoint(step, size=CHECKPOINT_BYTES)
        files = sorted(sample.run.checkpoints.glob("*.data*"))
        gcloud = [
            "gcloud",
            "storage",
            "rsync",
            "--recursive",
            "--quiet",
            str(sample.run.checkpoints),
            "gs://bucket/run",
        ]
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            "raw TCP": lambda: send_raw(files, sink),
            "streamer": lambda: stream(sample.run.path, url),
        }
        if shutil.which("gcloud"):
            overrides = {"CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{url}/storage/v1/"}
            overrides |= {"CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true", "CLOUDSDK_CORE_PROJECT": "p"}
            overrides["CLOUDSDK_STORAGE_CHECK_HASHES"] = "never"  # the sink computes no MD5
            ways["gcloud"] = lambda: timed(gcloud, CLOUDSDK_CONFIG=str(Path(folder) / "gcloud"), **overrides)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, way in ways.items():
                taken[name].append(way())
    seconds = {name: statistics.median(wall for wall, _ in turns) for name, turns in taken.items()}
    cpu = {name: statistics.median(used for _, used in turns) for name, turns in taken.items()}
    share = seconds["raw TCP"] / seconds["streamer"]
    yield Row("upload of 20 x 30 MB, raw TCP to a null sink", size / seconds["raw TCP"] / 1e6, "MB/s", "one connection")
    yield Row("upload of 20 x 30 MB, streamer", size / seconds["streamer"] / 1e6, "MB/s", "without the process's start")
    yield Row("upload of 20 x 30 MB, share of raw TCP", share, "x", "0.9 or more is wanted")
    yield Row("upload, CPU of the streamer", cpu["streamer"] / size * 1e9, "s/GB", "without the process's start")
    if "gcloud" in cpu:
        yield Row("upload, CPU of gcloud storage rsync", cpu["gcloud"] / size * 1e9, "s/GB", "with its start")
        yield Row(
            "upload of 20 x 30 MB, gcloud storage rsync", size / seconds["gcloud"] / 1e6, "MB/s", "with its start"
        )


def training_rows() -> Iterator[Row]:
    """Images per second of the same run, streamed and not, in turns; one thread trains, as beside a sidecar."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    settings = ("--epochs=4", "--unfreeze-from=none", "--threads=1", "--no-export")
    with serving(serve_gcs) as url, tempfile.TemporaryDirectory() as folder, environment(STORAGE_EMULATOR_HOST=url):
        for turn in range(TRAINING_TURNS):
            for streamed in (False, True) if turn % 2 else (True, False):  # neither always comes first
                path = Path(folder) / f"run-{turn}-{streamed}"
                output = ["--output", f"gs://bucket/run-{turn}"] if streamed else []
                with LocalRun(path, f"--run-dir={path}", *output, "--", "--encoder-weights=none", *settings) as run:
                    assert run.wait() == 0, run.output.read_text()
                lines = [json.loads(line) for line in run.directory.metrics.read_text().splitlines()]
                rates[streamed] += [line["images_per_second"] for line in lines[1:]]  # the first epoch traces
                shutil.rmtree(path)
    on, off = statistics.median(rates[True]), statistics.median(rates[False])
    low, _, high = statistics.quantiles(rates[False], n=4)
    yield Row("training, streaming off", off, "images/s", f"half of the epochs between {low:.3g} and {high:.3g}")
    yield Row("training, streaming on / off", on / off, "x", "0.99 or more is wanted; a checkpoint after each epoch")


def serve_gcs(ready: Connection) -> None:
    """The bucket, which is not on the machine that trains: it must not take processor time from it."""
    os.setsid()
    lower_priority()
    with FakeGcs() as fake:
        ready.send(fake.url)
        threading.Event().wait()


@contextmanager
def serving(serve: Callable[[Connection], None]) -> Iterator[str]:
    """A server in a process of its own; what it says about where it is."""
    with own_process(serve) as connection:
        yield connection.recv()


STREAM = """
import sys, time
from pathlib import Path
from launcher.streaming.upload.streamer import Streamer
from launcher.streaming.stores import open_store
from maskfleet.run_directory import RunDirectory

streamer = Streamer(RunDirectory(Path(sys.argv[1])), open_store("gs://bucket/run"))
began, used = time.monotonic(), time.process_time()
assert streamer.run(once=True) == 0
print(time.monotonic() - began, time.process_time() - used)
"""


def stream(run: Path, url: str) -> tuple[float, float]:
    """Copies a run in a process of its own; (wall time, CPU time) from when it has started, seconds."""
    command = [sys.executable, "-c", STREAM, str(run)]
    done = subprocess.run(
        command, env={**os.environ, "STORAGE_EMULATOR_HOST": url}, capture_output=True, text=True, check=True
    )
    wall, used = map(float, done.stdout.split())
    return wall, used


def timed(command: list[str], **values: str) -> tuple[float, float]:
    """Runs a command to its end; (wall time, CPU time of it and its children), seconds."""
    before, started = os.times(), time.monotonic()
    done = subprocess.run(command, env={**os.environ, **values}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - started, used


def send_raw(files: list[Path], sink: object) -> tuple[float, float]:
    """Sends the files' content over one connection and waits until it has arrived."""
    started, used = time.monotonic(), time.process_time()
    with socket.create_connection(sink) as connection:  # type: ignore[arg-type]
        for path in files:
            with path.open("rb", buffering=0) as file:
                while piece := file.read(PIECE):
                    connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    return time.monotonic() - started, time.process_time() - used
