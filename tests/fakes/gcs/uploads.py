"""Resumable upload sessions, which survive dropped connections."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.gcs.objects import ApiError, Buckets, Object, Preconditions

QUANTUM = 256 * 1024
"""What an unfinished upload's persisted size is a multiple of, bytes."""

_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass
class Session:
    """One upload on its way."""

    bucket: str
    name: str
    conditions: Preconditions
    resource: Mapping[str, Any]
    content_type: str | None
    total: int | None
    received: bytearray = field(default_factory=bytearray)
    finished: Object | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Uploads:
    """All sessions of a server."""

    def __init__(self, buckets: Buckets):
        self._buckets = buckets
        self._sessions: dict[str, Session] = {}
        self._numbers = itertools.count(1)

    def start(self, session: Session) -> str:
        """Checks the preconditions a first time and returns the session's id."""
        self._buckets.check_write(session.bucket, session.name, session.conditions)
        number = f"upload-{next(self._numbers)}"
        self._sessions[number] = session
        return number

    def cancel(self, number: str) -> None:
        if self._sessions.pop(number, None) is None:
            raise ApiError(404, "notFound", "There is no such upload.")

    def receive(
        self, number: str, content_range: str | None, body: bytes, hashes: Mapping[str, str], *, whole: bool = True
    ) -> tuple[Object | None, int]:
        """A PUT on the session: the finished object or None, and how many bytes are persisted.

        ``whole`` is False when the connection broke before the body's end: what came is kept in quanta.
        """
        session = self._sessions.get(number)
        if session is None:
            raise ApiError(404, "notFound", "There is no such upload.")
        with session.lock:
            if session.finished is not None:
                return session.finished, session.finished.size
            start, end, total = _parse_range(content_range, len(body) if whole else None)
            if total is not None and session.total not in (None, total):
                raise ApiError(400, "invalid", f"Invalid request: total size {total}, announced {session.total}.")
            total = session.total if total is None else total
            if start is None:  # a status query, or the end of an empty upload
                return self._finish(session, hashes) if total == 0 else (None, len(session.received))
            persisted = len(session.received)
            if start > persisted:
                raise ApiError(400, "invalid", f"Invalid request: offset {start}, but only {persisted} are persisted.")
            last = total is not None and end + 1 == total
            if not last and whole and len(body) % QUANTUM:
                raise ApiError(400, "invalid", f"Invalid request: {len(body)} bytes are no multiple of 256 KiB.")
            session.received += body[persisted - start :]  # bytes that were persisted before are ignored
            if last and whole:
                return self._finish(session, hashes)
            if not whole:
                kept = max(persisted, len(session.received) // QUANTUM * QUANTUM)
                del session.received[kept:]
            return None, len(session.received)

    def _finish(self, session: Session, hashes: Mapping[str, str]) -> tuple[Object, int]:
        announced = {key: session.resource[key] for key in ("crc32c", "md5Hash") if session.resource.get(key)}
        session.finished = self._buckets.write(
            session.bucket,
            session.name,
            bytes(session.received),
            session.conditions,
            expected={**announced, **hashes},
            content_type=session.content_type,
            metadata=session.resource.get("metadata"),
        )
        session.received = bytearray()
        return session.finished, session.finished.size


def _parse_range(content_range: str | None, length: int | None) -> tuple[int | None, int, int | None]:
    """(first byte or None, last byte, total or None) of a Content-Range header."""
    if content_range is None:
        if length is None:
            raise ApiError(400, "invalid", "Invalid request: a part without Content-Range.")
        return 0, length - 1, length
    match = _RANGE.fullmatch(content_range)
    if match is None:
        raise ApiError(400, "invalid", f"Failed to parse Content-Range header: {content_range!r}")
    total = None if match[3] == "*" else int(match[3])
    if match[1] is None:
        return None, -1, total
    start, end = int(match[1]), int(match[2])
    if (length is not None and end - start + 1 != length) or (total is not None and end >= total):
        raise ApiError(400, "invalid", f"Invalid request: Content-Range {content_range!r} with {length} bytes.")
    return start, end, total
