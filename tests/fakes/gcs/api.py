"""What each request means: a parsed request in, an answer out. The XML API's are in :mod:`.xml_api`."""

from __future__ import annotations

import base64
import json
import re
import ssl
from collections.abc import Mapping, Sequence
from email.parser import BytesParser
from typing import Any
from urllib.parse import unquote

from tests.fakes.gcs.objects import ApiError, Buckets, Object, Preconditions
from tests.fakes.gcs.uploads import Session, Uploads
from tests.fakes.gcs.xml_api import MultipartUploads, download
from tests.fakes.http import Answer, HttpFake, Request

_CONDITIONS = {
    "ifGenerationMatch": "generation_match",
    "ifGenerationNotMatch": "generation_not_match",
    "ifMetagenerationMatch": "metageneration_match",
    "ifMetagenerationNotMatch": "metageneration_not_match",
}
_ALWAYS = {"alt", "fields", "prettyPrint", "projection", "userProject", "key", "quotaUser"}
_ALLOWED = {
    "upload": {"name", "uploadType", "upload_id", "predefinedAcl", *_CONDITIONS},
    "compose": {"destinationPredefinedAcl", "ifGenerationMatch", "ifMetagenerationMatch"},
    "object": {"generation", *_CONDITIONS},
    "list": {
        *("prefix", "delimiter", "pageToken", "maxResults", "startOffset", "endOffset", "versions", "softDeleted"),
        *("includeTrailingDelimiter", "includeFoldersAsPrefixes", "matchGlob"),
    },
    "bucket": {"project", "ifMetagenerationMatch"},
}


class FakeGcs(HttpFake):
    """The server: its buckets, and the verbs on buckets, objects and upload sessions.

    Args:
        buckets: names of the buckets that exist at the start.
        page_size: entries of one page of a listing, at most.
        limit_write_rate: refuse a second write to one object within a second.
        soft_delete_seconds: what the buckets' soft delete policy says.
    """

    def __init__(
        self,
        buckets: Sequence[str] = ("bucket",),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        page_size: int = 1000,
        limit_write_rate: bool = False,
        soft_delete_seconds: int = 0,
        tls: ssl.SSLContext | None = None,
    ):
        super().__init__(host, port, tls)
        self.buckets = Buckets(buckets, limit_write_rate=limit_write_rate, soft_delete_seconds=soft_delete_seconds)
        self.uploads = Uploads(self.buckets)
        self.multipart = MultipartUploads(self.buckets)
        self.page_size = page_size

    def content(self, name: str, bucket: str = "bucket") -> bytes:
        return self.buckets.get(bucket, name).content

    def contents(self, bucket: str = "bucket") -> dict[str, bytes]:
        """All objects' content by name."""
        return {name: stored.content for name, stored in self.buckets.snapshot(bucket).items()}

    def snapshot(self, bucket: str) -> dict[str, Object]:
        return self.buckets.snapshot(bucket)

    def reset(self, bucket: str, objects: Mapping[str, Object]) -> None:
        self.buckets.reset(bucket, objects)

    def perform(self, request: Request, *, whole: bool) -> Answer:
        try:
            return self._answer(request, whole)
        except ApiError as error:
            return Answer(304) if error.status == 304 else Answer.of(error.body(), error.status)
        except (KeyError, ValueError, IndexError) as error:
            return Answer.of(ApiError(400, "parseError", f"{request.line}: {error!r}").body(), 400)

    def _answer(self, request: Request, whole: bool) -> Answer:
        if not whole and "upload_id" not in request.query:
            raise ApiError(400, "badRequest", "The body is not complete.")
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        match parts:
            case ["upload", "storage", "v1", "b", bucket, "o"]:
                return self._upload(request, bucket, whole)
            case ["storage", "v1", "b"] if request.method == "POST":
                name = json.loads(request.body)["name"]
                self.buckets.create_bucket(name)
                return Answer.of(self.buckets.bucket_resource(name))
            case ["storage", "v1", "b", bucket] if request.method == "GET":
                _check_query(request, "bucket")
                return Answer.of(self.buckets.bucket_resource(bucket))
            case ["storage", "v1", "b", bucket, "o"] if request.method == "GET":
                return self._list(request, bucket)
            case ["storage", "v1", "b", bucket, "o", name, "compose"] if request.method == "POST":
                return self._compose(request, bucket, name)
            case ["storage", "v1", "b", bucket, "o", name] | ["download", "storage", "v1", "b", bucket, "o", name]:
                return self._object(request, bucket, name)
            case [bucket, *name] if name and request.method in ("GET", "HEAD"):  # the XML API's download
                return download(request, self.buckets.get(bucket, "/".join(name)))
            case [bucket, *name] if name and bucket not in ("storage", "upload", "download"):
                return self.multipart.answer(request, bucket, "/".join(name))
        raise ApiError(404, "notFound", f"Not Found: {request.line}")

    def _upload(self, request: Request, bucket: str, whole: bool) -> Answer:
        _check_query(request, "upload")
        query = request.query
        if "upload_id" in query:
            return self._resume(request, query["upload_id"], whole)
        if request.method != "POST":
            raise ApiError(405, "methodNotAllowed", request.line)
        conditions = _conditions(query)
        match query.get("uploadType"):
            case "media":
                kind = request.headers.get("content-type")
                new = self.buckets.write(
                    bucket, query["name"], request.body, conditions, expected=_hashes(request), content_type=kind
                )
                return Answer.of(new.resource())
            case "multipart":
                resource, kind, content = _parse_multipart(request)
                expected = {key: resource[key] for key in ("crc32c", "md5Hash") if resource.get(key)}
                name = resource.get("name") or query["name"]
                kind, metadata = resource.get("contentType") or kind, resource.get("metadata")
                new = self.buckets.write(
                    bucket, name, content, conditions, expected=expected, content_type=kind, metadata=metadata
                )
                return Answer.of(new.resource())
            case "resumable":
                resource = json.loads(request.body or b"{}")
                length = request.headers.get("x-upload-content-length")
                name = resource.get("name") or query["name"]
                kind = resource.get("contentType") or request.headers.get("x-upload-content-type")
                total = int(length) if length else None
                session = self.uploads.start(Session(bucket, name, conditions, resource, kind, total))
                location = f"{self.url}{request.path}?uploadType=resumable&upload_id={session}"
                return Answer(200, headers={"Location": location, "X-GUploader-UploadID": session})
        raise ApiError(400, "invalid", f"Invalid uploadType: {query.get('uploadType')!r}")

    def _resume(self, request: Request, session: str, whole: bool) -> Answer:
        if request.method == "DELETE":
            self.uploads.cancel(session)
            return Answer(499)
        content_range = request.headers.get("content-range")
        finished, persisted = self.uploads.receive(session, content_range, request.body, _hashes(request), whole=whole)
        if finished is not None:
            return Answer.of(finished.resource())
        return Answer(308, headers={"Range": f"bytes=0-{persisted - 1}"} if persisted else {})

    def _list(self, request: Request, bucket: str) -> Answer:
        _check_query(request, "list")
        query = request.query
        token = query.get("pageToken", "")
        items, prefixes, last = self.buckets.list(
            bucket,
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            after=base64.urlsafe_b64decode(token).decode() if token else "",
            start=query.get("startOffset", ""),
            limit=min(int(query.get("maxResults", 1000)), self.page_size),
        )
        page: dict[str, Any] = {"kind": "storage#objects"}
        if items:
            page["items"] = [item.resource() for item in items]
        if prefixes:
            page["prefixes"] = prefixes
        if last is not None:
            page["nextPageToken"] = base64.urlsafe_b64encode(last.encode()).decode()
        return Answer.of(page)

    def _compose(self, request: Request, bucket: str, name: str) -> Answer:
        _check_query(request, "compose")
        body = json.loads(request.body)
        sources = []
        for source in body["sourceObjects"]:
            match = source.get("objectPreconditions", {}).get("ifGenerationMatch")
            generation = source.get("generation")
            sources.append((source["name"], generation and int(generation), None if match is None else int(match)))
        destination = body.get("destination") or {}
        new = self.buckets.compose(
            bucket,
            name,
            sources,
            _conditions(request.query),
            content_type=destination.get("contentType"),
            metadata=destination.get("metadata"),
        )
        return Answer.of(new.resource())

    def _object(self, request: Request, bucket: str, name: str) -> Answer:
        _check_query(request, "object")
        conditions = _conditions(request.query)
        generation = request.query.get("generation")
        number = int(generation) if generation else None
        match request.method:
            case "GET":
                live = self.buckets.get(bucket, name, conditions, number)
                if request.query.get("alt") == "media":
                    return download(request, live)
                return Answer.of(live.resource())
            case "DELETE":
                self.buckets.delete(bucket, name, conditions, number)
                return Answer(204)
            case "PATCH":
                return Answer.of(self.buckets.patch(bucket, name, json.loads(request.body), conditions).resource())
        raise ApiError(405, "methodNotAllowed", request.line)


