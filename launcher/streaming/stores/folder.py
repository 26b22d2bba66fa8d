"""A folder as destination: another disk, a network file system, or the run directory of a test."""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from launcher.streaming.stores.store import (
    INTERNAL,
    PIECE,
    Changed,
    ContentDiffers,
    StoredObject,
    StoreRefused,
    StoreUnavailable,
)
from maskfleet.files import FileDigest

_APPEND = "append-"
"""Begins the name of the note of an append that is going on."""


class FolderStore:
    """Files under ``path``. A lock file makes each check and its write one step among streamers."""

    def __init__(self, path: Path):
        self.path = path.absolute()
        self.url = str(self.path)
        self.on_retry: Callable[[Exception], None] = lambda error: None

    def check(self) -> list[str]:
        with self._locked():
            (self.path / INTERNAL / "probe").touch()
            for left in (self.path / INTERNAL).iterdir():  # what a streamer that was killed was about to write
                if left.name.startswith(_APPEND):
                    self._undo_append(left, None)
                elif left.name != "lock":
                    left.unlink()
        return []

    def find(self, name: str) -> StoredObject | None:
        try:
            with (self.path / name).open("rb") as file:
                # The version is taken before the digest: a change in between then fails the next write.
                found = _stored(name, os.fstat(file.fileno()))
                return StoredObject(
                    name, found.size, FileDigest.of(self.path / name).crc32c, found.version, found.updated
                )
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        files = (path for path in self.path.rglob("*") if path.is_file())
        for name in sorted(path.relative_to(self.path).as_posix() for path in files):
            if name.startswith(prefix) and not name.startswith(INTERNAL):
                yield _stored(name, (self.path / name).stat())

    def read(self, found: StoredObject, start: int = 0) -> Iterator[bytes]:
        with self._opened(found) as file:
            file.seek(start)
            while start < found.size and (piece := file.read(min(PIECE, found.size - start))):
                yield piece
                start += len(piece)

    def put(self, name: str, file: BinaryIO, digest: FileDigest, expected: StoredObject | None) -> StoredObject:
        target = self.path / name
        with self._locked():
            self._expect(name, expected)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path / INTERNAL / uuid.uuid4().hex
            try:
                with temporary.open("wb") as copy:
                    while piece := file.read(PIECE):
                        copy.write(piece)
                if FileDigest.of(temporary) != digest:
                    raise ContentDiffers(f"{name}: holds other bytes than its digest says")
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
            return _stored(name, target.stat(), digest.crc32c)

    def append(self, name: str, content: bytes, digest: FileDigest, expected: StoredObject | None) -> StoredObject:
        target = self.path / name
        with self._locked():
            self._expect(name, expected)
            target.parent.mkdir(parents=True, exist_ok=True)
            note = self.path / INTERNAL / f"{_APPEND}{uuid.uuid4().hex}"
            note.write_text(f"{target.stat().st_size if target.exists() else -1}\n{name}\n")
            try:
                with target.open("ab", buffering=0) as file:
                    if file.write(content) != len(content):  # what is left of the disk takes a part
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            except BaseException:
                self._undo_append(note, expected)
                raise
            note.unlink()
            return _stored(name, target.stat(), digest.crc32c)

    def tidy(self, name: str) -> None:
        pass

    def _undo_append(self, note: Path, before: StoredObject | None) -> None:
        """What there was is there again, and in its old version if that is known.

        ``note`` holds the size before, -1 where there was no file, and the name; it is there while the append goes on.
        """
        text = note.read_text()
        size, _, name = text.removesuffix("\n").partition("\n")
        target = self.path / name
        if not text.endswith("\n"):  # it was cut itself, and nothing is written before it is whole
            pass
        elif size == "-1":
            target.unlink(missing_ok=True)
        elif target.exists():
            os.truncate(target, int(size))
            if before is not None:
                os.utime(target, ns=(target.stat().st_atime_ns, int(before.version.rsplit("-", 1)[1])))
        note.unlink()

    def delete(self, found: StoredObject) -> None:
        with self._locked():
            if (self.path / found.name).exists():
                self._expect(found.name, found)
                (self.path / found.name).unlink()

    def _expect(self, name: str, expected: StoredObject | None) -> None:
        if (self.path / name).is_dir():
            raise StoreRefused(f"{self.path / name}: expected a file or nothing, found a folder; move it away")
        try:
            version = _stored(name, (self.path / name).stat()).version
        except FileNotFoundError:
            version = None
        if version != (expected and expected.version):
            raise Changed(f"{self.path / name}: is not in the version that was expected")

    @contextmanager
    def _opened(self, found: StoredObject) -> Iterator[BinaryIO]:
        try:
            with (self.path / found.name).open("rb") as file:
                if _stored(found.name, os.fstat(file.fileno())).version != found.version:
                    raise Changed(f"{self.path / found.name}: was replaced while it was read")
                yield file
        except FileNotFoundError as error:
            raise Changed(f"{self.path / found.name}: was deleted while it was read") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            (self.path / INTERNAL).mkdir(parents=True, exist_ok=True)
            with (self.path / INTERNAL / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise StoreRefused(f"{self.path}: can't be written: {error}") from error
        except OSError as error:
            raise StoreUnavailable(f"{self.path}: {error}") from error


def _stored(name: str, status: os.stat_result, crc32c: str | None = None) -> StoredObject:
    version = f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
    return StoredObject(name, status.st_size, crc32c, version, status.st_mtime)
