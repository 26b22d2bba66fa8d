"""Buckets and objects: what a request does once it has been understood. Knows nothing of HTTP."""

from __future__ import annotations

import base64
import hashlib
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import formatdate
from functools import cached_property
from typing import Any

import google_crc32c

MAX_COMPOSE_SOURCES = 32
WRITES_PER_SECOND = 1.0


class ApiError(Exception):
    """An answer other than success, as the JSON API words it."""

    def __init__(self, status: int, reason: str, message: str):
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message

    def body(self) -> dict[str, Any]:
        detail = {"message": self.message, "domain": "global", "reason": self.reason}
        return {"error": {"code": self.status, "message": self.message, "errors": [detail]}}


def not_found(what: str) -> ApiError:
    return ApiError(404, "notFound", f"No such object: {what}")


@dataclass(frozen=True)
class Object:
    """One live generation. ``pieces`` are never joined, so that a thousand appends do not copy a thousand times."""

    bucket: str
    name: str
    pieces: tuple[bytes, ...]
    size: int
    crc: int
    generation: int
    metageneration: int = 1
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    components: int | None = None
    created: float = 0.0
    updated: float = 0.0

    @property
    def content(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def crc32c(self) -> str:
        return base64.b64encode(self.crc.to_bytes(4, "big")).decode()

    @cached_property
    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.content).digest()).decode()

    @property
    def http_date(self) -> str:
        return formatdate(self.updated, usegmt=True)

    def slice(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes [start, end), piece by piece."""
        position = 0
        for piece in self.pieces:
            if position >= end:
                return
            if position + len(piece) > start:
                yield piece[max(0, start - position) : end - position]
            position += len(piece)

    def resource(self) -> dict[str, Any]:
        """The ``storage#object`` resource."""
        resource: dict[str, Any] = {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "size": str(self.size),
            "crc32c": self.crc32c,
            "etag": base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode(),
            "contentType": self.content_type,
            "storageClass": "STANDARD",
            "timeCreated": _rfc3339(self.created),
            "updated": _rfc3339(self.updated),
        }
        if self.metadata:
            resource["metadata"] = dict(self.metadata)
        if self.components is None:
            resource["md5Hash"] = self.md5
        else:
            resource["componentCount"] = self.components
        return resource


def _rfc3339(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True)
class Preconditions:
    """The four conditions that a request may carry on its object."""

    generation_match: int | None = None
    generation_not_match: int | None = None
    metageneration_match: int | None = None
    metageneration_not_match: int | None = None

    def check(self, live: Object | None, *, reading: bool = False) -> None:
        """Raises 412, or 304 where a reader's not-match condition fails."""
        generation = live.generation if live else 0
        metageneration = live.metageneration if live else None
        if self.generation_match is not None and generation != self.generation_match:
            raise _precondition_failed(f"generation {generation}, expected {self.generation_match}")
        if self.metageneration_match is not None and metageneration != self.metageneration_match:
            raise _precondition_failed(f"metageneration {metageneration}, expected {self.metageneration_match}")
        unwanted = (
            self.generation_not_match is not None and generation == self.generation_not_match,
            self.metageneration_not_match is not None and metageneration == self.metageneration_not_match,
        )
        if any(unwanted):
            raise ApiError(304, "notModified", "") if reading else _precondition_failed("a not-match condition")


def _precondition_failed(found: str) -> ApiError:
    message = f"At least one of the pre-conditions you specified did not hold: {found}."
    return ApiError(412, "conditionNotMet", message)


class Buckets:
    """All buckets. Every method is one atomic step; a refused one has no effect."""

    def __init__(self, names: Sequence[str] = (), *, limit_write_rate: bool = False, soft_delete_seconds: int = 0):
        self.limit_write_rate = limit_write_rate
        self.soft_delete_seconds = soft_delete_seconds
        self._objects: dict[str, dict[str, Object]] = {name: {} for name in names}
        self._last_write: dict[tuple[str, str], float] = {}
        self._generations = itertools.count(1_700_000_000_000_001)
        self._lock = threading.RLock()

    def create_bucket(self, bucket: str) -> None:
        with self._lock:
            if bucket in self._objects:
                raise ApiError(409, "conflict", "Your previous request to create the named bucket succeeded.")
            self._objects[bucket] = {}

    def bucket_resource(self, bucket: str) -> dict[str, Any]:
        with self._lock:
            self._bucket(bucket)
        policy = {"retentionDurationSeconds": str(self.soft_delete_seconds)}
        resource = {
            "kind": "storage#bucket",
            "name": bucket,
            "id": bucket,
            "location": "US",
            "softDeletePolicy": policy,
        }
        return {**resource, "metageneration": "1", "storageClass": "STANDARD", "timeCreated": _rfc3339(0)}

    def names(self, bucket: str) -> list[str]:
        with self._lock:
            return sorted(self._bucket(bucket))

    def snapshot(self, bucket: str) -> dict[str, Object]:
        """The bucket's objects as they are now, for :meth:`reset`."""
        with self._lock:
            return dict(self._bucket(bucket))

    def reset(self, bucket: str, objects: Mapping[str, Object]) -> None:
        with self._lock:
            self._objects[bucket] = dict(objects)

    def get(
        self, bucket: str, name: str, conditions: Preconditions = Preconditions(), generation: int | None = None
    ) -> Object:
        with self._lock:
            live = self._existing(bucket, name, generation)
            conditions.check(live, reading=True)
            return live

    def check_write(self, bucket: str, name: str, conditions: Preconditions) -> None:
        """What a resumable upload's first request checks."""
        with self._lock:
            conditions.check(self._bucket(bucket).get(name))

    def write(
        self,
        bucket: str,
        name: str,
        content: bytes,
        conditions: Preconditions = Preconditions(),
        *,
        expected: Mapping[str, str] | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Object:
        """An upload. ``expected`` may hold ``crc32c`` and ``md5Hash``, in base64, which are verified."""
        if not name or len(name.encode()) > 1024 or "\n" in name or "\r" in name:
            raise ApiError(400, "invalid", f"Invalid object name: {name!r}")
        crc = google_crc32c.value(content)
        for key, value in (expected or {}).items():
            digest = crc.to_bytes(4, "big") if key == "crc32c" else hashlib.md5(content).digest()
            computed = base64.b64encode(digest).decode()
            if computed != value:
                message = f'Provided {key} "{value}" doesn\'t match calculated {key} "{computed}".'
                raise ApiError(400, "invalid", message)
        with self._lock:
            conditions.check(self._bucket(bucket).get(name))
            pieces = (content,) if content else ()
            return self._put(bucket, name, pieces, crc, content_type=content_type, metadata=metadata or {})

    def compose(
        self,
        bucket: str,
        name: str,
        sources: Sequence[tuple[str, int | None, int | None]],
        conditions: Preconditions = Preconditions(),
        *,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Object:
        """``sources`` are (name, generation, ifGenerationMatch)."""
        if not 1 <= len(sources) <= MAX_COMPOSE_SOURCES:
            message = f"The number of source components provided ({len(sources)}) is not between 1 and 32."
            raise ApiError(400, "invalid", message)
        with self._lock:
            conditions.check(self._bucket(bucket).get(name))
            parts = []
            for source, generation, match in sources:
                part = self._existing(bucket, source, generation)
                Preconditions(generation_match=match).check(part)
                parts.append(part)
            crc = parts[0].crc
            for piece in itertools.chain.from_iterable(part.pieces for part in parts[1:]):
                crc = google_crc32c.extend(crc, piece)
            pieces = tuple(itertools.chain.from_iterable(part.pieces for part in parts))
            components = sum(part.components or 1 for part in parts)
            return self._put(
                bucket, name, pieces, crc, components=components, content_type=content_type, metadata=metadata or {}
            )

    def patch(self, bucket: str, name: str, changes: Mapping[str, Any], conditions: Preconditions) -> Object:
        with self._lock:
            live = self._existing(bucket, name, None)
            conditions.check(live)
            metadata = {**live.metadata, **(changes.get("metadata") or {})}
            changed = replace(
                live,
                metageneration=live.metageneration + 1,
                metadata={key: value for key, value in metadata.items() if value is not None},
                content_type=changes.get("contentType") or live.content_type,
                updated=time.time(),
            )
            self._objects[bucket][name] = changed
            return changed

    def delete(
        self, bucket: str, name: str, conditions: Preconditions = Preconditions(), generation: int | None = None
    ) -> None:
        with self._lock:
            conditions.check(self._existing(bucket, name, generation))
            del self._objects[bucket][name]

    def list(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", start: str = "", limit: int = 1000
    ) -> tuple[list[Object], list[str], str | None]:
        """One page: objects, prefixes, and the name after which the next page begins."""
        items: list[Object] = []
        prefixes: list[str] = []
        with self._lock:
            for name in sorted(self._bucket(bucket)):
                if not name.startswith(prefix) or name <= after or name < start:
                    continue
                if prefixes and delimiter and name.startswith(prefixes[-1]):
                    continue
                if delimiter and after.endswith(delimiter) and name.startswith(after):
                    continue
                if len(items) + len(prefixes) == limit:
                    last = max([item.name for item in items[-1:]] + prefixes[-1:])
                    return items, prefixes, last
                rest = name[len(prefix) :]
                if delimiter and delimiter in rest:
                    prefixes.append(prefix + rest.split(delimiter, 1)[0] + delimiter)
                else:
                    items.append(self._objects[bucket][name])
        return items, prefixes, None

    def _bucket(self, bucket: str) -> dict[str, Object]:
        if bucket not in self._objects:
            raise ApiError(404, "notFound", "The specified bucket does not exist.")
        return self._objects[bucket]

    def _existing(self, bucket: str, name: str, generation: int | None) -> Object:
        live = self._bucket(bucket).get(name)
        if live is None or generation not in (None, live.generation):
            raise not_found(f"{bucket}/{name}" + (f"#{generation}" if generation else ""))
        return live

    def _put(self, bucket: str, name: str, pieces: tuple[bytes, ...], crc: int, **fields: Any) -> Object:
        now = time.time()
        if self.limit_write_rate and now - self._last_write.get((bucket, name), 0) < 1 / WRITES_PER_SECOND:
            message = f"The object {bucket}/{name} exceeded the rate limit for object mutation operations."
            raise ApiError(429, "rateLimitExceeded", message)
        self._last_write[bucket, name] = now
        fields["content_type"] = fields.get("content_type") or "application/octet-stream"
        size = sum(map(len, pieces))
        new = Object(bucket, name, pieces, size, crc, next(self._generations), created=now, updated=now, **fields)
        self._objects[bucket][name] = new
        return new
