"""Files that are replaced as a whole: settings, progress, pictures, and the folder of exported models."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from launcher.streaming.layout import EXPORT_MANIFEST
from launcher.streaming.stores.store import Store
from launcher.streaming.upload.guarded_object import GuardedObject
from maskfleet.files import FileDigest
from maskfleet.run_directory import RunDirectory

SETTLED_SECONDS = 5.0
"""For which a picture or the export has to stay as it is to be taken for finished."""

_Signature = tuple[int, int, int]


def is_finished(path: Path) -> bool:
    """Whether a name is not that of a file that is being written, ``.NAME`` or ``NAME.tmp``."""
    return not path.name.startswith(".") and path.suffix != ".tmp"


def finished_files(folder: Path) -> Iterator[Path]:
    """All files below the folder, and below folders there, that are not being written."""
    if folder.is_dir():
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if is_finished(path) and not any(part.startswith(".") for part in relative.parts) and path.is_file():
                yield path


def _signature(path: Path) -> _Signature:
    status = path.stat()
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

    def __init__(self, store: Store, path: Path, name: str, *, interval: float, settle: bool = False):
        self.pending = 0
        self.pending_since: float | None = None
        self.problem: str | None = None
        self._store = store
        self._path = path
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
        """
        try:
            signature = _signature(self._path)
        except FileNotFoundError:
            self._observe(0, now)
            return 0
        if signature == self._sent:
            return 0
        self._observe(max(1, signature[1]), now)
        settled = not self._settle or self._rest.seconds(signature, now) >= SETTLED_SECONDS
        if not final and (now < self._not_before or not settled):
            return 0
        return self._send(now)

    def is_caught_up(self) -> bool:
        return not self.pending

    def _send(self, now: float) -> int:
        if not self._looked:
            self._remote.look()
            self._looked = True
        try:
            signature = _signature(self._path)
            digest = FileDigest.of(self._path)
            if _signature(self._path) != signature or digest.size != signature[1]:
                return 0  # it is being written
            sent = 0
            if self._remote.current is None or not self._remote.current.matches(digest):
                with self._path.open("rb") as file:
                    if not self._remote.write(
                        digest, lambda current: self._store.put(self._remote.name, file, digest, current)
                    ):
                        return 0
                sent = digest.size
        except FileNotFoundError:
            return 0
        self._sent = signature
        self._not_before = now + self._interval
        self._observe(0, now)
        return sent

    def _observe(self, pending: int, now: float) -> None:
        self.pending = pending
        self.pending_since = (self.pending_since or now) if pending else None


class ExportFolder:
    """The exported models: their files, then a manifest of them. Attributes as those of GrowingFile."""

    def __init__(self, store: Store, run: RunDirectory):
        self.pending = 0
        self.pending_since: float | None = None
        self.problem: str | None = None
        self._store = store
        self._run = run
        self._rest = _Rest()
        self._sent: dict[str, _Signature] = {}

    def step(self, now: float, *, final: bool = False) -> int:
        """Sends the whole folder once nothing in it has changed for a while. Returns the bytes sent.

        Raises:
            Conflict, StoreUnavailable: as for WholeFile.
        """
        found: dict[str, _Signature] = {}
        for path in finished_files(self._run.export):
            found[path.relative_to(self._run.path).as_posix()] = _signature(path)
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
        digests = {name: FileDigest.of(self._run.path / name) for name in found}
        content = json.dumps({"files": {name: asdict(digest) for name, digest in digests.items()}}, indent=1).encode()
        there = self._store.find(EXPORT_MANIFEST)
        if there is not None and b"".join(self._store.read(there)) == content:
            return 0
        if there is not None:
            self._store.delete(there)
        sent = 0
        for name, digest in digests.items():
            with (self._run.path / name).open("rb") as file:
                sent += GuardedObject(self._store, name).put(file, digest)
        manifest = io.BytesIO(content)
        return sent + GuardedObject(self._store, EXPORT_MANIFEST).put(manifest, FileDigest.read(manifest))
