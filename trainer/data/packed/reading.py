"""Reads records by their place. What is slow or fails is waited for, what lies is refused by name.

Each record is held against the checksum that the index has of it, and the index against that of the manifest: a range
that is cut short, bits that have changed on their way and a shard that was replaced all show, whatever the store says.
Imports no TensorFlow.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from maskfleet.backoff import pauses
from maskfleet.child_processes import report_line
from maskfleet.errors import BadData, BadInput
from maskfleet.files import FileDigest
from maskfleet.schema import parsed, validated
from trainer.cgroup import cpu_limit
from trainer.data.moving_average import MovingAverage
from trainer.data.packed.bucket import Bucket, NotThere, Unavailable
from trainer.data.packed.layout import MANIFEST, ROW, Manifest, PackedSplit, StoredFile
from trainer.data.packed.record import example_of
from trainer.data.packed.record_cache import RecordCache
from trainer.data.source import Example

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
"""Seconds between two tries while the bucket can't be reached, at most."""
_REPORT_SECONDS = 10.0
"""Between two lines about an outage."""
_WRONG = 5
"""Times that a record comes with other bytes than the index says before it is taken for what the shard holds."""
_WEIGHT = 0.02
"""Of the newest request and the newest example in the moving averages of how long they take."""
T = TypeVar("T")


class Reader:
    """Records of packed data, from several threads.

    Attributes:
        cache: where records are kept; None: they are read each time.
        heartbeat: called each second while somebody waits for the bucket.
        problem: what the bucket's last failure was; None since something came.
        failure: what was refused.
        bytes_read: of records that came from the bucket.
    """

    def __init__(self, bucket: Bucket, manifest: Manifest, indices: Mapping[str, NDArray[Any]], max_pixels: int):
        self.bucket, self.manifest = bucket, manifest
        self.cache: RecordCache | None = None
        self.heartbeat: Callable[[], None] = lambda: None
        self.problem: str | None = None
        self.failure: BadInput | None = None
        self.bytes_read = 0
        self._answer, self._decode = MovingAverage(_WEIGHT), MovingAverage(_WEIGHT)
        self._indices, self._max_pixels = indices, max_pixels
        self._firsts = dict(zip(indices, np.cumsum([0, *map(len, indices.values())]).tolist(), strict=False))
        self._decoding = threading.BoundedSemaphore(max(1, cpu_limit()))
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def example(self, split: str, i: int) -> Example:
        """Example ``i`` of a split.

        Raises:
            BadData: the bucket holds other bytes than the index says, or no such example.
            BadSettings: the bucket refuses.
            Unavailable: the reader was closed meanwhile.
        """
        try:
            data, shard = self.data(split, i), self._shard(split, i)
            with self._decoding:  # as many as there are CPUs, however many are on their way
                began = time.monotonic()
                example = example_of(data, f"{self.bucket.url}/{shard.name}", self._max_pixels)
                seconds = time.monotonic() - began
            with self._lock:
                self._decode.add(seconds)
            return example
        except BadInput as error:
            self.failure = self.failure or error
            raise

    @property
    def latency(self) -> float:
        """Seconds that an example takes by itself, of late: to be answered by the bucket, and to be decoded."""
        return self._answer.value + self._decode.value

    def close(self) -> None:
        """Ends what is waited for and what is still to be read, by other threads: a process that ends joins them."""
        self._closed.set()

    def pixels(self, split: str, i: int) -> int:
        return int(self._indices[split][i]["pixels"])

    def data(self, split: str, i: int) -> bytes:
        """Of a record, from the cache or the bucket. Raises BadData."""
        number = self._firsts[split] + i
        if self.cache is not None and (kept := self.cache.get(number)) is not None:
            return kept
        row, shard = self._indices[split][i], self._shard(split, i)
        start, length, checksum = (int(row[key]) for key in ("offset", "length", "crc32c"))
        found = b""
        for _ in range(_WRONG):
            found = persistently(lambda: self._range(shard.name, start, length), self._fails, self._closed)
            if len(found) == length and google_crc32c.value(found) == checksum:
                self.problem = None
                if self.cache is not None:
                    self.cache.put(number, found)
                return found
            self.problem = f"{self.bucket.url}/{shard.name}: {len(found)} of {length} bytes came, or other ones"
        raise BadData(self._lie(shard, start, length, len(found)))

    def _range(self, name: str, start: int, length: int) -> bytes:
        began = time.monotonic()
        found = self.bucket.read_range(name, start, length)
        seconds = time.monotonic() - began
        with self._lock:
            self.bytes_read += len(found)
            self._answer.add(seconds)
        return found

    def _shard(self, split: str, i: int) -> StoredFile:
        return self.manifest.splits[split].shards[int(self._indices[split][i]["shard"])]

    def _lie(self, shard: StoredFile, start: int, length: int, came: int) -> str:
        size = persistently(lambda: self.bucket.size(shard.name), self._fails, self._closed)
        place = f"{self.bucket.url}/{shard.name}"
        if size != shard.size:
            found = "nothing" if size is None else f"{size} bytes"
            return (
                f"{place}: expected the {shard.size} bytes that {MANIFEST} tells of, found {found}: the shard was "
                "replaced; bring it back, or pack the data anew into an empty place"
            )
        what = f"{came} bytes" if came != length else "other bytes than were packed"
        return (
            f"{place}: expected a record of {length} bytes at {start}, found {what}, {_WRONG} times: the shard was "
            "damaged or replaced; bring it back, or pack the data anew into an empty place"
        )

    def _fails(self, error: Unavailable) -> None:
        self.problem = str(error)


