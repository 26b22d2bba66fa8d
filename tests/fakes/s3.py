"""A strict fake of the part of S3's REST API that obstore uses: conditional writes, listings, multipart uploads.

Conditions and effects happen under one lock. Signatures are not checked; the hash of the body that they cover is.
Written from https://docs.aws.amazon.com/AmazonS3/latest/API.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import unquote
from xml.sax.saxutils import escape, unescape

from tests.fakes.http import Answer, Fault, HttpFake, Request


class S3Error(Exception):
    def __init__(self, status: int, code: str):
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Stored:
    content: bytes
    tag: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class FakeS3(HttpFake):
    """The server and its buckets, in path style: ``http://host/bucket/key``."""

    def __init__(self, buckets: Sequence[str] = ("bucket",), *, host: str = "127.0.0.1", port: int = 0):
        super().__init__(host, port)
        self.buckets: dict[str, dict[str, Stored]] = {name: {} for name in buckets}
        self._uploads: dict[str, tuple[Mapping[str, str], dict[int, Stored]]] = {}
        self._upload_keys: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._effects = threading.Lock()

    def unfinished_uploads(self) -> list[str]:
        """Keys of those that were begun and neither completed nor given up."""
        with self._effects:
            return sorted(self._upload_keys[number] for number in self._uploads)

    def contents(self, bucket: str = "bucket") -> dict[str, bytes]:
        """All objects' content by name, the parts of one that grows joined."""
        joined: dict[str, bytes] = {}
        for name, stored in sorted(self.snapshot(bucket).items()):
            whole = re.sub(r"\.part-\d{5}$", "", name)
            joined[whole] = joined.get(whole, b"") + stored.content
        return joined

    def snapshot(self, bucket: str) -> dict[str, Stored]:
        """The bucket's objects as they are now, for :meth:`reset`."""
        with self._effects:
            return dict(self.buckets[bucket])

    def reset(self, bucket: str, objects: Mapping[str, Stored]) -> None:
        with self._effects:
            self.buckets[bucket] = dict(objects)

    def perform(self, request: Request, *, whole: bool) -> Answer:
        try:
            if not whole:
                raise S3Error(400, "IncompleteBody")
            announced = request.headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
            if announced not in ("UNSIGNED-PAYLOAD", hashlib.sha256(request.body).hexdigest()):
                raise S3Error(400, "XAmzContentSHA256Mismatch")
            _, bucket, *key = unquote(request.path).split("/", 2)
            if bucket not in self.buckets:
                raise S3Error(404, "NoSuchBucket")
            with self._effects:
                return self._act(request, self.buckets[bucket], "/".join(key))
        except S3Error as error:
            return _error(error.status, error.code)

    def fault_answer(self, fault: Fault) -> Answer:
        return _error(fault.status, fault.code or ("SlowDown" if fault.status == 503 else "InternalError"))

    def _act(self, request: Request, objects: dict[str, Stored], key: str) -> Answer:
        query = request.query
        match request.method:
            case "GET" if not key and query.get("list-type") == "2":
                return _listing(objects, query)
            case "GET" if not key and "uploads" in query:
                return self._listed_uploads(query)
            case "POST" if not key and "delete" in query:
                names = re.findall(r"<Key>(.*?)</Key>", request.body.decode())
                for name in names:
                    objects.pop(unescape(name), None)
                deleted = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
                return _xml(f"<DeleteResult>{deleted}</DeleteResult>")
            case "GET" | "HEAD" if key:
                return _download(request, objects.get(key))
            case "PUT" if "uploadId" in query:
                _, parts = self._upload(query)
                part = Stored(request.body, _tag(request.body))
                parts[int(query["partNumber"])] = part
                return Answer(200, headers={"ETag": part.tag})
            case "PUT" if key:
                _check_conditions(request, objects.get(key))
                metadata = {name: value for name, value in request.headers.items() if name.startswith("x-amz-meta-")}
                objects[key] = Stored(request.body, _tag(request.body), metadata)
                return Answer(200, headers={"ETag": objects[key].tag})
            case "POST" if "uploads" in query:
                number = f"upload-{next(self._numbers)}"
                metadata = {name: value for name, value in request.headers.items() if name.startswith("x-amz-meta-")}
                self._uploads[number] = (metadata, {})
                self._upload_keys[number] = key
                body = f"<Bucket>b</Bucket><Key>{escape(key)}</Key><UploadId>{number}</UploadId>"
                return _xml(f"<InitiateMultipartUploadResult>{body}</InitiateMultipartUploadResult>")
            case "POST" if "uploadId" in query:
                return self._complete(request, objects, key)
            case "DELETE" if "uploadId" in query:
                self._uploads.pop(query["uploadId"], None)
                return Answer(204)
            case "DELETE" if key:
                objects.pop(key, None)
                return Answer(204)
        raise S3Error(405, "MethodNotAllowed")

    def _upload(self, query: Mapping[str, str]) -> tuple[Mapping[str, str], dict[int, Stored]]:
        if query["uploadId"] not in self._uploads:
            raise S3Error(404, "NoSuchUpload")
        return self._uploads[query["uploadId"]]

    def _listed_uploads(self, query: Mapping[str, str]) -> Answer:
        """Two at a time, so that whoever lists them has to go on."""
        after = (query.get("key-marker", ""), query.get("upload-id-marker", ""))
        found = sorted((self._upload_keys[number], number) for number in self._uploads)
        left = [each for each in found if each[0].startswith(query.get("prefix", "")) and each > after]
        rows = "".join(
            f"<Upload><Key>{escape(key)}</Key><UploadId>{number}</UploadId></Upload>" for key, number in left[:2]
        )
        more = str(len(left) > 2).lower()
        key, number = left[1] if len(left) > 2 else ("", "")
        markers = f"<NextKeyMarker>{escape(key)}</NextKeyMarker><NextUploadIdMarker>{number}</NextUploadIdMarker>"
        return _xml(
            f"<ListMultipartUploadsResult><IsTruncated>{more}</IsTruncated>{markers}{rows}</ListMultipartUploadsResult>"
        )

    def _complete(self, request: Request, objects: dict[str, Stored], key: str) -> Answer:
        metadata, parts = self._upload(request.query)
        _check_conditions(request, objects.get(key))
        named = [int(number) for number in re.findall(rb"<PartNumber>(\d+)</PartNumber>", request.body)]
        if named != sorted(parts) or any(len(parts[number].content) < 5 << 20 for number in named[:-1]):
            raise S3Error(400, "InvalidPart")
        content = b"".join(parts[number].content for number in named)
        objects[key] = Stored(content, f'"{hashlib.md5(content).hexdigest()}-{len(parts)}"', metadata)
        del self._uploads[request.query["uploadId"]]
        body = f"<Key>{escape(key)}</Key><ETag>{escape(objects[key].tag)}</ETag>"
        return _xml(f"<CompleteMultipartUploadResult>{body}</CompleteMultipartUploadResult>")


