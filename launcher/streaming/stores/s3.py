"""S3 and what speaks its protocol, by obstore.

S3 can't append. An object that grows is therefore a row of parts, ``NAME.part-00000`` and so on: the last one
is rewritten until it holds about 1 MB, then it is sealed and the next begins. Parts of an event file are whole
records, and TensorBoard reads them in order as event files of their own. ``list``, ``find`` and ``read`` show the
row as the one object that it stands for.
"""

from __future__ import annotations

import itertools
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import obstore
from obstore import exceptions
from obstore.store import S3Store as Bucket

from launcher.streaming.stores.patience import retry_reading
from launcher.streaming.stores.s3_uploads import UnfinishedUploads
from launcher.streaming.stores.store import (
    INTERNAL,
    PIECE,
    Changed,
    ContentDiffers,
    StoredObject,
    StoreRefused,
    StoreUnavailable,
)
from maskfleet.files import FileDigest

SEAL = 1 << 20
"""Bytes at which the last part of a growing object is left alone."""

ONE_REQUEST = 32 << 20
"""Bytes up to which an object is written by one conditional request. Larger ones are sent in several parts, whose
completion obstore can't make conditional: they are looked for just before."""

_PART = re.compile(r"(.+)\.part-(\d{5,})")
_GROWN = re.compile(r"(\d+)/(\d+)/(.*)")
"""The version of an object in parts: the last one's number, size and tag."""
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_CRC = "maskfleet-crc32c"
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_ERROR = re.compile(r"<Code>(.*?)</Code>\s*<Message>(.*?)</Message>", re.DOTALL)
_PASSING = ("408", "409", "429", "RequestTimeout", "IncompleteBody", "Throttling", "IDPCommunicationError")
"""Of the 4xx answers, those after which the same request may succeed: by status, or by code where that is 400."""

_Parts = list[Any]
"""Of one object: obstore's description of each."""
_Rows = list[tuple[str, _Parts]]
"""(name, its objects): one plain object, or all the parts of a growing one."""


