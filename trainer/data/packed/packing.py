"""Writes packed data: shards of records side by side, then the indices, and last the manifest.

Which examples are in which shard follows from the data alone, and of the same example always come the same bytes. So
each shard can be written by itself, in any order, and again: what an interruption has left complete is kept, and the
end is the same, byte for byte. ``parts/`` tells of each shard that is complete; it goes when the manifest is there.
Imports no TensorFlow.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from maskfleet.errors import BadData, BadSettings
from maskfleet.files import FileDigest
from maskfleet.schema import Count, parsed
from maskfleet.tfrecords import HEADER_BYTES, frame
from trainer.data.images import check_label_sets, label_counts
from trainer.data.packed.bucket import Bucket, NotThere
from trainer.data.packed.layout import (
    FORMAT,
    MANIFEST,
    ROW,
    Manifest,
    PackedSplit,
    StoredFile,
    index_name,
    names_name,
    part_name,
    shard_name,
)
from trainer.data.packed.record import Record, record_of
from trainer.data.side_by_side import side_by_side
from trainer.data.source import IGNORED, Reading, Source, Split

SHARD_BYTES = 100_000_000
"""Of a shard, about: large enough for a store that counts requests, small enough to be written again."""
_SAMPLED = 16
"""Examples of a split by which the number in a shard is chosen."""
_UPLOADS = 2
"""Shards that are on their way while the next is made."""
_REPORT_SECONDS = 10.0
_OTHER_LABEL = 2
"""Stands for all labels but 0, 1 and 255, where only these count."""


@dataclass(frozen=True)
class _Part:
    """What is known of a shard that is complete.

    Attributes:
        rows: offset, length, CRC32C and pixels of each record.
        pixels, pixels_where_shown: see :class:`PackedSplit`.
        label_sets: that its masks hold, as far as :func:`check_label_sets` looks at them.
    """

    key: str
    shard: StoredFile
    rows: tuple[tuple[Count, Count, Count, Count], ...]
    pixels: tuple[Count, ...]
    pixels_where_shown: tuple[Count, ...]
    label_sets: tuple[tuple[Count, ...], ...]


@dataclass(frozen=True)
class _Shard:
    """Examples of a split that go into one file."""

    name: str
    split: Split
    examples: range


def pack(
    source: Source,
    reading: Reading,
    data: str,
    bucket: Bucket,
    max_side: int | None = None,
    report_line: Callable[[str], object] = lambda line: None,
    shard_bytes: int = SHARD_BYTES,
) -> Manifest:
    """Writes ``source`` into ``bucket``, going on with what an interrupted call has left there.

    Args:
        data: what the user called it, for messages.
        max_side: as :func:`record_of`.
        report_line: gets a line every ten seconds, and what was passed over.

    Raises:
        BadData: names the first bad file.
        BadSettings: there is other packed data already; or the bucket refuses.
        Unavailable: the bucket can't be reached for minutes; all that is complete is kept.
    """
    try:
        return _pack(source, reading, data, bucket, max_side, report_line, shard_bytes)
    except OSError as error:
        raise BadSettings(
            f"{error.filename or tempfile.gettempdir()}: a shard can't be kept here until it is sent: "
            f"{error.strerror}; make room, or name another folder in TMPDIR, and pack again: it goes on"
        ) from error


def _pack(
    source: Source,
    reading: Reading,
    data: str,
    bucket: Bucket,
    max_side: int | None,
    report_line: Callable[[str], object],
    shard_bytes: int,
) -> Manifest:
    key = _key(source, reading, max_side, shard_bytes)
    done = _finished(bucket, key)
    bucket.delete_unfinished()
    if done is None:
        shards = {name: _shards(name, split, max_side, shard_bytes) for name, split in source.splits.items()}
        for line in source.notes:
            report_line(line)
        parts = _written(
            bucket, key, [shard for split in shards.values() for shard in split], source, max_side, report_line
        )
        if source.read_by_label:
            check_label_sets({frozenset(labels) for part in parts.values() for labels in part.label_sets}, data)
        splits = {
            name: _indexed(bucket, name, split, [parts[shard.name] for shard in shards[name]])
            for name, split in source.splits.items()
        }
        done = Manifest(
            format=FORMAT,
            name=source.name,
            classes=source.classes,
            colours=tuple(tuple(colour) for colour in source.colours.tolist()),
            background=source.background,
            split_by=source.split_by,
            max_side=max_side,
            key=key,
            splits=splits,
        )
        bucket.put(MANIFEST, done.to_json())
    bucket.delete([part_name(shard.name) for split in done.splits.values() for shard in split.shards])
    return done


def _key(source: Source, reading: Reading, max_side: int | None, shard_bytes: int) -> str:
    """Differs whenever the packed bytes may."""
    told = [FORMAT, source.name, source.classes, source.key, max_side, shard_bytes]
    told += [reading.masks_drawn_on, reading.mask_threshold]
    told += [(name, len(split), list(split.names)) for name, split in source.splits.items()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _finished(bucket: Bucket, key: str) -> Manifest | None:
    """What is there complete; None if there is nothing."""
    try:
        there = parsed(Manifest, bucket.read(MANIFEST))
    except NotThere:
        return None
    if there is None or there.key != key:
        raise BadSettings(
            f"{bucket.url}: expected an empty place or the same data, found {MANIFEST} of other data, or packed "
            "otherwise; name another place, or remove what is there"
        )
    return there


def _shards(name: str, split: Split, max_side: int | None, shard_bytes: int) -> Sequence[_Shard]:
    """By the size of some records, spread evenly."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(_SAMPLED, len(split))).astype(int)).tolist()
    sampled = side_by_side(
        lambda i: len(record_of(split, chosen[i], max_side).data), len(chosen), lambda i: split.pixels(chosen[i])
    )
    each = max(1, int(shard_bytes / (sum(sampled) / len(chosen))))
    count = -(-len(split) // each)
    return [
        _Shard(shard_name(name, number, count), split, range(number * each, min(len(split), (number + 1) * each)))
        for number in range(count)
    ]


def _written(
    bucket: Bucket,
    key: str,
    shards: Sequence[_Shard],
    source: Source,
    max_side: int | None,
    report_line: Callable[[str], object],
) -> Mapping[str, _Part]:
    """All shards by name, once they are complete. Their bytes go up while the next ones are made."""
    parts = {shard.name: part for shard in shards if (part := _complete(bucket, key, shard)) is not None}
    left = [shard for shard in shards if shard.name not in parts]
    if parts:
        report_line(f"goes on: {len(parts)} of {len(shards)} shards are complete")
    progress = _Progress(sum(len(shard.examples) for shard in left), report_line)
    uploads: list[tuple[str, Future[_Part]]] = []
    with ThreadPoolExecutor(_UPLOADS) as threads:
        for shard in left:
            file, part = _filled(key, shard, len(source.classes), max_side, progress)
            uploads.append((shard.name, threads.submit(_send, bucket, file, part)))
            if len(uploads) > _UPLOADS:
                name, upload = uploads.pop(0)
                parts[name] = upload.result()
        parts.update((name, upload.result()) for name, upload in uploads)
    return parts


def _complete(bucket: Bucket, key: str, shard: _Shard) -> _Part | None:
    """What an earlier call has noted of a shard, if it is there."""
    try:
        part = parsed(_Part, bucket.read(part_name(shard.name)))
    except NotThere:
        return None
    if part is None or part.key != key or len(part.rows) != len(shard.examples):
        return None
    return part if bucket.size(shard.name) == part.shard.size else None


def _filled(key: str, shard: _Shard, classes: int, max_side: int | None, progress: _Progress) -> tuple[BinaryIO, _Part]:
    """A temporary file with a shard's records, and what is to be noted of it."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile())
        part = _fill(file, key, shard, classes, max_side, progress)
        stack.pop_all()  # whoever sends the file closes it
    return file, part


def _fill(file: BinaryIO, key: str, shard: _Shard, classes: int, max_side: int | None, progress: _Progress) -> _Part:
    rows, checksum, offset = [], google_crc32c.Checksum(), 0
    pixels, where_shown = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    label_sets: set[frozenset[int]] = set()

    def record(i: int) -> tuple[Record, Any]:
        made = record_of(shard.split, shard.examples[i], max_side)
        return made, label_counts(made.mask)

    for made, counts in side_by_side(record, len(shard.examples), lambda i: shard.split.pixels(shard.examples[i])):
        framed = frame(made.data)
        file.write(framed)
        checksum.update(framed)
        rows.append((offset + HEADER_BYTES, len(made.data), google_crc32c.value(made.data), made.pixels))
        offset += len(framed)
        of_classes = counts[:classes]
        pixels += of_classes
        where_shown += of_classes.sum() * (of_classes > 0)
        label_sets.add(_told(frozenset(np.flatnonzero(counts).tolist())))
        progress.add(1)
    stored = StoredFile(shard.name, offset, base64.b64encode(checksum.digest()).decode())
    sets = tuple(sorted(tuple(sorted(labels)) for labels in label_sets))
    return _Part(key, stored, tuple(rows), tuple(pixels.tolist()), tuple(where_shown.tolist()), sets)


def _told(labels: frozenset[int]) -> frozenset[int]:
    """What :func:`check_label_sets` needs to know of them: which of 0, 1 and 255, and whether there are others."""
    known = frozenset({0, 1, IGNORED})
    return labels & known | (frozenset({_OTHER_LABEL}) if labels - known else frozenset())


def _send(bucket: Bucket, file: BinaryIO, part: _Part) -> _Part:
    with file:
        file.seek(0)
        bucket.put(part.shard.name, file)
    size = bucket.size(part.shard.name)
    if size != part.shard.size:
        raise BadData(f"{bucket.url}/{part.shard.name}: has {size} bytes where {part.shard.size} were sent; pack again")
    bucket.put(part_name(part.shard.name), json.dumps(asdict(part)).encode())
    return part


def _indexed(bucket: Bucket, name: str, split: Split, parts: Sequence[_Part]) -> PackedSplit:
    """Writes where each example of a split is, and what it is called."""
    index = np.zeros(len(split), ROW)
    start = 0
    for number, part in enumerate(parts):
        rows = index[start : start + len(part.rows)]
        rows["shard"] = number
        rows["offset"], rows["length"], rows["crc32c"], rows["pixels"] = np.array(part.rows, np.uint64).T
        start += len(part.rows)
    content = io.BytesIO()
    np.save(content, index, allow_pickle=False)
    names = b"".join(name.encode() + b"\0" for name in split.names)
    return PackedSplit(
        examples=len(split),
        data=int(index["length"].sum(dtype=np.int64)),
        pixels=_sums([part.pixels for part in parts]),
        pixels_where_shown=_sums([part.pixels_where_shown for part in parts]),
        index=_put(bucket, index_name(name), content.getvalue()),
        names=_put(bucket, names_name(name), names),
        shards=tuple(part.shard for part in parts),
    )


def _sums(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*rows, strict=True)))


def _put(bucket: Bucket, name: str, content: bytes) -> StoredFile:
    bucket.put(name, content)
    digest = FileDigest.read(io.BytesIO(content))
    return StoredFile(name, digest.size, digest.crc32c)


class _Progress:
    """A line every ten seconds."""

    def __init__(self, count: int, report_line: Callable[[str], object]):
        self._count, self._done, self._report_line = count, 0, report_line
        self._began = self._told = time.monotonic()

    def add(self, examples: int) -> None:
        self._done += examples
        now = time.monotonic()
        if now - self._told > _REPORT_SECONDS:
            self._told = now
            speed = self._done / (now - self._began)
            self._report_line(f"packed {self._done} of {self._count} images, {speed:.0f} a second")