def _check_query(request: Request, kind: str) -> None:
    unknown = set(request.query) - _ALLOWED[kind] - _ALWAYS
    if unknown:
        raise ApiError(400, "invalidParameter", f"Unknown query parameters {sorted(unknown)} in {request.line}")


def _conditions(query: Mapping[str, str]) -> Preconditions:
    try:
        return Preconditions(**{field: int(query[key]) for key, field in _CONDITIONS.items() if key in query})
    except ValueError as error:
        raise ApiError(400, "invalid", f"Invalid value for a precondition: {error}") from None


def _hashes(request: Request) -> dict[str, str]:
    names = {"crc32c": "crc32c", "md5": "md5Hash"}
    pairs = (part.strip().split("=", 1) for part in request.headers.get("x-goog-hash", "").split(",") if part)
    return {names[key]: value for key, value in pairs}


def _parse_multipart(request: Request) -> tuple[dict[str, Any], str | None, bytes]:
    """(object resource, content type, content) of a multipart/related body."""
    header = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(header + request.body[:4096])
    boundary = (message.get_boundary() or "").encode()
    if message.get_content_type() != "multipart/related" or not boundary:
        raise ApiError(400, "badContent", "Expected multipart/related.")
    pieces = request.body.split(b"--" + boundary, 2)
    end = request.body.rfind(b"\r\n--" + boundary + b"--")
    if len(pieces) != 3 or end < 0:
        raise ApiError(400, "badContent", "Missing end boundary in multipart body.")
    resource = json.loads(pieces[1].split(b"\r\n\r\n", 1)[1])
    start = len(request.body) - len(pieces[2])
    blank = request.body.index(b"\r\n\r\n", start)
    kind = re.search(rb"(?i)content-type: *([^\r\n]+)", request.body[start : blank + 2])
    return resource, kind[1].decode() if kind else None, request.body[blank + 4 : end]