class S3Store:
    """Objects under ``s3://bucket/prefix``. Honours the AWS_* environment, web identity and instance metadata."""

    def __init__(self, bucket: str, prefix: str):
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._unfinished = UnfinishedUploads(bucket, prefix)
        self.on_retry: Callable[[Exception], None] = lambda error: None
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        try:
            self._bucket = Bucket(
                bucket,
                prefix=prefix or None,
                client_options={"allow_http": endpoint.startswith("http://"), "timeout": "120s"},
                retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=30)},
            )
        except exceptions.BaseError as error:
            raise StoreRefused(f"{self.url}: {_first_line(error)}") from error

    def check(self) -> list[str]:
        probes = f"{INTERNAL}probe-"
        with self._translated(probes):
            obstore.put(self._bucket, f"{probes}{uuid.uuid4().hex}", b"")
            # With those of streamers that were killed meanwhile.
            obstore.delete(self._bucket, [probe for probe, _ in self._read_rows(probes)])
        return []

    def find(self, name: str) -> StoredObject | None:
        return retry_reading(lambda: self._find(name), self.on_retry)

    def _find(self, name: str) -> StoredObject | None:
        try:
            found = self._head(name)
            return self._joined(name, [found.meta], found.attributes.get(_CRC))
        except Changed:  # there is no plain object of that name
            parts = self._parts(name)
        if not parts:
            return None
        last = self._head(parts[-1]["path"])
        return self._joined(name, [*parts[:-1], last.meta], last.attributes.get(_CRC))

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        for name, parts in self._read_rows(prefix):
            if not name.startswith(INTERNAL):
                yield self._joined(name, parts)

    def read(self, found: StoredObject, start: int = 0) -> Iterator[bytes]:
        if _GROWN.fullmatch(found.version) is None:
            yield from self._read_part({"path": found.name, "size": found.size, "e_tag": found.version}, start)
            return
        parts = retry_reading(lambda: self._parts(found.name), self.on_retry)
        if not parts or self._joined(found.name, parts).version != found.version:
            raise Changed(f"{self.url}/{found.name}: was replaced while it was read")
        for part in parts:
            yield from self._read_part(part, start)
            start = max(0, start - part["size"])

    def put(self, name: str, file: BinaryIO, digest: FileDigest, expected: StoredObject | None) -> StoredObject:
        if FileDigest.read(file) != digest:
            raise ContentDiffers(f"{name}: holds other bytes than its digest says")
        file.seek(0)
        attributes = {_CRC: digest.crc32c}
        if digest.size <= ONE_REQUEST:
            written = self._write(name, file.read(), attributes, expected)
        else:
            found = self.find(name)
            if (found and found.version) != (expected and expected.version):
                raise Changed(f"{self.url}/{name}: is not in the version that was expected")
            with self._translated(name):
                written = obstore.put(
                    self._bucket, name, file, attributes=attributes, chunk_size=PIECE, max_concurrency=2
                )
        return StoredObject(name, digest.size, digest.crc32c, str(written["e_tag"]), 0.0)

    def append(self, name: str, content: bytes, digest: FileDigest, expected: StoredObject | None) -> StoredObject:
        number, tail = 0, None
        if expected is not None:
            number, size, tag = _parse_version(expected)
            if size < SEAL:
                tail = StoredObject(_part(name, number), size, None, tag, 0.0)
                head = b"".join(self._read_part({"path": tail.name, "size": size, "e_tag": tag}, 0))
                content = head + content
            else:
                number += 1
        written = self._write(_part(name, number), content, {_CRC: digest.crc32c}, tail)
        version = _version(number, len(content), written["e_tag"])
        return StoredObject(name, digest.size, digest.crc32c, version, 0.0)

    def tidy(self, name: str) -> None:
        pass

    def end_uploads(self, prefix: str) -> int:
        return self._unfinished.end(prefix)

    def delete(self, found: StoredObject) -> None:
        # S3 deletes without conditions, so that this one is checked just before.
        if _GROWN.fullmatch(found.version) is not None:
            there = self._parts(found.name)
        else:
            try:
                there = [self._head(found.name).meta]
            except Changed:
                there = []
        if not there:
            return
        if self._joined(found.name, there).version != found.version:
            raise Changed(f"{self.url}/{found.name}: is not in the version that was expected")
        with self._translated(found.name):
            obstore.delete(self._bucket, [each["path"] for each in there])

    def _write(
        self, name: str, content: bytes, attributes: dict[Any, str], expected: StoredObject | None
    ) -> obstore.PutResult:
        mode: Any = "create" if expected is None else {"e_tag": expected.version}
        with self._translated(name):
            return obstore.put(self._bucket, name, content, attributes=attributes, mode=mode, use_multipart=False)

    def _read_part(self, part: Any, start: int) -> Iterator[bytes]:
        while start < part["size"]:
            piece = retry_reading(partial(self._piece, part, start), self.on_retry)
            yield piece
            start += len(piece)

    def _piece(self, part: Any, start: int) -> bytes:
        options: Any = {"range": (start, min(part["size"], start + PIECE)), "if_match": part["e_tag"]}
        with self._translated(part["path"]):
            piece = bytes(obstore.get(self._bucket, part["path"], options=options).bytes())
        if not piece:
            raise StoreUnavailable(f"{self.url}/{part['path']}: the answer is empty")
        return piece

    def _head(self, path: str) -> obstore.GetResult:
        """One object's description. Raises Changed if it is not there."""
        with self._translated(path):
            return obstore.get(self._bucket, path, options={"head": True})

    def _parts(self, name: str) -> _Parts:
        """All parts of a growing object, by one request for each thousand however full its folder is."""
        folder, _, _ = name.rpartition("/")
        found: _Parts = []
        with self._translated(name):
            for page in obstore.list(self._bucket, prefix=folder or None, offset=f"{name}.part-"):
                for meta in page:
                    if _logical(meta["path"]) != name:
                        return found
                    found.append(meta)
        return found

    def _read_rows(self, prefix: str) -> _Rows:
        return retry_reading(lambda: self._rows(prefix), self.on_retry)

    def _rows(self, prefix: str) -> _Rows:
        folder, _, _ = prefix.rpartition("/")  # obstore lists whole folders
        with self._translated(prefix):  # all of it first: an answer may be cut short
            pages = obstore.list(self._bucket, prefix=folder or None)
            found = sorted(itertools.chain.from_iterable(pages), key=lambda meta: meta["path"])
        # Consoles put an empty object NAME/ where they show a folder, which obstore calls NAME.
        folders = {"", *(str(folder) for meta in found for folder in PurePosixPath(meta["path"]).parents)}
        found = [meta for meta in found if meta["size"] or meta["path"] not in folders]
        rows = itertools.groupby(found, key=lambda meta: _logical(meta["path"]))
        return [(name, list(parts)) for name, parts in rows if name.startswith(prefix)]

    def _joined(self, name: str, parts: _Parts, crc32c: str | None = None) -> StoredObject:
        last = parts[-1]
        number = _PART.fullmatch(last["path"])
        version = _version(int(number[2]), last["size"], last["e_tag"]) if number else str(last["e_tag"])
        size = sum(part["size"] for part in parts)
        md5 = None if number else _MD5.fullmatch(str(last["e_tag"]))
        return StoredObject(name, size, crc32c, version, last["last_modified"].timestamp(), md5[1] if md5 else None)

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        place = f"{self.url}/{name}"
        try:
            yield
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise Changed(f"{place}: is not in the version that was expected") from error
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise StoreRefused(f"{self.url}: there is no such bucket; create it first") from error
            raise Changed(f"{place}: was deleted meanwhile") from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
            raise StoreRefused(f"{place}: access was denied: {_words(error)}") from error
        except ValueError as error:  # obstore's word for a name that it takes for no path
            raise StoreRefused(f"{place}: {_words(error)}; rename it") from error
        except exceptions.BaseError as error:
            text = str(error)
            if "NoSuchBucket" in text:
                raise StoreRefused(f"{self.url}: there is no such bucket; create it first") from error
            if "169.254." in text:  # the instance metadata service is the last place to look for credentials
                raise StoreRefused(
                    f"{self.url}: no AWS credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                    "or use a service account with a role"
                ) from error
            if "Received redirect" in text or "AuthorizationHeaderMalformed" in text:
                raise StoreRefused(
                    f"{self.url}: the bucket is in another region; set AWS_REGION to the bucket's: {_words(error)}"
                ) from error
            if "invalid path" in text:
                raise StoreRefused(f"{place}: {_words(error)}; rename the object") from error
            if _is_refusal(text):
                raise StoreRefused(f"{place}: the request was refused: {_words(error)}") from error
            raise StoreUnavailable(f"{place}: {_words(error)}") from error


def _part(name: str, number: int) -> str:
    return f"{name}.part-{number:05d}"


def _logical(path: str) -> str:
    match = _PART.fullmatch(path)
    return match[1] if match else path


def _version(number: int, size: int, tag: str | None) -> str:
    return f"{number}/{size}/{tag}"


def _parse_version(found: StoredObject) -> tuple[int, int, str]:
    match = _GROWN.fullmatch(found.version)
    if match is None:
        raise Changed(f"{found.name}: was written whole and can't grow")
    return int(match[1]), int(match[2]), match[3]


def _is_refusal(text: str) -> bool:
    """Whether the answer was 4xx, and would be so again."""
    status, described = _STATUS.search(text), _ERROR.search(text)
    if status is None or status[1][0] != "4":
        return False
    return status[1] not in _PASSING and not (described and described[1] in _PASSING)


def _words(error: Exception) -> str:
    """What the service says, in one line; or else what obstore does."""
    described = _ERROR.search(str(error))
    return " ".join(f"{described[1]}: {described[2]}".split()) if described else _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
