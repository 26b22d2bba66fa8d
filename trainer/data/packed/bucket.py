"""Where packed data lies: ``gs://``, ``s3://`` or a folder, by obstore. Imports no TensorFlow.

Credentials are those of the launcher's stores: Google's application default ones, and the AWS_* environment.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import GCSStore, LocalStore, S3Store

from maskfleet.config import absolute_path
from maskfleet.errors import BadData, BadSettings, MaskfleetError
from maskfleet.text import one_line

_PIECE = 8 << 20
"""Bytes of a large object that are sent by one request."""
_UNFINISHED = re.compile(r".+\.(tfrecord|npy|names|json)#\d+")
"""How obstore calls a file of packed data until all of it is there."""
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_PASSING = ("408", "409", "425", "429")
"""Of the 4xx answers, those after which the same request may succeed."""
_REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket", "AuthorizationHeaderMalformed")


class Unavailable(MaskfleetError):
    """The bucket can't be reached or is overloaded. Trying again later may help."""


class NotThere(BadData):
    """There is no such object."""


class Bucket:
    """Objects under a place, whose ``url`` messages have. All methods raise Unavailable and BadSettings.

    ``folder`` is where they lie on this machine; None of a bucket.
    """

    def __init__(self, url: str, store: Any, folder: Path | None = None):
        self.url, self.folder = url, folder
        self._store = store

    def read(self, name: str, is_right: Callable[[bytes], bool] = lambda found: True) -> bytes:
        """All of an object, or what came of it if ``is_right`` does not take that for all. Raises NotThere."""
        with self._translated(name):
            found = bytes(obstore.get(self._store, name).bytes())
        if not is_right(found) and len(found) < (size := self.size(name) or 0):
            raise self._cut(name, len(found), size)
        return found

    def read_range(self, name: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start`` on, or what the object has of them. Raises NotThere."""
        with self._translated(name):
            found = bytes(obstore.get_range(self._store, name, start=start, length=length))
        if len(found) < length and (self.size(name) or 0) >= start + length:
            raise self._cut(name, len(found), length)
        return found

    def _cut(self, name: str, came: int, wanted: int) -> Unavailable:
        """Of an answer that a proxy or an overloaded store ended early, as if it were all."""
        return Unavailable(f"{self.url}/{name}: {came} of {wanted} bytes came")

    def size(self, name: str) -> int | None:
        """Of an object, in bytes; None if there is none."""
        try:
            with self._translated(name):
                return int(obstore.head(self._store, name)["size"])
        except NotThere:
            return None

    def put(self, name: str, content: bytes | BinaryIO) -> None:
        """Writes or replaces an object; it is there whole or not at all."""
        whole = isinstance(content, bytes) and len(content) <= _PIECE
        with self._translated(name):
            obstore.put(self._store, name, content, use_multipart=not whole, chunk_size=_PIECE, max_concurrency=4)

    def delete(self, names: Sequence[str]) -> None:
        """Those that are there."""
        for name in names:
            try:
                with self._translated(name):
                    obstore.delete(self._store, name)
            except NotThere:
                continue

    def delete_unfinished(self) -> None:
        """What a process that was killed had begun to write into a folder; in a bucket nobody sees it."""
        if self.folder is None:
            return
        try:
            for file in [*self.folder.glob("*#*"), *self.folder.glob("*/*#*")]:
                if _UNFINISHED.fullmatch(file.name):
                    file.unlink()
        except OSError as error:
            raise BadSettings(f"{error.filename}: can't be deleted: {error.strerror}") from error

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """obstore's exceptions as ours, in one line."""
        place = f"{self.url}/{name}"
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise BadSettings(f"{self.url}: there is no such bucket; create it first") from error
            raise NotThere(f"{place}: is not there") from error
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError) as error:
            raise BadSettings(f"{place}: access was denied: {_words(error)}") from error
        except exceptions.BaseError as error:
            text = str(error)
            if "169.254." in text:  # the instance metadata service is the last place to look for credentials
                raise BadSettings(f"{self.url}: no credentials were found: {_words(error)}") from error
            status = _STATUS.search(text)
            if any(code in text for code in _REFUSED) or (
                status is not None and status[1][0] == "4" and status[1] not in _PASSING
            ):
                raise BadSettings(f"{place}: the request was refused: {_words(error)}") from error
            raise Unavailable(f"{place}: {_words(error)}") from error
        except OSError as error:
            raise Unavailable(f"{place}: {_words(error)}") from error


def open_bucket(place: str, *, writing: bool = False) -> Bucket:
    """The bucket or folder of ``gs://BUCKET/PREFIX``, ``s3://BUCKET/PREFIX`` or a path. Sends no request.

    Args:
        writing: a folder is made, and a request that fails is tried again for minutes. Who reads waits by himself, and
            tells of it.

    Raises:
        BadSettings: the place can't be understood, or there are no credentials.
    """
    parts = urlsplit(place)
    if parts.scheme not in ("gs", "s3"):
        if "://" in place:
            raise BadSettings(f"{place}: expected gs://BUCKET/PREFIX, s3://BUCKET/PREFIX or a folder")
        path = absolute_path(place, "the folder")
        try:
            return Bucket(str(path), LocalStore(path, mkdir=writing, automatic_cleanup=True), path)
        except (exceptions.BaseError, OSError) as error:
            raise BadSettings(f"{path}: can't be used: {_words(error)}") from error
    prefix = parts.path.strip("/")
    if not parts.netloc or parts.query or parts.fragment or "//" in prefix:
        raise BadSettings(f"{place}: expected {parts.scheme}://BUCKET/PREFIX")
    url = f"{parts.scheme}://{parts.netloc}/{prefix}".rstrip("/")
    retry = {"max_retries": 10 if writing else 1, "retry_timeout": timedelta(seconds=180 if writing else 5)}
    make = _gcs if parts.scheme == "gs" else _s3
    try:
        return Bucket(url, make(parts.netloc, prefix or None, url, retry))
    except exceptions.BaseError as error:
        raise BadSettings(f"{url}: {_words(error)}") from error


def _s3(bucket: str, prefix: str | None, url: str, retry: Any) -> Any:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    options: Any = {"allow_http": endpoint.startswith("http://"), "timeout": "120s"}
    return S3Store(bucket, prefix=prefix, client_options=options, retry_config=retry)


def _gcs(bucket: str, prefix: str | None, url: str, retry: Any) -> Any:
    if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):
        host = emulator if "://" in emulator else f"http://{emulator}"
        key = {"gcs_base_url": host, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        return GCSStore(
            bucket,
            prefix=prefix,
            config={"service_account_key": json.dumps(key)},
            client_options={"allow_http": host.startswith("http://"), "timeout": "120s"},
            retry_config=retry,
        )
    from google.auth.exceptions import DefaultCredentialsError
    from obstore.auth.google import GoogleCredentialProvider

    try:
        credentials: Any = GoogleCredentialProvider()
    except DefaultCredentialsError as error:
        raise BadSettings(
            f"{url}: no Google credentials were found; run 'gcloud auth application-default login', "
            "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or use workload identity"
        ) from error
    return GCSStore(
        bucket, prefix=prefix, credential_provider=credentials, client_options={"timeout": "120s"}, retry_config=retry
    )


def _words(error: Exception) -> str:
    """The first line of what obstore says, without the details for its own developers."""
    return one_line(str(error).strip().split("\n", 1)[0])
