"""Where each file of a run lies.

The trainer writes these files, the streamer copies them, the launcher reads them; all of them ask
this module for the names. Imports no TensorFlow.
"""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c

from trainer.exit_codes import BadSettings

_CHECKPOINT = re.compile(r"step-(\d{8,})\.json")


@dataclass(frozen=True)
class RunDirectory:
    """The layout of one run under ``path``."""

    path: Path

    @property
    def config(self) -> Path:
        """Resolved settings, versions, git commit and data fingerprint; a valid ``--config`` file."""
        return self.path / "config.json"

    @property
    def tensorboard(self) -> Path:
        """The TensorBoard logdir, which holds event files and nothing else."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def checkpoint_manifests(self) -> Path:
        return self.checkpoints / "manifests"

    @property
    def metrics(self) -> Path:
        """One JSON object a line for each validation."""
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """One JSON object a line: ``time`` (Unix seconds), ``kind`` (start, restart, checkpoint, end), ``message``."""
        return self.path / "events.jsonl"

    @property
    def progress(self) -> Path:
        """Epoch, step, images/s, loss, mIoU, ETA; replaced atomically."""
        return self.path / "progress.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def export(self) -> Path:
        return self.path / "export"

    def write_settings(self, settings: Mapping[str, Any]) -> Callable[[], None]:
        """Puts ``settings`` into :attr:`config` and leaves what else stands there.

        Returns:
            What puts the earlier file back, for settings that training refuses: else they would be in the way of
            every later start. It does nothing once a checkpoint was made with them.

        Raises:
            BadSettings: the folder can't be written.
        """
        steps = self.checkpoint_steps()
        try:
            old = self.config.read_bytes() if self.config.exists() else None
            before = {} if old is None else json.loads(old)
            if changes := before.get("settings") != settings:
                write_json(self.config, {**before, "settings": settings})
        except OSError as error:
            raise BadSettings(f"--run-dir {self.path}: can't be written: {error.strerror}") from None

        def put_back() -> None:
            if changes and old is not None and self.checkpoint_steps() == steps:
                write_atomically(self.config, old)

        return put_back

    def append_event(self, kind: str, message: str) -> None:
        """Adds a line to :attr:`events`."""
        line = json.dumps({"time": time.time(), "kind": kind, "message": message}) + "\n"
        with self.events.open("a") as file:
            file.write(line)

    @property
    def report(self) -> Path:
        """One page about the run for a browser."""
        return self.path / "report.html"

    def worker_log(self, worker: int) -> Path:
        """Standard output and error of every attempt of one worker."""
        return self.logs / f"worker-{worker}.log"

    def checkpoint_prefix(self, step: int) -> Path:
        """The prefix of a checkpoint's data and index file."""
        return self.checkpoints / f"step-{step:08d}"

    def checkpoint_manifest(self, step: int) -> Path:
        """The file whose existence makes the checkpoint of ``step`` complete."""
        return self.checkpoint_manifests / f"step-{step:08d}.json"

    def checkpoint_steps(self) -> list[int]:
        """Steps that have a manifest, newest first."""
        if not self.checkpoint_manifests.is_dir():
            return []
        matches = (_CHECKPOINT.fullmatch(entry.name) for entry in self.checkpoint_manifests.iterdir())
        return sorted((int(match[1]) for match in matches if match), reverse=True)


@dataclass(frozen=True)
class FileDigest:
    """Size in bytes and CRC32C (base64 of the big-endian value, as object stores write it) of one file."""

    size: int
    crc32c: str

    @classmethod
    def of(cls, path: Path) -> FileDigest:
        """Reads the file once, in pieces of 1 MiB."""
        with path.open("rb") as file:
            return cls.read(file)

    @classmethod
    def read(cls, file: BinaryIO) -> FileDigest:
        """As :meth:`of`, from where the open file stands to its end."""
        checksum = google_crc32c.Checksum()
        size = 0
        while piece := file.read(1 << 20):
            checksum.update(piece)
            size += len(piece)
        return cls(size, base64.b64encode(checksum.digest()).decode())


@dataclass(frozen=True)
class CheckpointManifest:
    """What makes a checkpoint complete: its files with their digests, and where training stood.

    ``files`` are named relative to the folder ``checkpoints``. ``training_seconds`` is the time spent in
    training steps up to ``step``; ``miou`` and ``score``, by which the best
    checkpoint is chosen, are None where the step was not validated.
    """

    step: int
    epoch: int
    training_seconds: float
    miou: float | None
    files: Mapping[str, FileDigest]
    score: float | None = None

    @classmethod
    def parse(cls, content: bytes) -> CheckpointManifest:
        """The inverse of :meth:`serialize`.

        Raises:
            ValueError: the content is no manifest.
        """
        try:
            fields = json.loads(content)
            files = {name: FileDigest(int(f["size"]), str(f["crc32c"])) for name, f in fields["files"].items()}
            if outside := [name for name in files if not stays_inside(name)]:
                raise ValueError(f"no checkpoint manifest: {outside[0]!r} is no file in the folder checkpoints")
            return cls(
                int(fields["step"]),
                int(fields["epoch"]),
                float(fields["training_seconds"]),
                None if fields["miou"] is None else float(fields["miou"]),
                files,
                None if fields.get("score") is None else float(fields["score"]),
            )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"no checkpoint manifest: {error!r}") from None

    def serialize(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    def problem(self, checkpoints: Path) -> str | None:
        """The first file under ``checkpoints`` that is missing or differs, in a sentence; None if all verify."""
        for name, expected in self.files.items():
            path = checkpoints / name
            if not path.is_file():
                return f"{path} is missing"
            found = FileDigest.of(path)
            if found != expected:
                return (
                    f"{path} has {found.size} bytes with crc32c {found.crc32c}, "
                    f"expected {expected.size} with {expected.crc32c}"
                )
        return None


def stays_inside(name: str) -> bool:
    """Whether ``name``, which came from elsewhere, is that of a file below the folder that it is joined to."""
    return "\0" not in name and not {"", ".", ".."}.intersection(name.split("/"))


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replaces ``path`` so that a reader sees the old content or the new, never a part.

    ``durable`` waits for the disk, so that the file outlives a crash of the machine too.

    Raises:
        OSError: the disk is full or the folder is not writable; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            wait_for_disk(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def wait_for_disk(path: Path) -> None:
    """Until what a file holds, or which names are in a folder, outlives a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Mapping[str, Any], *, durable: bool = True) -> None:
    """:func:`write_atomically` for a JSON object."""
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode(), durable=durable)
