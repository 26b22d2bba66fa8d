"""What was read once and may be read again: byte strings by number, in one file that never exceeds its limit.

The first that come stay. Each epoch reads all examples once, in an order of its own: then no choice of what to drop is
better than to drop nothing, since any part of the data that is kept serves that part of an epoch's reads. (Of records
that give way to the newest, only those are met again that two epochs happen to have close together.)

The file outlives the process. A row is written after the bytes that it is about, and has their checksum, so that
what a kill has cut is not there. Imports no TensorFlow.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np

from trainer.cache_folder import cache_root

_ROW = np.dtype([("offset", "<u8"), ("number", "<u8"), ("length", "<u4"), ("crc32c", "<u4")])
_PREFIX = "packed-"


class RecordCache:
    """Byte strings by number, from several threads; one process at a time.

    Args:
        folder: of its files; it is there.
        count: of numbers, from 0 on.
        limit: bytes of both files.
    """

    def __init__(self, folder: Path, count: int, limit: int):
        self._limit, self.is_full = limit, False
        self._offsets, self._lengths, self._checksums = (np.zeros(count, kind) for kind in ("<u8", "<u4", "<u4"))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._blobs, self._rows = (os.open(folder / name, flags, 0o600) for name in ("records", "rows"))
        self._lock = threading.Lock()
        self._row_count = self._end = 0
        self._take_over()

    def _take_over(self) -> None:
        """What an earlier process has left, as far as it fits."""
        size = os.fstat(self._rows).st_size // _ROW.itemsize * _ROW.itemsize
        rows = np.frombuffer(os.pread(self._rows, size, 0), _ROW)
        ends = rows["offset"] + rows["length"]
        there = np.minimum(os.fstat(self._blobs).st_size, max(0, self._limit - size))
        good = rows[(ends <= there) & (rows["number"] < len(self._lengths)) & (rows["length"] > 0)]
        self._offsets[good["number"]] = good["offset"]
        self._checksums[good["number"]] = good["crc32c"]
        self._lengths[good["number"]] = good["length"]
        self._end = int((good["offset"] + good["length"]).max(initial=0))
        self._row_count = len(good)
        os.ftruncate(self._blobs, self._end)
        if len(good) < len(rows):
            os.pwrite(self._rows, good.tobytes(), 0)
        os.ftruncate(self._rows, good.nbytes)

    @property
    def size(self) -> int:
        """Bytes of both files."""
        return self._end + self._row_count * _ROW.itemsize

    def get(self, number: int) -> bytes | None:
        """What was put there; None if nothing was, or it has suffered since."""
        length = int(self._lengths[number])
        if not length:
            return None
        with contextlib.suppress(OSError):
            found = os.pread(self._blobs, length, int(self._offsets[number]))
            if len(found) == length and google_crc32c.value(found) == int(self._checksums[number]):
                return found
        self._lengths[number] = 0
        return None

    def put(self, number: int, content: bytes) -> None:
        """Keeps ``content`` if there is room and nothing is there; a disk that is full is no error."""
        with self._lock:
            if self._lengths[number] or self.is_full:
                return
            offset = self._end
            if self.size + len(content) + _ROW.itemsize > self._limit:
                self.is_full = True
                return
            self._end += len(content)
            place = self._row_count * _ROW.itemsize
            self._row_count += 1
        checksum = google_crc32c.value(content)
        row = np.array([(offset, number, len(content), checksum)], _ROW).tobytes()
        try:
            if os.pwrite(self._blobs, content, offset) != len(content) or os.pwrite(self._rows, row, place) != len(row):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            self.is_full = True
            return
        self._offsets[number], self._checksums[number] = offset, checksum
        self._lengths[number] = len(content)


_held: list[int] = []
"""Descriptors whose lock tells other processes, until this one ends, that a cache is in use."""


def open_record_cache(key: str, count: int, limit: int) -> RecordCache:
    """A cache of this process alone for data that ``key`` names; of other data, those that nobody uses are deleted.

    Raises:
        OSError: the folder of caches can't be written.
    """
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    for folder in root.glob(f"{_PREFIX}*-*/"):
        if not folder.name.startswith(f"{_PREFIX}{key}-"):
            with _unused(folder) as unused:
                if unused is not None:
                    shutil.rmtree(folder, ignore_errors=True)
    number = 0
    while True:
        folder = root / f"{_PREFIX}{key}-{number}"
        folder.mkdir(mode=0o700, exist_ok=True)
        with _unused(folder) as unused:
            if unused is not None:
                _held.append(os.dup(unused))
                return RecordCache(folder, count, limit)
        number += 1


@contextlib.contextmanager
def _unused(folder: Path) -> Iterator[int | None]:
    """A locked descriptor of a folder; None if another process holds it. Where nothing can be locked, all are free."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:  # another process has just deleted it
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        except OSError:
            pass
        yield descriptor
    finally:
        os.close(descriptor)


def room_for_cache(local_workers: int = 1) -> int:
    """Bytes that one of so many workers of this machine may take: together half of what is free, and what they have."""
    root = cache_root()
    there = next(each for each in (root, *root.parents) if each.is_dir())
    own = 0
    for file in root.glob(f"{_PREFIX}*-*/*") if root.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # another process has just deleted it
            own += file.stat().st_size
    return (shutil.disk_usage(there).free + own) // 2 // local_workers
