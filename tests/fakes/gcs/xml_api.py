"""The XML API as far as obstore uses it: an object is read, written whole or in parts, and deleted.

Written from https://cloud.google.com/storage/docs/xml-api/reference-methods.
"""

from __future__ import annotations

import itertools
import re
import threading
from xml.sax.saxutils import escape

from tests.fakes.gcs.objects import ApiError, Buckets, Object, Preconditions
from tests.fakes.http import Answer, Request

_SMALLEST_PART = 5 << 20


class MultipartUploads:
    """Those that are under way, and the verbs on objects and uploads."""

    def __init__(self, buckets: Buckets):
        self._buckets = buckets
        self._parts: dict[str, dict[int, bytes]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def answer(self, request: Request, bucket: str, name: str) -> Answer:
        query = request.query
        with self._lock:
            match request.method:
                case "PUT" if "uploadId" in query:
                    self._upload(query["uploadId"])[int(query["partNumber"])] = request.body
                    return Answer(200, headers={"ETag": f'"part-{query["partNumber"]}"'})
                case "PUT":
                    return _written(self._buckets.write(bucket, name, request.body, _conditions(request)))
                case "POST" if "uploads" in query:
                    upload = f"upload-{next(self._numbers)}"
                    self._parts[upload] = {}
                    body = f"<Bucket>{bucket}</Bucket><Key>{escape(name)}</Key><UploadId>{upload}</UploadId>"
                    return _xml(f"<InitiateMultipartUploadResult>{body}</InitiateMultipartUploadResult>")
                case "POST" if "uploadId" in query:
                    parts = self._upload(query["uploadId"])
                    named = [int(number) for number in re.findall(rb"<PartNumber>(\d+)</PartNumber>", request.body)]
                    if named != sorted(parts) or any(len(parts[number]) < _SMALLEST_PART for number in named[:-1]):
                        raise ApiError(400, "invalidPart", "A part is missing or too small.")
                    content = b"".join(parts[number] for number in named)
                    new = self._buckets.write(bucket, name, content, _conditions(request))
                    del self._parts[query["uploadId"]]
                    body = f"<Key>{escape(name)}</Key><ETag>{escape(_tag(new))}</ETag>"
                    return _xml(f"<CompleteMultipartUploadResult>{body}</CompleteMultipartUploadResult>")
                case "DELETE" if "uploadId" in query:
                    self._parts.pop(query["uploadId"], None)
                    return Answer(204)
                case "DELETE":
                    self._buckets.delete(bucket, name, Preconditions())
                    return Answer(204)
        raise ApiError(405, "methodNotAllowed", request.line)

    def _upload(self, name: str) -> dict[int, bytes]:
        if name not in self._parts:
            raise ApiError(404, "notFound", "No such upload.")
        return self._parts[name]


def download(request: Request, live: Object) -> Answer:
    """The object or a range of it."""
    headers = {
        "Content-Type": live.content_type,
        "ETag": _tag(live),
        "Last-Modified": live.http_date,
        "X-Goog-Hash": f"crc32c={live.crc32c}",
        "X-Goog-Generation": str(live.generation),
        "X-Goog-Metageneration": str(live.metageneration),
        "X-Goog-Stored-Content-Length": str(live.size),
        "X-Goog-Stored-Content-Encoding": "identity",
        "Accept-Ranges": "bytes",
    }
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if wanted is None or wanted[0] == "bytes=-":
        return Answer(200, live.slice(0, live.size), live.size, headers)
    if wanted[1]:
        start, end = int(wanted[1]), min(int(wanted[2] or live.size), live.size - 1)
    else:
        start, end = max(0, live.size - int(wanted[2])), live.size - 1
    if start >= live.size or start > end:
        raise ApiError(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
    headers["Content-Range"] = f"bytes {start}-{end}/{live.size}"
    return Answer(206, live.slice(start, end + 1), end + 1 - start, headers)


def _conditions(request: Request) -> Preconditions:
    match = request.headers.get("x-goog-if-generation-match")
    return Preconditions(generation_match=None if match is None else int(match))


def _written(new: Object) -> Answer:
    return Answer(200, headers={"ETag": _tag(new), "X-Goog-Generation": str(new.generation)})


def _tag(stored: Object) -> str:
    return f'"{stored.generation}"'


def _xml(body: str) -> Answer:
    content = ('<?xml version="1.0" encoding="UTF-8"?>' + body).encode()
    return Answer(200, [content], len(content), {"Content-Type": "application/xml"})
