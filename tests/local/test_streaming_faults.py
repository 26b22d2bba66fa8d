"""Whatever is killed, lost or refused on the way: afterwards every object equals its file and every manifest verifies.

The streamer runs in processes of its own, over the real client library, against the strict fake.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest
from hypothesis import strategies as st

from launcher.streaming.stores import gcs, patience
from launcher.streaming.stores.opening import open_store
from launcher.streaming.stores.store import INTERNAL
from launcher.streaming.stream_metrics import StreamMetrics
from launcher.streaming.upload import streamer as service
from launcher.streaming.upload.streamer import Streamer
from maskfleet.errors import DONE
from maskfleet.run_directory import RunDirectory
from maskfleet.tfrecords import scan_tfrecords
from tests.fakes.gcs import FakeGcs, Fault, Request
from tests.fakes.s3 import FakeS3
from tests.helpers.sample_run import EVENTS, SampleRun, assert_manifests_verify, assert_whole, copied_files
from tests.helpers.streamer_process import CONFLICT, DESTINATION, start, stream_once, stream_until_told, variables

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "RETRY_INITIAL", 0.01)
    monkeypatch.setattr(service, "INTERVAL", 0.1)
    monkeypatch.setattr(patience, "SHORTEST_PAUSE", 0.01)


@dataclass
class Bucket:
    """A fake of a store, and a run's place in it."""

    fake: FakeGcs | FakeS3
    destination: str

    def stream(self, sample: SampleRun) -> int:
        return Streamer(sample.run, open_store(self.destination)).run(once=True)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    with FakeGcs() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