def _tag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def _check_conditions(request: Request, live: Stored | None) -> None:
    if request.headers.get("if-none-match") == "*" and live is not None:
        raise S3Error(412, "PreconditionFailed")
    wanted = request.headers.get("if-match")
    if wanted is not None and live is None:
        raise S3Error(404, "NoSuchKey")
    if wanted is not None and live is not None and wanted != live.tag:
        raise S3Error(412, "PreconditionFailed")


def _download(request: Request, live: Stored | None) -> Answer:
    _check_conditions(request, live)
    if live is None:
        raise S3Error(404, "NoSuchKey")
    headers = {"ETag": live.tag, "Last-Modified": formatdate(0, usegmt=True), **live.metadata}
    wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
    if wanted is None:
        return Answer(200, [live.content], len(live.content), headers)
    start, end = int(wanted[1]), min(int(wanted[2]) + 1, len(live.content))
    if start >= end:
        raise S3Error(416, "InvalidRange")
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(live.content)}"
    return Answer(206, [live.content[start:end]], end - start, headers)


def _listing(objects: Mapping[str, Stored], query: Mapping[str, str]) -> Answer:
    after = query.get("continuation-token") or query.get("start-after", "")
    names = [name for name in sorted(objects) if name.startswith(query.get("prefix", "")) and name > after]
    page = names[: min(1000, int(query.get("max-keys", 1000)))]
    entries = "".join(
        f"<Contents><Key>{escape(name)}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>{escape(objects[name].tag)}</ETag><Size>{len(objects[name].content)}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for name in page
    )
    more = len(page) < len(names)
    token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
    return _xml(
        f"<ListBucketResult><KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
        f"{token}{entries}</ListBucketResult>"
    )


def _xml(body: str, status: int = 200) -> Answer:
    content = ('<?xml version="1.0" encoding="UTF-8"?>' + body).encode()
    return Answer(status, [content], len(content), {"Content-Type": "application/xml"})


def _error(status: int, code: str) -> Answer:
    return _xml(f"\n<Error><Code>{code}</Code><Message>{code}</Message></Error>", status)
