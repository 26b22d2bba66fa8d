"""What the container beside the trainer does when it is told to end."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.job.labels import PROGRESS_JSON_ANNOTATION
from launcher.pod import sidecar
from maskfleet.checkpoint_manifest import CheckpointManifest
from maskfleet.files import FileDigest, write_atomically
from maskfleet.records import write_settings
from maskfleet.run_directory import RunDirectory


class Recorder:
    """As much of a cluster as the reporter talks to; keeps what it was told last of the streamer."""

    namespace = "team"

    def __init__(self) -> None:
        self.streamer: dict[str, Any] = {}

    def patch(self, kind: str, name: str, change: dict[str, Any]) -> None:
        self.streamer = json.loads(change["metadata"]["annotations"][PROGRESS_JSON_ANNOTATION])["streamer"]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """The cluster of a chief's sidecar that runs in this process, which is to stay as it is."""
    recorder = Recorder()
    monkeypatch.setattr(sidecar.Cluster, "connect", lambda namespace: recorder)
    monkeypatch.setattr(os, "nice", lambda increment: 0)
    for variable, value in (("JOB", "pets"), ("NAMESPACE", "team"), ("WORKER", "0")):
        monkeypatch.setenv(f"MASKFLEET_{variable}", value)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield recorder
    for number, handler in before.items():
        signal.signal(number, handler)


def write_checkpoint(run: RunDirectory, step: int) -> None:
    prefix = run.checkpoint_prefix(step)
    paths = [prefix.with_name(f"{prefix.name}{suffix}") for suffix in (".data-00000-of-00001", ".index")]
    for path in paths:
        write_atomically(path, b"x" * 1000)
    manifest = CheckpointManifest(step, 1, float(step), None, {path.name: FileDigest.of(path) for path in paths})
    write_atomically(run.checkpoint_manifest(step), manifest.serialize())


def accompany(
    run: RunDirectory, destination: Path, last_step: int, keep_checkpoints: int | None = None, worker: int = 0
) -> int:
    """Runs the sidecar; a checkpoint is written in the moment in which it is told to end."""

    def end() -> None:
        deadline = time.monotonic() + 20
        while not (destination / "logs" / f"worker-{worker}.log").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        write_checkpoint(run, last_step)
        os.kill(os.getpid(), signal.SIGTERM)

    run.logs.mkdir(parents=True)
    run.worker_log(worker).write_text("step 1\n")
    threading.Thread(target=end, daemon=True).start()
    return sidecar.accompany(run, str(destination), grace=20, keep_checkpoints=keep_checkpoints)


def test_the_job_is_told_of_the_streamer_s_end_and_not_of_its_middle(recorder: Recorder, tmp_path: Path) -> None:
    run, destination = RunDirectory(tmp_path / "run"), tmp_path / "destination"
    assert accompany(run, destination, 1) == 0
    assert (destination / "checkpoints" / "manifests" / "step-00000001.json").is_file()
    assert recorder.streamer["bytes_sent"] > 1000
    assert recorder.streamer["lag_bytes"] == 0


def test_the_destination_keeps_as_many_checkpoints_as_the_job_says(recorder: Recorder, tmp_path: Path) -> None:
    run, destination = RunDirectory(tmp_path / "run"), tmp_path / "destination"
    for step in (1, 2):
        write_checkpoint(run, step)
    assert accompany(run, destination, 3, keep_checkpoints=1) == 0
    kept = sorted(path.name for path in (destination / "checkpoints" / "manifests").iterdir())
    assert kept == ["step-00000003.json"]


def test_of_any_worker_but_the_chief_the_log_is_all_that_is_copied(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKFLEET_WORKER", "1")
    run, destination = RunDirectory(tmp_path / "run"), tmp_path / "destination"
    write_settings(run, {"epochs": 1})
    assert accompany(run, destination, 1, worker=1) == 0
    copied = [path for path in destination.rglob("*") if path.is_file() and ".maskfleet" not in path.parts]
    assert [path.name for path in copied] == ["worker-1.log"]
