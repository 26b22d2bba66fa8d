"""The framing of records, once: where the last whole one of a growing file ends, and where each of a file lies.

TFRecord's framing, from TensorFlow's ``core/lib/io/record_writer.h``: length (uint64, little-endian), masked
CRC32C of the length, data, masked CRC32C of the data.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO, NamedTuple

import google_crc32c

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
HEADER_BYTES = _HEADER.size
"""Of a record, before its data."""


class Scan(NamedTuple):
    """What a look at some bytes found.

    ``whole`` bytes at the start are whole, valid records. ``needed`` is how many bytes, from the start of the first
    record that is not whole, that record takes; 0 if that can't be said. ``problem`` says what is wrong with it;
    None if it just is not complete yet.
    """

    whole: int
    needed: int = 0
    problem: str | None = None


Scanner = Callable[[bytes], Scan]


def masked_crc32c(data: bytes) -> int:
    """The checksum that stands in a TFRecord (``core/lib/hash/crc32c.h``)."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _length(header: bytes) -> int | None:
    """Of the data behind a record's header; None if its checksum is wrong."""
    length, checksum = _HEADER.unpack(header)
    return int(length) if masked_crc32c(header[:8]) == checksum else None


def scan_tfrecords(data: bytes) -> Scan:
    """Checks length and data of each record that is complete."""
    start = 0
    while len(data) - start >= _HEADER.size:
        length = _length(data[start : start + _HEADER.size])
        if length is None:
            zero = not any(data[start : start + _HEADER.size])
            return Scan(start, 0, "a block of zeros" if zero else "no record: the checksum of the length is wrong")
        end = start + _HEADER.size + length
        if len(data) < end + _FOOTER.size:
            return Scan(start, _HEADER.size + length + _FOOTER.size)
        if masked_crc32c(data[start + _HEADER.size : end]) != _FOOTER.unpack_from(data, end)[0]:
            return Scan(start, 0, f"a damaged record of {length} bytes: the checksum of its data is wrong")
        start = end + _FOOTER.size
    return Scan(start)


def record_places(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of the data of each record of a file of ``size`` bytes; the data itself is not read.

    Raises:
        ValueError: the file ends within a record, or the checksum of a length is wrong.
    """
    while header := file.read(_HEADER.size):
        if len(header) < _HEADER.size:
            raise ValueError("ends within a record")
        if (length := _length(header)) is None:
            raise ValueError("holds no record where one should begin")
        start = file.tell()
        if start + length + _FOOTER.size > size:
            raise ValueError("ends within a record")
        yield start, length
        file.seek(start + length + _FOOTER.size)


def whole_until(file: BinaryIO, end: int) -> int:
    """Where the last record ends that ends at byte ``end`` at the latest; the records' data is not checked."""
    file.seek(0)
    whole = 0
    with suppress(ValueError):
        for place, length in record_places(file, end):
            whole = place + length + _FOOTER.size
    return whole


def scan_lines(data: bytes) -> Scan:
    """Whole lines, of a log or of JSON lines."""
    return Scan(data.rfind(b"\n") + 1)


def frame(data: bytes) -> bytes:
    """``data`` as one TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + _FOOTER.pack(masked_crc32c(length)) + data + _FOOTER.pack(masked_crc32c(data))
