"""Files that only grow: event files, logs and lines of JSON. What is whole in them is appended to their object.

How far a file was copied is not noted down locally: it is the object's own size, and its crc32c says whether the
file still begins with what was copied.
"""

from __future__ import annotations

import base64
import os
from typing import BinaryIO

import google_crc32c

from launcher.streaming.stores.store import PIECE, Store
from launcher.streaming.upload.guarded_object import Conflict, GuardedObject
from maskfleet.files import FileDigest
from maskfleet.plain_files import PlainFiles
from maskfleet.tfrecords import Scan, Scanner, scan_lines, whole_until

CATCH_UP_SECONDS = 1.0
"""Between two appends while there is more than one piece to copy: Google Cloud Storage's limit for one object."""

TAIL = 64
"""Bytes before the next append that are compared with what was copied."""


def flush_interval(size: int, interval: float) -> float:
    """Seconds between two appends to an object of ``size`` bytes.

    Up to four times ``interval`` from 48 MiB on: where a bucket keeps replaced versions (soft delete), each append is
    billed at the object's whole size.
    """
    return interval * (1 + min(3, size >> 24))


class GrowingFile:
    """One growing file and the object that follows it.

    Attributes:
        pending: bytes of the file that are not in the object yet, as of the last step.
        pending_since: time, by the clock of ``step``, at which the oldest of them was first seen; None without any.
        history: whether what the object holds has to be this run's.
        problem: why the file is not copied (any further), in one line; None if all is well.
    """

    def __init__(
        self, store: Store, files: PlainFiles, name: str, scan: Scanner, *, interval: float, history: bool = False
    ):
        self.pending = 0
        self.pending_since: float | None = None
        self.problem: str | None = None
        self._files = files
        self._name = name
        self._path = files.root / name
        self._scan = scan
        self._interval = interval
        self.history = history
        self._store = store
        self._remote = GuardedObject(store, name)
        self._looked = False
        self._inode: int | None = None
        self._size = 0
        self._tail = b""
        self._begun = 0
        self._not_before = 0.0
        self._refused: tuple[int, int, int] | None = None
        self._stuck: tuple[Scan, int] | None = None

    def step(self, now: float, *, final: bool = False) -> int:
        """Copies at most one piece that is due, or in a ``final`` step at once. Returns the bytes sent.

        Raises:
            Conflict: somebody else writes the object, or a history in it belongs to another run.
            StoreUnavailable: nothing is lost; call again.
            OSError: the file can't be read, or is a link or special file by now.
        """
        try:
            with self._files.open(self._name) as file:
                return self._step(file, now, final=final)
        except FileNotFoundError:
            self._observe(0, now)
            if self.history and not self._looked:
                self._look()
                if self._copied:
                    raise self._another_run("is not there") from None
            return 0

    def _step(self, file: BinaryIO, now: float, *, final: bool) -> int:
        status = os.fstat(file.fileno())
        self._size = status.st_size
        if not self._continues(file, status):
            return 0
        self._observe(status.st_size - self._copied, now)
        if not self.pending or (now < self._not_before and not (final and self.pending <= PIECE)):
            return 0
        content = self._whole_records(file, status.st_size, final=final)
        if not content:
            return 0
        before = self._copied
        crc = google_crc32c.extend(self._crc, content)
        digest = FileDigest(before + len(content), _encode(crc))
        written = self._remote.write(
            digest, lambda current: self._store.append(self._remote.name, content, digest, current)
        )
        if self._copied != before:
            self._begun = 0
        self._tail = self._read_tail(file)
        self._observe(status.st_size - self._copied, now)
        more = self.pending >= PIECE or not written
        self._not_before = now + (CATCH_UP_SECONDS if more else flush_interval(self._copied, self._interval))
        return len(content)

    def is_caught_up(self) -> bool:
        """Whether another step now would copy nothing: what is left, if anything, is no whole record."""
        stuck = self._stuck is not None and self._stuck[1] == self._size
        return not self.pending or self.problem is not None or stuck

    @property
    def _copied(self) -> int:
        return self._remote.current.size if self._remote.current else 0

    @property
    def _crc(self) -> int:
        current = self._remote.current
        return int.from_bytes(base64.b64decode(current.crc32c or ""), "big") if current else 0

    def _observe(self, pending: int, now: float) -> None:
        self.pending = max(0, pending)
        self.pending_since = (self.pending_since or now) if self.pending else None

    def _continues(self, file: BinaryIO, status: os.stat_result) -> bool:
        """Whether the file still begins with what was copied; looks for the object at the first call."""
        signature = (status.st_ino, status.st_size, status.st_mtime_ns)
        if signature == self._refused:
            return False
        first = not self._looked
        if first:
            self._look()
        difference = None
        if status.st_size < self._copied:
            difference = f"has only {status.st_size} bytes, but {self._copied} were copied before"
        elif status.st_ino != self._inode and not self._begins_with_copy(file):
            difference = f"was replaced: it differs from the {self._copied} bytes that were copied before"
        elif status.st_ino == self._inode and status.st_size > self._copied and self._read_tail(file) != self._tail:
            difference = f"was written anew: the last bytes before {self._copied} are not those that were copied"
        if difference is None:
            if status.st_ino != self._inode:
                self._tail, self.problem = self._read_tail(file), None
                self._begun = 0 if self._scan is scan_lines else self._copied - whole_until(file, self._copied)
            self._inode = status.st_ino
            return True
        if self.history and first:
            raise self._another_run(difference)
        self.problem = f"{self._path}: {difference}; it is not copied any further"
        self._refused, self._inode = signature, None
        return False

    def _look(self) -> None:
        self._store.tidy(self._remote.name)
        self._remote.look()
        self._looked = True

    def _another_run(self, difference: str) -> Conflict:
        return Conflict(
            f"{self._store.url}/{self._remote.name}: belongs to another run ({self._path} {difference}); choose an "
            f"empty destination, or bring that run back first with 'launcher restore {self._store.url} RUN'"
        )

    def _begins_with_copy(self, file: BinaryIO) -> bool:
        current = self._remote.current
        if current is None:
            return True
        crc, left = 0, current.size
        file.seek(0)
        while left and (piece := file.read(min(left, 1 << 20))):
            crc = google_crc32c.extend(crc, piece)
            left -= len(piece)
        return left == 0 and _encode(crc) == current.crc32c

    def _read_tail(self, file: BinaryIO) -> bytes:
        """The last bytes that were copied, as the file has them now."""
        start = max(0, self._copied - TAIL)
        file.seek(start)
        return file.read(self._copied - start)

    def _whole_records(self, file: BinaryIO, size: int, *, final: bool) -> bytes:
        """The next whole records, at most a piece (or one record, if that is larger).

        Where a crash of the destination's machine has left the beginning of a record, what is left of it is the first.
        """
        start = self._copied - self._begun
        file.seek(start)
        content = file.read(min(PIECE, size - start))
        scan = self._scan(content)
        if not scan.whole and len(content) < scan.needed <= size - start:
            content += file.read(scan.needed - len(content))
            scan = self._scan(content)
        if not scan.whole and self._scan is scan_lines and (final or len(content) == PIECE):
            return content  # a log's last line, or a line of 8 MiB
        if scan.whole:
            self._stuck = self.problem = None
        else:
            if scan.problem and (final or self._stuck == (scan, size)):  # not just a write that was half visible
                self.problem = f"{self._path}: {scan.problem} at byte {start}; it is not copied any further"
            self._stuck = (scan, size)
        return content[self._begun : scan.whole]


def _encode(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode()
