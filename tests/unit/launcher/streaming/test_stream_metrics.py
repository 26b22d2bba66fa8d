"""What a streamer notes, and what others may have put in its place."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from launcher.streaming.stream_metrics import StreamMetrics
from maskfleet.run_directory import RunDirectory


def test_what_is_noted_is_read(tmp_path: Path) -> None:
    run, metrics = RunDirectory(tmp_path), StreamMetrics(1.5, "gs://b", 3.0, 10, 20, 1, 2, 3, "why", ["a: shrank"])
    assert StreamMetrics.load(run) is None
    metrics.write(run)
    assert StreamMetrics.load(run) == metrics


@pytest.mark.parametrize(("key", "value"), [
    ("lag_seconds", "x"), ("lag_seconds", math.nan), ("lag_seconds", -1.0), ("lag_bytes", 1.5), ("lag_bytes", -1),
    ("errors", None), ("last_error", 3), ("problems", "none"), ("problems", [1]), ("time", 1e300),
])  # fmt: skip
def test_what_others_wrote_is_none(tmp_path: Path, key: str, value: object) -> None:
    run = RunDirectory(tmp_path)
    run.streamer_notes.write_text(json.dumps({**asdict(StreamMetrics()), key: value}))
    assert StreamMetrics.load(run) is None


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"\xff", b"[" * 100_000, b'{"lag_seconds": 1e999}'])
def test_what_is_no_record_is_none(tmp_path: Path, content: bytes) -> None:
    run = RunDirectory(tmp_path)
    run.streamer_notes.write_bytes(content)
    assert StreamMetrics.load(run) is None
