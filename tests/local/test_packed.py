"""A run on packed data in a bucket that fails now and then ends with the bits of the run on the data itself."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from maskfleet.records import Progress
from tests.fakes.gcs import FakeGcs
from tests.fakes.s3 import FakeS3
from tests.helpers.data_folders import write_photographs
from tests.helpers.processes import LocalRun, inspect, leftovers, trainer
from tests.local.soak import Soak, soak
from trainer.data.opening import open_source
from trainer.data.packed.bucket import open_bucket
from trainer.data.packed.packing import pack
from trainer.data.source import Reading


@pytest.fixture(params=["gs", pytest.param("s3", marks=pytest.mark.long)])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The synthetic data, packed into a bucket where from now on each tenth request fails in some way."""
    server: FakeGcs | FakeS3 = FakeGcs() if request.param == "gs" else FakeS3()
    monkeypatch.setenv("MASKFLEET_CACHE", str(tmp_path / "cache"))
    with server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        for name, value in (("ENDPOINT_URL", server.url), ("ACCESS_KEY_ID", "id"), ("SECRET_ACCESS_KEY", "key")):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        url = f"{request.param}://bucket/drawn"
        bucket = open_bucket(url, writing=True)
        pack(open_source("synthetic", None), Reading(), "synthetic", bucket, shard_bytes=1_000_000)
        server.faults.at_random(seed=0, probability=0.1)
        yield url


def test_a_killed_run_on_a_bucket_that_fails_has_the_bits_of_the_data_itself(
    place: str, tmp_path: Path, undisturbed_state: str
) -> None:
    with LocalRun.start(tmp_path / "run", f"--data=packed:{place}", "--cache=2MB") as run:
        run.wait_for_step(7)
        run.training_process(1).kill()
        assert run.wait() == 0, run.output.read_text()
    assert inspect(run.directory)["sha256"] == undisturbed_state
    assert leftovers(run.directory) == []
    progress = Progress.read(run.directory)
    assert progress is not None
    assert progress.data_wait_seconds is not None
    kept = [file.stat().st_size for file in (tmp_path / "cache").glob("packed-*/*")]
    assert 0 < sum(kept) <= 2 * 2_000_000  # of two workers


def test_a_shard_that_is_replaced_ends_the_run_with_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "packed"
    bucket = open_bucket(str(place), writing=True)
    pack(open_source("synthetic", None), Reading(), "synthetic", bucket, shard_bytes=1_000_000)
    for shard in place.glob("train-*.tfrecord"):
        shard.write_bytes(bytes(shard.stat().st_size))
    monkeypatch.setenv("MASKFLEET_CACHE", str(tmp_path / "cache"))
    with LocalRun.start(tmp_path / "run", f"--data=packed:{place}", workers=1) as run:
        assert run.wait() == 2, run.output.read_text()
    output = run.output.read_text()
    assert "other bytes than were packed, 5 times: the shard was damaged or replaced" in output
    assert "Traceback" not in output


PACKING = """
import sys
from trainer.data.opening import open_source
from trainer.data.packed.bucket import open_bucket
from trainer.data.packed.packing import pack
from trainer.data.source import Reading
_, data, place = sys.argv
pack(open_source(data, None), Reading(), data, open_bucket(place, writing=True), shard_bytes=400_000)
"""


@pytest.mark.parametrize("scheme", ["folder", "gs"])
def test_packing_that_is_killed_at_random_ends_with_the_same_bytes(
    scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_photographs(tmp_path / "pictures", 400, 240, 180, distinct=20)
    packing = [sys.executable, "-c", PACKING, f"folder:{tmp_path / 'pictures'}"]
    subprocess.run([*packing, str(tmp_path / "whole")], check=True)
    whole = {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()}
    chance = random.Random(0)
    with FakeGcs() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        folder = tmp_path / "packed"
        place = str(folder) if scheme == "folder" else "gs://bucket/packed"

        def names() -> set[str]:
            if scheme == "gs":
                return {name.removeprefix("packed/") for name in server.buckets.names("bucket")}
            return {str(file.relative_to(folder)) for file in folder.rglob("*.*")}

        killed = 0
        while "manifest.json" not in names():
            before = names()
            with psutil.Popen([*packing, place]) as process:
                while process.poll() is None and names() == before:
                    time.sleep(0.01)
                time.sleep(chance.uniform(0, 0.1))
                killed += process.poll() is None
                process.kill()
        subprocess.run([*packing, place], check=True)
        found = {
            name: server.content(f"packed/{name}") if scheme == "gs" else (folder / name).read_bytes()
            for name in names()
        }
    assert found == whole
    assert killed >= 3


@pytest.mark.long
def test_twenty_kills_on_a_bucket_that_fails_change_no_bit(place: str, tmp_path: Path) -> None:
    assert soak(tmp_path, Soak(kills=20, seed=1, also=(f"--data=packed:{place}", "--cache=5MB"))) == []


@pytest.fixture
def bucket_of_the_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeGcs]:
    """With the synthetic data at gs://bucket/drawn."""
    monkeypatch.setenv("MASKFLEET_CACHE", str(tmp_path / "cache"))
    with FakeGcs() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        pack(open_source("synthetic", None), Reading(), "synthetic", open_bucket("gs://bucket/drawn", writing=True))
        yield server


NOTHING_KEPT = ("--data=packed:gs://bucket/drawn", "--cache=1")


@pytest.mark.long
def test_an_outage_longer_than_a_stall_is_waited_out(
    bucket_of_the_drawn: FakeGcs, tmp_path: Path, undisturbed_state: str
) -> None:
    with LocalRun.start(tmp_path / "run", *NOTHING_KEPT, "--stall-timeout=15") as run:
        run.wait_for_step(5)
        bucket_of_the_drawn.faults.at_random(seed=0, probability=1.0)
        time.sleep(40)
        bucket_of_the_drawn.faults.clear()
        assert run.wait() == 0, run.output.read_text()
    assert "waits for data for" in run.output.read_text()
    assert "was killed" not in run.output.read_text()
    assert inspect(run.directory)["sha256"] == undisturbed_state


@pytest.mark.long
def test_a_worker_alone_stops_in_an_outage_with_its_state_saved(bucket_of_the_drawn: FakeGcs, tmp_path: Path) -> None:
    with LocalRun.start(tmp_path / "run", *NOTHING_KEPT, "--checkpoint-steps=0", workers=1) as run:
        run.wait_for_step(3)
        bucket_of_the_drawn.faults.at_random(seed=0, probability=1.0)
        time.sleep(20)
        run.interrupt()
    assert "the state is saved" in run.output.read_text()
    assert inspect(run.directory)["step"] >= 3


@pytest.mark.long
@pytest.mark.parametrize("server", ["moto", "versitygw"])
def test_on_servers_of_others_a_run_has_the_bits_of_the_data_itself(
    server: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    undisturbed_state: str,
) -> None:
    place = request.getfixturevalue(server)
    monkeypatch.setenv("MASKFLEET_CACHE", str(tmp_path / "cache"))
    packing = trainer("pack", "--data", "synthetic", place)
    assert packing.returncode == 0, packing.stderr
    with LocalRun.start(tmp_path / "run", f"--data=packed:{place}", "--cache=2MB") as run:
        assert run.wait() == 0, run.output.read_text()
    assert inspect(run.directory)["sha256"] == undisturbed_state