def open_reader(bucket: Bucket, max_pixels: int) -> Reader:
    """Reads manifest and indices.

    Raises:
        BadData: there is no packed data, or an index is not the manifest's.
    """
    waiting = _Outage()
    try:
        manifest = _manifest(bucket, waiting)
    except NotThere as error:
        raise BadData(
            f"{bucket.url}: expected packed data, found no {MANIFEST}, which comes last; 'trainer pack' writes it, and "
            "goes on where it was interrupted"
        ) from error
    indices = {}
    for name, split in manifest.splits.items():
        index = _index(bucket, split.index, waiting)
        if index.dtype != ROW or index.shape != (split.examples,):
            raise BadData(f"{bucket.url}/{split.index.name}: expected {split.examples} places of records, found others")
        if split.examples and int(index["shard"].max()) >= len(split.shards):
            raise BadData(f"{bucket.url}/{split.index.name}: names a shard that {MANIFEST} does not have")
        indices[name] = index
    return Reader(bucket, manifest, indices, max_pixels)


def _manifest(bucket: Bucket, outage: _Outage) -> Manifest:
    """It has no checksum elsewhere: one that was cut short on its way is no JSON, and read again."""
    problem: ValueError | None = None
    for _ in range(_WRONG):
        try:
            return validated(Manifest, persistently(lambda: bucket.read(MANIFEST, _is_manifest), outage))
        except ValueError as error:
            problem = error
    raise BadData(f"{bucket.url}/{MANIFEST}: is no manifest of packed data: {problem}") from problem


def _is_manifest(content: bytes) -> bool:
    return parsed(Manifest, content) is not None


class Names(Sequence[str]):
    """Names of a split's examples, which are read when the first one is asked for."""

    def __init__(self, bucket: Bucket, split: PackedSplit):
        self._bucket, self._split = bucket, split
        self._names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return self._split.examples

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[str, ...]: ...
    def __getitem__(self, i: int | slice) -> str | tuple[str, ...]:
        if self._names is None:
            content = _verified(self._bucket, self._split.names, _Outage())
            self._names = tuple(name.decode() for name in content.split(b"\0")[:-1])
        return self._names[i]


def persistently(
    action: Callable[[], T], failed: Callable[[Unavailable], None], closed: threading.Event | None = None
) -> T:
    """What ``action`` gives once the bucket can be reached; ``failed`` is called with the error of each try.

    Raises:
        Unavailable: ``closed`` is set.
    """
    closed = closed or threading.Event()
    for pause in pauses(_SHORTEST_PAUSE, _LONGEST_PAUSE):
        if closed.is_set():
            raise Unavailable("nobody waits for it any more")
        try:
            return action()
        except Unavailable as error:
            failed(error)
            closed.wait(pause)
    raise AssertionError("pauses without a deadline end")


class _Outage:
    """Tells of tries that fail, every ten seconds."""

    def __init__(self) -> None:
        self._began = self._told = time.monotonic()

    def __call__(self, error: Unavailable) -> None:
        now = time.monotonic()
        if now - self._told > _REPORT_SECONDS:
            self._told = now
            report_line(f"waits for {error}; for {now - self._began:.0f} s now")


def _verified(bucket: Bucket, file: StoredFile, outage: _Outage) -> bytes:
    """All of a file's bytes. Raises BadData if they are not the manifest's."""
    content = b""

    def is_right(found: bytes) -> bool:
        return FileDigest.read(io.BytesIO(found)) == FileDigest(file.size, file.crc32c)

    for _ in range(_WRONG):
        content = persistently(lambda: bucket.read(file.name, is_right), outage)
        if is_right(content):
            return content
    raise BadData(
        f"{bucket.url}/{file.name}: expected the {file.size} bytes that {MANIFEST} tells of, found "
        f"{len(content)} or other ones; bring it back, or pack the data anew into an empty place"
    )


def _index(bucket: Bucket, file: StoredFile, outage: _Outage) -> NDArray[Any]:
    """Memory-mapped where it lies in a folder."""
    try:
        if bucket.folder is not None and FileDigest.of(bucket.folder / file.name) == FileDigest(file.size, file.crc32c):
            mapped: NDArray[Any] = np.load(bucket.folder / file.name, mmap_mode="r", allow_pickle=False)
            return mapped
        found: NDArray[Any] = np.load(io.BytesIO(_verified(bucket, file, outage)), allow_pickle=False)
        return found
    except (ValueError, EOFError, OSError) as error:
        raise BadData(f"{bucket.url}/{file.name}: expected an index of records, found none: {error}") from error
