"""Only whole, valid records count: cut, zeroed and damaged files are told apart."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from maskfleet.tfrecords import Scan, frame, masked_crc32c, scan_lines, scan_tfrecords

RECORDS = st.lists(st.binary(max_size=300), max_size=8)


def ends(records: list[bytes]) -> list[int]:
    """Where each record ends in the file, from 0 on."""
    found = [0]
    for record in records:
        found.append(found[-1] + len(record) + 16)
    return found


@hypothesis.given(st.binary(max_size=100))
def test_the_checksum_is_tensorflows(data: bytes) -> None:
    assert masked_crc32c(data) == pywrap_tensorflow.masked_crc32c(data)


@hypothesis.given(RECORDS, st.data())
def test_a_cut_file_is_valid_up_to_its_last_whole_record(records: list[bytes], data: st.DataObject) -> None:
    content = b"".join(map(frame, records))
    cut = data.draw(st.integers(0, len(content)))
    scan = scan_tfrecords(content[:cut])
    assert scan.whole == max(end for end in ends(records) if end <= cut)
    assert scan.problem is None
    if scan.needed:
        assert scan.whole + scan.needed in ends(records)


@hypothesis.given(RECORDS.filter(bool), st.data())
def test_a_changed_byte_is_never_copied_as_good(records: list[bytes], data: st.DataObject) -> None:
    content = bytearray(b"".join(map(frame, records)))
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    scan = scan_tfrecords(bytes(content))
    assert scan.whole == max(end for end in ends(records) if end <= position)
    assert scan.problem is not None


@pytest.mark.parametrize(
    ("tail", "problem"),
    [
        (bytes(4096), "a block of zeros"),
        (bytes(12), "a block of zeros"),
        (b"x" * 40, "no record: the checksum of the length is wrong"),
        (frame(b"good")[:-1] + b"\0", "a damaged record of 4 bytes: the checksum of its data is wrong"),
        (bytes(11), None),
        (b"", None),
    ],
)
def test_what_follows_the_last_record_is_named(tail: bytes, problem: str | None) -> None:
    good = frame(b"first") + frame(b"")
    assert scan_tfrecords(good + tail) == Scan(len(good), 0, problem)


def test_the_size_of_an_incomplete_record_is_told() -> None:
    assert scan_tfrecords(frame(b"x" * 1000)[:500]) == Scan(0, 1016)


@hypothesis.given(st.binary())
def test_lines_end_with_their_newline(content: bytes) -> None:
    whole = scan_lines(content).whole
    assert content[:whole].count(b"\n") == content.count(b"\n")
    assert b"\n" not in content[whole:]
