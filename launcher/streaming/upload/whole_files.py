"""Files that are replaced as a whole: settings, progress, pictures, and the folder of exported models."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import BinaryIO

from launcher.streaming.layout import EXPORT_MANIFEST
from launcher.streaming.stores.store import Store
from launcher.streaming.upload.guarded_object import GuardedObject
from launcher.streaming.upload.run_files import finished_files
from maskfleet.export_manifest import EXPORT_BYTES, EXPORT_FILE, ExportManifest
from maskfleet.files import FileDigest
from maskfleet.plain_files import Entry, PlainFiles
from maskfleet.run_directory import RunDirectory

SETTLED_SECONDS = 5.0
"""For which a picture or the export has to stay as it is to be taken for finished."""

_Signature = tuple[int, int, int]


def _signature(status: os.stat_result) -> _Signature:
    return status.st_ino, status.st_size, status.st_mtime_ns


class _Rest:
    """For how long something has stayed as it is, by the clock of who looks: a file's own may have been set."""

    def __init__(self) -> None:
        self._seen: object = None
        self._since = 0.0

    def seconds(self, found: object, now: float) -> float:
        if found != self._seen:
            self._seen, self._since = found, now
        return now - self._since


class WholeFile:
    """One file and the object that holds its newest version. Attributes as those of GrowingFile."""

    def __init__(self, store: Store, files: PlainFiles, name: str, *, interval: float, settle: bool = False):
        self.pending = 0
        self.pending_since: float | None = None
        self.problem: str | None = None
        self.history = False
        self._store = store
        self._files = files
        self._name = name
        self._interval = interval
        self._settle = settle
        self._remote = GuardedObject(store, name)
        self._looked = False
        self._rest = _Rest()
        self._sent: _Signature | None = None
        self._not_before = 0.0

    def step(self, now: float, *, final: bool = False) -> int:
        """Sends the file if it changed and is due. Returns the bytes sent.

        Raises:
            Conflict: somebody else writes the object.
            StoreUnavailable: nothing is lost; call again.
            OSError: the file can't be read, or is a link or special file by now.
        """
        try:
            signature = _signature(self._files.stat(self._name))
        except FileNotFoundError:
            self._observe(0, now)
            return 0
        if signature == self._sent:
            return 0
        self._observe(max(1, signature[1]), now)
        settled = not self._settle or self._rest.seconds(signature, now) >= SETTLED_SECONDS
        if not final and (now < self._not_before or not settled):
            return 0
        try:
            with self._files.open(self._name) as file:
                return self._send(file, now)
        except FileNotFoundError:
            return 0

    def is_caught_up(self) -> bool:
        return not self.pending

    def _send(self, file: BinaryIO, now: float) -> int:
        if not self._looked:
            self._remote.look()
            self._looked = True
        signature = _signature(os.fstat(file.fileno()))
        digest = FileDigest.read(file)
        if _signature(os.fstat(file.fileno())) != signature or digest.size != signature[1]:
            return 0  # it is being written
        sent = 0
        if self._remote.current is None or not self._remote.current.matches(digest):
            file.seek(0)
            if not self._remote.write(
                digest, lambda current: self._store.put(self._remote.name, file, digest, current)
            ):
                return 0
            sent = digest.size
        self._sent = signature
        self._not_before = now + self._interval
        self._observe(0, now)
        return sent

    def _observe(self, pending: int, now: float) -> None:
        self.pending = pending
        self.pending_since = (self.pending_since or now) if pending else None


class ExportFolder:
    """The exported models: their files, then a manifest of them. Attributes as those of GrowingFile.

    ``left_out`` are the links and special files among them, as of the last step.
    """

    def __init__(self, store: Store, run: RunDirectory):
        self.pending = 0
        self.pending_since: float | None = None
        self.problem: str | None = None
        self.history = False
        self.left_out: list[Entry] = []
        self._store = store
        self._files = PlainFiles(run.path)
        self._folder = run.export.name
        self._rest = _Rest()
        self._sent: dict[str, _Signature] = {}

    def step(self, now: float, *, final: bool = False) -> int:
        """Sends the whole folder once nothing in it has changed for a while. Returns the bytes sent.

        Raises:
            Conflict, StoreUnavailable: as for WholeFile.
        """
        found: dict[str, _Signature] = {}
        entries = list(finished_files(self._files, self._folder))
        self.left_out = [entry for entry in entries if entry.problem is not None]
        for entry in entries:
            if entry.problem is None:
                with suppress(FileNotFoundError):
                    found[entry.name] = _signature(self._files.stat(entry.name))
        if found == self._sent:
            return 0
        self.pending = sum(size for name, (_, size, _) in found.items() if self._sent.get(name) != found[name])
        self.pending_since = self.pending_since or now
        if self._rest.seconds(found, now) < SETTLED_SECONDS and not final:
            return 0
        sent = self._send(found)
        self._sent, self.pending, self.pending_since = found, 0, None
        return sent

    def is_caught_up(self) -> bool:
        return not self.pending

    def _send(self, found: dict[str, _Signature]) -> int:
        digests = {}
        for name in found:
            with self._files.open(name) as file:
                digests[name] = FileDigest.read(file)
        self.problem = self._mixed(digests)
        if self.problem is not None:
            return 0
        content = json.dumps({"files": {name: asdict(digest) for name, digest in digests.items()}}, indent=1).encode()
        there = self._store.find(EXPORT_MANIFEST)
        if there is not None and b"".join(self._store.read(there)) == content:
            return 0
        if there is not None:
            self._store.delete(there)
        self._store.end_uploads(f"{self._folder}/")
        sent = 0
        for name, digest in digests.items():
            with self._files.open(name) as file:
                sent += GuardedObject(self._store, name).put(file, digest)
        manifest = io.BytesIO(content)
        return sent + GuardedObject(self._store, EXPORT_MANIFEST).put(manifest, FileDigest.read(manifest))

    def _mixed(self, digests: Mapping[str, FileDigest]) -> str | None:
        """Why the files are not those of one export: one that was interrupted is not copied over a whole one."""
        try:
            manifest = ExportManifest.parse(self._files.read(f"{self._folder}/{EXPORT_FILE}", EXPORT_BYTES))
        except OSError:
            return None
        if manifest is None:
            return None
        problem = manifest.problem({name: digests.get(f"{self._folder}/{name}") for name in manifest.files})
        return problem and (
            f"the export is not whole, as one that was interrupted: {problem}; 'trainer export' makes it anew"
        )
