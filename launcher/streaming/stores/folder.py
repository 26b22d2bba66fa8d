"""A folder as destination: another disk, a network file system, or the run directory of a test.

Its files are reached through no link, in either direction: what somebody links there is no object, and nothing is
written through it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from launcher.streaming.stores.patience import retry_reading
from launcher.streaming.stores.store import (
    INTERNAL,
    PIECE,
    Changed,
    ContentDiffers,
    StoredObject,
    StoreRefused,
    StoreUnavailable,
)
from maskfleet.files import FileDigest, stays_inside
from maskfleet.plain_files import LeftOut, NotPlain, PlainFiles, write_whole

log = logging.getLogger("launcher.folder")

_APPEND = "append-"
"""Begins the name of the note of an append that is going on."""
_NOTE_BYTES = 1 << 16
"""A note holds a size and a name."""
_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError, NotPlain)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_AWAY = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.ENOTCONN, errno.ECONNABORTED,
         errno.ECONNRESET, errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN,
         errno.ENETUNREACH}  # fmt: skip
"""Of the disk's errors, those that pass as soon as there is room, or when a network file system is there again."""


class FolderStore:
    """Files under ``path``. A lock file makes each check and its write one step among streamers."""

    def __init__(self, path: Path):
        self.path = path.absolute()
        self.url = str(self.path)
        self.on_retry: Callable[[Exception], None] = lambda error: None
        self._files = PlainFiles(self.path)
        self._left_out = LeftOut()
        self._interrupted: dict[str, StoredObject | None] = {}
        """By their notes: appends of this store that are still to be undone, and the object as it was before."""

    def check(self) -> list[str]:
        with self._locked():
            self._files.open_to_append(f"{INTERNAL}probe").close()
            # What a streamer that was killed was about to write.
            for left in list(self._files.walk(INTERNAL.rstrip("/"), deep=False)):
                name = left.name.removeprefix(INTERNAL)
                if left.problem is None and name.startswith(_APPEND):
                    self._undo_append(left.name, None)
                elif left.problem is None and name != "lock":
                    self._files.delete(left.name)
        return []

    def find(self, name: str) -> StoredObject | None:
        return retry_reading(lambda: self._find(name), self.on_retry)

    def _find(self, name: str) -> StoredObject | None:
        with self._translated():
            try:
                with self._files.open(name) as file:
                    # The version is taken before the digest: a change in between then fails the next write.
                    found = _stored(name, os.fstat(file.fileno()))
                    crc32c = FileDigest.read(file).crc32c
            except _NO_FILE:
                return None
        return StoredObject(name, found.size, crc32c, found.version, found.updated)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        for name in retry_reading(lambda: self._names(prefix), self.on_retry):
            with self._translated():
                try:
                    status = self._files.stat(name)
                except _NO_FILE:  # deleted since
                    continue
            yield _stored(name, status)

    def _names(self, prefix: str) -> Sequence[str]:
        folder, _, _ = prefix.rpartition("/")
        with self._translated():
            self._check_folder()
            entries = list(self._files.walk(folder))
            for each in entries:
                if each.error is not None and each.error.errno in _AWAY:
                    raise each.error
        entries = [each for each in entries if each.name.startswith(prefix)]
        if line := self._left_out.line(sorted(entries, key=lambda each: each.name)):
            log.warning("%s: %s", self.url, line)
        return sorted(each.name for each in entries if each.problem is None and not each.name.startswith(INTERNAL))

    def _check_folder(self) -> None:
        """Raises NotADirectoryError if something else is there: not the same as no objects."""
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(self.path.stat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.path))

    def read(self, found: StoredObject, start: int = 0) -> Iterator[bytes]:
        with self._opened(found) as file:
            while start < found.size:
                piece = retry_reading(partial(self._piece, file, start, found.size), self.on_retry)
                if not piece:
                    raise Changed(f"{self.path / found.name}: was shortened while it was read")
                yield piece
                start += len(piece)

    def _piece(self, file: BinaryIO, start: int, end: int) -> bytes:
        with self._translated():
            file.seek(start)
            return file.read(min(PIECE, end - start))

    def put(self, name: str, file: BinaryIO, digest: FileDigest, expected: StoredObject | None) -> StoredObject:
        with self._locked():
            self._expect(name, expected)
            with self._files.replacing(name, temporary=f"{INTERNAL}{uuid.uuid4().hex}") as copy:
                while piece := file.read(PIECE):
                    copy.write(piece)
                copy.seek(0)
                if FileDigest.read(copy) != digest:
                    raise ContentDiffers(f"{name}: holds other bytes than its digest says")
            return _stored(name, self._files.stat(name), digest.crc32c)

    def append(self, name: str, content: bytes, digest: FileDigest, expected: StoredObject | None) -> StoredObject:
        with self._locked():
            self._expect(name, expected)
            note = f"{INTERNAL}{_APPEND}{uuid.uuid4().hex}"
            try:
                with self._files.open_to_append(note) as file:
                    write_whole(file, f"{-1 if expected is None else expected.size}\n{name}\n".encode())
                with self._files.open_to_append(name) as file:
                    write_whole(file, content)
            except BaseException:
                self._interrupted[note] = expected
                self._undo_interrupted()
                raise
            self._files.delete(note)
            return _stored(name, self._files.stat(name), digest.crc32c)

    def tidy(self, name: str) -> None:
        pass

    def _undo_interrupted(self) -> None:
        """At once if the disk lets us, or else before the next write."""
        for note, before in list(self._interrupted.items()):
            self._undo_append(note, before)
            del self._interrupted[note]

    def _undo_append(self, note: str, before: StoredObject | None) -> None:
        """What there was is there again, and in its old version if that is known.

        ``note`` holds the size before, -1 where there was no file, and the name; it is there while the append goes on.
        One that was cut itself says nothing, since nothing is written before it is whole.
        """
        try:
            text = self._files.read(note, _NOTE_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return
        size, _, name = text.removesuffix("\n").partition("\n")
        if text.endswith("\n") and size == "-1":
            self._files.delete(name)
        elif text.endswith("\n") and size.isdecimal() and size.isascii() and stays_inside(name):
            self._shorten(name, int(size), before)
        self._files.delete(note)

    def _shorten(self, name: str, size: int, before: StoredObject | None) -> None:
        try:
            if self._files.stat(name).st_size < size:
                return
        except _NO_FILE:
            return
        with self._files.open_to_append(name) as file:
            file.truncate(size)
            if before is not None:
                at = os.fstat(file.fileno()).st_atime_ns
                os.utime(file.fileno(), ns=(at, int(before.version.rsplit("-", 1)[1])))

    def end_uploads(self, prefix: str) -> int:
        return 0  # check() has deleted what is left of them

    def delete(self, found: StoredObject) -> None:
        with self._locked():
            try:
                self._files.stat(found.name)
            except _NO_FILE:
                return
            self._expect(found.name, found)
            self._files.delete(found.name)

    def _expect(self, name: str, expected: StoredObject | None) -> None:
        try:
            version = _stored(name, self._files.stat(name)).version
        except FileNotFoundError:
            version = None
        except IsADirectoryError as error:
            raise StoreRefused(
                f"{self.path / name}: expected a file or nothing, found a folder; move it away"
            ) from error
        if version != (expected and expected.version):
            raise Changed(f"{self.path / name}: is not in the version that was expected")

    @contextmanager
    def _opened(self, found: StoredObject) -> Iterator[BinaryIO]:
        with self._translated():
            try:
                file = self._files.open(found.name)
            except _NO_FILE as error:
                raise Changed(f"{self.path / found.name}: was deleted while it was read") from error
        with file:
            if _stored(found.name, os.fstat(file.fileno())).version != found.version:
                raise Changed(f"{self.path / found.name}: was replaced while it was read")
            yield file

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._translated("written"), self._files.open_to_append(f"{INTERNAL}lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._undo_interrupted()
            yield

    @contextmanager
    def _translated(self, what: str = "read") -> Iterator[None]:
        """The disk's errors as those that a Store may raise."""
        try:
            yield
        except OSError as error:
            problem = f"{error.filename or self.path}: can't be {what}: {error.strerror or error}"
            if error.errno in _FULL | _AWAY:
                raise StoreUnavailable(problem) from error
            raise StoreRefused(problem) from error


def _stored(name: str, status: os.stat_result, crc32c: str | None = None) -> StoredObject:
    version = f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
    return StoredObject(name, status.st_size, crc32c, version, status.st_mtime)
