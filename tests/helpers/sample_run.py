"""A run directory as the trainer leaves it, made of random bytes, for tests of what copies it."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

from launcher.streaming.layout import EXPORT_MANIFEST
from maskfleet.checkpoint_manifest import CheckpointManifest
from maskfleet.files import FileDigest, write_atomically, write_json
from maskfleet.records import Progress
from maskfleet.run_directory import RunDirectory
from maskfleet.tfrecords import frame
from tests.fakes.gcs import FakeGcs
from tests.fakes.s3 import FakeS3

EVENTS = "tensorboard/train/events.out.tfevents.1700000000.host.1.0.v2"


class SampleRun:
    """Grows a run as training does; all content follows from the seed."""

    def __init__(self, path: Path, seed: int = 0):
        self.run = RunDirectory(path)
        self.random = random.Random(seed)
        self.run_id: str | None = None
        path.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        path = self.run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def append(self, name: str, content: bytes) -> None:
        with self.path(name).open("ab") as file:
            file.write(content)

    def log_events(self, count: int = 3, size: int = 200, name: str = EVENTS) -> None:
        for _ in range(count):
            self.append(name, frame(self.random.randbytes(self.random.randrange(size))))

    def log_lines(self, count: int = 3, worker: int = 0) -> None:
        for _ in range(count):
            self.append(f"logs/worker-{worker}.log", self.random.randbytes(20).hex().encode() + b"\n")

    def validate(self, step: int) -> None:
        self.append("metrics.jsonl", json.dumps({"step": step, "loss": self.random.random()}).encode() + b"\n")
        self.append("events.jsonl", json.dumps({"kind": "checkpoint", "message": str(step)}).encode() + b"\n")
        self.append("goodput.jsonl", json.dumps({"time": 1e9 + step, "then": "computing"}).encode() + b"\n")
        Progress("running", epoch=1, epochs=3, step=step, steps=100, loss=self.random.random()).write(self.run)

    def checkpoint(self, step: int, size: int = 3000, miou: float | None = None) -> CheckpointManifest:
        prefix = self.run.checkpoint_prefix(step)
        files = {}
        for suffix, length in ((".data-00000-of-00001", size), (".index", 100)):
            path = prefix.with_name(prefix.name + suffix)
            write_atomically(path, self.random.randbytes(length))
            files[path.name] = FileDigest.of(path)
        manifest = CheckpointManifest(step, 1, 1.0, miou, files, run_id=self.run_id)
        write_atomically(self.run.checkpoint_manifest(step), manifest.serialize())
        return manifest

    def delete_checkpoint(self, step: int) -> None:
        self.run.checkpoint_manifest(step).unlink()
        for path in self.run.checkpoints.glob(f"{self.run.checkpoint_prefix(step).name}.*"):
            path.unlink()

    def everything(self) -> None:
        """Two checkpoints and something of every other kind."""
        write_json(self.run.config, {"settings": {"epochs": 1}})
        write_atomically(self.run.report, b"<html>")
        self.log_events()
        self.log_events(name=EVENTS.replace("train", "validation"))
        self.log_lines()
        for step in (10, 20):
            self.validate(step)
            self.checkpoint(step)
        write_atomically(self.path("pictures/curves.png"), self.random.randbytes(500))
        write_atomically(self.path("export/saved_model/saved_model.pb"), self.random.randbytes(800))
        write_atomically(self.path("export/unet.keras"), self.random.randbytes(900))

    def files(self) -> dict[str, bytes]:
        """What a destination is to hold: every file but hidden ones, by name."""
        files = (path for path in self.run.path.rglob("*") if path.is_file() and not path.name.startswith("."))
        return {path.relative_to(self.run.path).as_posix(): path.read_bytes() for path in files}


def copied_files(fake: FakeGcs | FakeS3, prefix: str = "run/") -> dict[str, bytes]:
    """What the destination BUCKET/run holds, but for the manifest that only it has."""
    found = {name.removeprefix(prefix): text for name, text in fake.contents().items() if name.startswith(prefix)}
    return {name: content for name, content in found.items() if name != EXPORT_MANIFEST}


def assert_whole(fake: FakeGcs | FakeS3, sample: SampleRun) -> None:
    """The destination holds what the run holds and nothing else; every manifest there verifies there."""
    copied = copied_files(fake)
    expected = sample.files()
    assert set(copied) == set(expected)
    assert [name for name in expected if copied[name] != expected[name]] == []
    assert_manifests_verify(fake)


def assert_manifests_verify(fake: FakeGcs | FakeS3, prefix: str = "run/") -> None:
    found = copied_files(fake, prefix)
    for name, content in found.items():
        if name.startswith("checkpoints/manifests/"):
            for file, digest in CheckpointManifest.parse(content).files.items():
                assert FileDigest.read(io.BytesIO(found[f"checkpoints/{file}"])) == digest, (name, file)
