"""``launcher prepare``: a store that can't be reached when a pod comes up is waited for."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.commands.pod import prepare
from launcher.streaming.stores import gcs, patience
from launcher.streaming.stores.opening import open_store
from launcher.streaming.upload.streamer import Streamer
from maskfleet.errors import STOPPED
from tests.fakes.gcs import FakeGcs, Fault
from tests.fakes.s3 import FakeS3, Stored
from tests.helpers.sample_run import SampleRun
from tests.helpers.streamer_process import DESTINATION, variables


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    monkeypatch.setattr(gcs, "RETRY_INITIAL", 0.01)
    monkeypatch.setattr(gcs, "RETRY_TIMEOUT", 0.05)
    monkeypatch.setattr(patience, "SHORTEST_PAUSE", 0.01)
    with FakeGcs() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_an_outage_while_a_pod_comes_up_is_waited_out(
    tmp_path: Path, fake: FakeGcs, capsys: pytest.CaptureFixture[str]
) -> None:
    sample, data = SampleRun(tmp_path / "run"), SampleRun(tmp_path / "data")
    sample.everything()
    data.everything()
    assert Streamer(sample.run, open_store(DESTINATION)).run(once=True) == 0
    assert Streamer(data.run, open_store("gs://bucket/data")).run(once=True) == 0
    for where in ("", "data%2Flogs", "prefix=run", "step-00000020.index"):  # at the start and half-way
        fake.faults.add(Fault("status", where, status=503, times=8))
    back = tmp_path / "back"
    brought = tmp_path / "brought"
    run_here(str(back), "--data=gs://bucket/data", f"--data-path={brought}", f"--restore={DESTINATION}")
    printed = capsys.readouterr()
    count = len(data.files()) + 1  # and the export's manifest
    assert f"fetched gs://bucket/data: {count} files, " in printed.out
    assert printed.out.endswith(f"all verified\nbrought back the checkpoint of step 20 from {DESTINATION}\n")
    assert "; trying again\n" in printed.err
    assert {name: (brought / name).read_bytes() for name in data.files()} == data.files()
    assert (back / "checkpoints/step-00000020.index").read_bytes() == sample.files()["checkpoints/step-00000020.index"]


def test_data_without_checksums_are_not_called_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeS3() as server:
        for name, value in variables(server.url).items():
            monkeypatch.setenv(name, value)
        server.buckets["bucket"]["data/a.jpg"] = Stored(b"content", '"of several parts-2"')
        run_here(str(tmp_path / "run"), "--data=s3://bucket/data", f"--data-path={tmp_path}")
    assert capsys.readouterr().out.endswith("sizes verified; the store has no checksum of 1 of them\n")


def test_a_store_that_refuses_ends_it_at_once(tmp_path: Path, fake: FakeGcs) -> None:
    done = run_prepare(tmp_path, fake.url, "gs://missing/run").communicate(timeout=60)
    assert done[1] == "error: gs://missing/run: there is no bucket missing; create it first\n"


def test_sigterm_ends_the_waiting(tmp_path: Path) -> None:
    with FakeGcs() as gone:
        url = gone.url
    process = run_prepare(tmp_path, url, DESTINATION)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(4)
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate(timeout=20)
    assert process.returncode == STOPPED
    assert printed == "error: told to stop before all was brought into the pod\n"


def run_here(*arguments: str) -> None:
    prepare.main(arguments, standalone_mode=False)


def run_prepare(tmp_path: Path, url: str, destination: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "launcher.cli", "prepare", str(tmp_path / "run"), "--restore", destination]
    return subprocess.Popen(
        command, env={**variables(url), "PATH": ""}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