@pytest.fixture(params=["gs", "s3"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with FakeGcs() if request.param == "gs" else FakeS3() as server:
        for name, value in variables(server.url).items():
            monkeypatch.setenv(name, value)
        yield Bucket(server, f"{request.param}://bucket/run")


def stream(sample: SampleRun) -> int:
    return Streamer(sample.run, open_store(DESTINATION)).run(once=True)


def half_streamed(path: Path, destination: str = DESTINATION) -> SampleRun:
    """A run of which a part lies in the bucket, so that all kinds of writes are still to come."""
    sample = SampleRun(path)
    sample.everything()
    assert Streamer(sample.run, open_store(destination)).run(once=True) == DONE
    sample.log_events()
    sample.log_lines()
    sample.validate(30)
    sample.checkpoint(30)
    sample.checkpoint(40, size=9 << 20)  # more than one request
    sample.path("export/unet.h5").write_bytes(b"another export")
    return sample


def assert_never_half(fake: FakeGcs | FakeS3, sample: SampleRun) -> None:
    """What holds at any moment, mid-way too."""
    files = sample.files()
    for name, content in copied_files(fake).items():
        if name.startswith(INTERNAL):
            continue
        if "tfevents" in name:
            assert scan_tfrecords(content).whole == len(content), name
        if name.endswith((".log", "events.jsonl", "goodput.jsonl")) or "tfevents" in name:
            assert files[name].startswith(content), name
    assert_manifests_verify(fake)


def run_killed_at(number: int, sample: SampleRun, fake: FakeGcs | FakeS3, destination: str = DESTINATION) -> int:
    """Streams once in a process that is killed after its request of that number; returns its exit code."""
    last = len(fake.requests) + number
    process = start(stream_once, sample.run.path, fake.url, destination)

    def kill(request: Request) -> None:
        if request.number == last and process.pid:
            os.kill(process.pid, signal.SIGKILL)

    fake.after = kill
    process.join(60)
    fake.after = lambda request: None
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode


def test_the_streamer_may_be_killed_after_any_request(tmp_path: Path, bucket: Bucket) -> None:
    sample = half_streamed(tmp_path / "run", bucket.destination)
    half = bucket.fake.snapshot("bucket")
    for number in range(1, 1000):
        bucket.fake.reset("bucket", half)
        if run_killed_at(number, sample, bucket.fake, bucket.destination) == 0:
            break
        assert_never_half(bucket.fake, sample)
        assert bucket.stream(sample) == DONE
        assert_whole(bucket.fake, sample)
    assert number > 40  # a change that made the loop end early would prove nothing


def test_any_acknowledgement_may_be_lost(tmp_path: Path, bucket: Bucket) -> None:
    sample = half_streamed(tmp_path / "run", bucket.destination)
    half = bucket.fake.snapshot("bucket")
    for number in range(1000):
        bucket.fake.reset("bucket", half)
        fault = Fault("drop-after", skip=number)
        bucket.fake.faults.add(fault)
        assert bucket.stream(sample) == DONE
        assert_whole(bucket.fake, sample)
        if fault.times:  # there were fewer requests
            break
    assert number > 40


def test_a_write_that_outlives_its_streamers_patience_is_recognised(
    tmp_path: Path, fake: FakeGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs, "RETRY_TIMEOUT", 0.05)  # the library gives up, so that the loop has to sort it out
    sample = half_streamed(tmp_path / "run")
    for _ in range(3):
        fake.faults.add(Fault("drop-after", "compose"))
        fake.faults.add(Fault("status", "compose", times=3))
    streamer = Streamer(sample.run, open_store(DESTINATION))
    assert streamer.run(once=True) == DONE
    assert_whole(fake, sample)
    assert streamer.metrics.retries > 0


def test_of_two_streamers_on_a_growing_run_at_most_one_stops_and_nothing_is_damaged(
    tmp_path: Path, fake: FakeGcs
) -> None:
    sample = SampleRun(tmp_path / "run")
    sample.everything()
    streamers = [start(stream_until_told, sample.run.path, fake.url) for _ in range(2)]
    for step in range(100, 160):
        sample.log_events()
        sample.log_lines()
        sample.validate(step)
        if step % 20 == 0:
            sample.checkpoint(step)
        time.sleep(0.05)
        if step % 10 == 0:
            assert_never_half(fake, sample)
    for streamer in streamers:
        if streamer.is_alive() and streamer.pid:
            os.kill(streamer.pid, signal.SIGTERM)
    for streamer in streamers:
        streamer.join(30)
    codes = sorted(streamer.exitcode or 0 for streamer in streamers)
    assert codes in ([DONE, CONFLICT], [CONFLICT, CONFLICT])
    assert_never_half(fake, sample)
    assert stream(sample) == DONE
    assert_whole(fake, sample)


def test_an_outage_is_caught_up(tmp_path: Path, fake: FakeGcs) -> None:
    sample = SampleRun(tmp_path / "run")
    sample.everything()
    streamer = start(stream_until_told, sample.run.path, fake.url)
    wait_until(lambda: len(copied_files(fake)) == len(sample.files()))
    outage = Fault("status", status=503, times=10_000)
    fake.faults.add(outage)
    for step in range(50, 53):
        sample.log_events()
        sample.checkpoint(step)
        sample.validate(step)
        time.sleep(0.3)
    metrics = wait_until(lambda: _behind(sample.run))
    assert metrics is not None
    assert metrics.lag_bytes > 3000
    outage.times = 0
    wait_until(lambda: copied_files(fake).get(EVENTS) == sample.files()[EVENTS], seconds=40)
    os.kill(streamer.pid or 0, signal.SIGTERM)
    streamer.join(30)
    assert streamer.exitcode == DONE
    assert_whole(fake, sample)


def test_a_slow_link_and_the_limit_of_one_write_a_second_delay_and_damage_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeGcs(limit_write_rate=True) as slow:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", slow.url)
        slow.faults.bandwidth = 2_000_000
        sample = SampleRun(tmp_path / "run")
        sample.everything()
        streamer = start(stream_until_told, sample.run.path, slow.url)  # looks ten times a second
        for step in range(50, 60):
            sample.log_events(10)
            sample.log_lines()
            sample.validate(step)
            time.sleep(0.3)
            if step == 53:
                sample.checkpoint(step, size=9 << 20)  # takes longer than all of this
            if step == 56:
                slow.faults.add(Fault("status", status=503, times=20))
            assert_never_half(slow, sample)
        os.kill(streamer.pid or 0, signal.SIGTERM)
        streamer.join(60)
        assert streamer.exitcode == DONE
        assert_whole(slow, sample)
        statuses = [request.status for request in slow.requests]
        assert (statuses.count(429) > 0, statuses.count(503)) == (True, 20)


def _behind(run: RunDirectory) -> StreamMetrics | None:
    metrics = StreamMetrics.load(run)
    return metrics if metrics and metrics.errors and metrics.lag_seconds > 0 else None


def wait_until(condition: Callable[[], T], seconds: float = 20) -> T:
    """The first true value of ``condition``."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)
    return found


ACTIONS = st.lists(
    st.sampled_from(["events", "half a record", "lines", "validate", "checkpoint", "delete", "stream", "kill"]),
    min_size=3,
    max_size=12,
)


@hypothesis.settings(max_examples=12, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(ACTIONS, st.integers(0, 2**32))
def test_any_sequence_of_growth_faults_and_kills_ends_whole(actions: list[str], seed: int) -> None:
    with FakeGcs() as fake, tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", fake.url)
        sample, chance = SampleRun(Path(folder) / "run", seed), random.Random(seed)
        rest = b""
        fake.faults.at_random(seed, 0.1)
        for step, action in enumerate(actions, 1):
            if rest:
                sample.append(EVENTS, rest)
            rest = b""
            if action == "events":
                sample.log_events()
            elif action == "half a record":
                before = sample.path(EVENTS).stat().st_size if sample.path(EVENTS).exists() else 0
                sample.log_events(1)
                content = sample.path(EVENTS).read_bytes()
                cut = chance.randrange(before, len(content))
                rest = content[cut:]
                os.truncate(sample.path(EVENTS), cut)
            elif action == "lines":
                sample.log_lines()
            elif action == "validate":
                sample.validate(step)
            elif action == "checkpoint":
                sample.checkpoint(step)
            elif action == "delete" and len(sample.run.checkpoint_steps()) > 1:
                sample.delete_checkpoint(sample.run.checkpoint_steps()[-1])
            elif action == "stream":
                assert stream(sample) == DONE
            elif action == "kill":
                run_killed_at(chance.randrange(1, 30), sample, fake)
            assert_never_half(fake, sample)
        fake.faults.clear()
        if rest:
            sample.append(EVENTS, rest)
        assert stream(sample) == DONE
        copied, expected = copied_files(fake), sample.files()
        assert {name: copied[name] for name in expected} == expected
        assert all("checkpoints/" in name for name in set(copied) - set(expected))  # kept there, deleted here
        assert_manifests_verify(fake)
