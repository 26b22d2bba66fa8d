"""Google Cloud Storage, by its own client library."""

from __future__ import annotations

import io
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import requests
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth import exceptions as auth
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from launcher.streaming.stores.gcs_upload import LONGEST_PAUSE, ResumableUpload
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

REQUEST_TIMEOUT = 120.0
"""Seconds for one request. Python's sendall() counts the whole body against it, so that it also sets the
slowest link on which a piece of 8 MiB still passes: 70 KB/s."""

ONE_REQUEST = 8 << 20
"""Bytes up to which an object is sent from memory in a single request."""

RETRY_TIMEOUT = 30.0
"""Seconds for which one call is tried again before the streamer's own loop takes over."""

RETRY_INITIAL = 0.5
"""Seconds of the first pause, at most; each further one is up to twice as long."""


class GcsStore:
    """Objects under ``gs://bucket/prefix``. Honours application default credentials and STORAGE_EMULATOR_HOST.

    Raises:
        StoreRefused: no credentials were found.
    """

    def __init__(self, bucket: str, prefix: str):
        self.url = f"gs://{bucket}/{prefix}".rstrip("/")
        self.on_retry: Callable[[Exception], None] = lambda error: None
        self._prefix = prefix + "/" if prefix else ""
        try:
            # The project only matters to requests that create or list buckets.
            client = storage.Client(project=os.environ.get("GOOGLE_CLOUD_PROJECT", "maskfleet"))
        except auth.DefaultCredentialsError as error:
            raise StoreRefused(
                f"{self.url}: no Google credentials were found; run 'gcloud auth application-default login', "
                "set GOOGLE_APPLICATION_CREDENTIALS to a key file, or use workload identity"
            ) from error
        self._bucket = client.bucket(bucket)
        retry = Retry(
            predicate=_may_pass,
            initial=RETRY_INITIAL,
            maximum=LONGEST_PAUSE,
            timeout=RETRY_TIMEOUT,
            on_error=lambda error: self.on_retry(error),
        )
        self._options: dict[str, Any] = {"timeout": REQUEST_TIMEOUT, "retry": retry}
        self._uploads = requests.Session()

    def check(self) -> list[str]:
        probes = f"{INTERNAL}probe-"
        with self._translated(probes):
            self._blob(f"{probes}{uuid.uuid4().hex}").upload_from_string(b"", **self._options)
        for probe in list(self.list(probes)):  # with those of streamers that were killed in this very moment
            self.delete(probe)
        try:
            with self._translated(self.url):
                self._bucket.reload(**self._options)
        except StoreRefused:
            return []  # reading the bucket's own settings takes a permission that writing does not
        seconds = self._bucket.soft_delete_policy.retention_duration_seconds or 0
        if not seconds and not self._bucket.versioning_enabled:
            return []
        kept = f"for {seconds / 86400:g} days by soft delete" if seconds else "by object versioning"
        return [
            f"{self.url}: the bucket keeps what is replaced or deleted {kept}, so every flush of a log or event file "
            "is billed at the file's whole size; switch it off with 'gcloud storage buckets update "
            f"gs://{self._bucket.name} --clear-soft-delete'"
        ]

    def find(self, name: str) -> StoredObject | None:
        blob = self._blob(name)
        try:
            with self._translated(name):
                blob.reload(**self._options)
        except _Gone:
            return None
        return self._stored(blob)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        with self._translated(prefix):
            for blob in self._bucket.list_blobs(prefix=self._prefix + prefix, **self._options):
                if not blob.name.endswith("/"):  # consoles put such objects where they show a folder
                    yield self._stored(blob)

    def read(self, found: StoredObject, start: int = 0) -> Iterator[bytes]:
        blob = self._blob(found.name, int(found.version))
        while start < found.size:
            try:
                with self._translated(found.name):
                    # The library can't verify a range; the reader compares the whole with the manifest.
                    piece = blob.download_as_bytes(start=start, end=start + PIECE - 1, checksum=None, **self._options)
            except _Gone as error:
                raise Changed(f"{self.url}/{found.name}: was replaced or deleted while it was read") from error
            if not piece:
                raise StoreUnavailable(f"{self.url}/{found.name}: the answer is empty")
            yield piece
            start += len(piece)

    def put(self, name: str, file: BinaryIO, digest: FileDigest, expected: StoredObject | None) -> StoredObject:
        blob = self._blob(name)
        blob.crc32c = digest.crc32c  # which the service compares before the object comes to be
        condition = _generation(expected)
        try:
            with self._translated(name):
                if digest.size <= ONE_REQUEST:
                    content = file.read(digest.size)
                    blob.upload_from_string(content, checksum=None, if_generation_match=condition, **self._options)
                else:
                    self._send(blob, file, digest.size, condition)
        except _Gone as error:
            raise StoreUnavailable(f"{self.url}/{name}: the upload was forgotten; it has to begin again") from error
        stored = self._stored(blob)
        if not stored.matches(digest):
            self.delete(stored)
            raise ContentDiffers(f"{name}: holds other bytes than its digest says")
        return stored

    def _send(self, blob: storage.Blob, file: BinaryIO, size: int, condition: int) -> None:
        url = blob.create_resumable_upload_session(
            size=size, checksum=None, if_generation_match=condition, **self._options
        )
        upload = ResumableUpload(
            url,
            file,
            size,
            timeout=REQUEST_TIMEOUT,
            patience=RETRY_TIMEOUT,
            pause=RETRY_INITIAL,
            on_retry=lambda error: self.on_retry(error),
        )
        blob._set_properties(upload.send(self._uploads))

    def append(self, name: str, content: bytes, digest: FileDigest, expected: StoredObject | None) -> StoredObject:
        if expected is None:
            return self.put(name, io.BytesIO(content), digest, None)
        # The library gives no conditions to a destination that it has seen before, hence fresh blobs.
        delta, target = self._blob(f"{_deltas(name)}{uuid.uuid4().hex}"), self._blob(name)
        with self._translated(name):
            delta.upload_from_string(content, checksum="crc32c", **self._options)  # nobody else has its name
        try:
            with self._translated(name):
                target.compose([self._blob(name), delta], if_generation_match=_generation(expected), **self._options)
        except _Gone as error:
            raise Changed(f"{self.url}/{name}: was deleted while it was appended to") from error
        finally:
            with suppress(StoreUnavailable, StoreRefused, _Gone), self._translated(name):
                delta.delete(**self._options)
        return self._stored(target)

    def tidy(self, name: str) -> None:
        for delta in list(self.list(_deltas(name))):
            self.delete(delta)

    def end_uploads(self, prefix: str) -> int:
        return 0  # they cost nothing, and end by themselves after a week

    def delete(self, found: StoredObject) -> None:
        with suppress(_Gone), self._translated(found.name):
            self._blob(found.name).delete(if_generation_match=int(found.version), **self._options)

    def _blob(self, name: str, generation: int | None = None) -> storage.Blob:
        return self._bucket.blob(self._prefix + name, generation=generation)

    def _stored(self, blob: storage.Blob) -> StoredObject:
        name = blob.name.removeprefix(self._prefix)
        return StoredObject(name, blob.size or 0, blob.crc32c, str(blob.generation), blob.updated.timestamp())

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """The library's many exceptions as the four that a Store may raise, and _Gone."""
        place = f"{self.url}/{name}"
        try:
            yield
        except (DataCorruption, EOFError) as error:
            raise ContentDiffers(f"{place}: {error}") from error
        except (api.GoogleAPICallError, InvalidResponse) as error:
            status = error.response.status_code if isinstance(error, InvalidResponse) else error.code
            message = _without_authority(error.message if isinstance(error, api.GoogleAPICallError) else str(error))
            if status == 404 and "bucket does not exist" in message:
                raise StoreRefused(f"{self.url}: there is no bucket {self._bucket.name}; create it first") from error
            if status == 404:
                raise _Gone from error
            if status == 412:
                raise Changed(f"{place}: is not in the version that was expected") from error
            if status in (401, 403):
                raise StoreRefused(f"{place}: access was denied: {message}") from error
            if status == 400 and "match calculated" in message:
                raise ContentDiffers(f"{place}: holds other bytes than its digest says") from error
            if status == 400:
                raise StoreRefused(f"{place}: the request was refused: {message}") from error
            raise StoreUnavailable(f"{place}: {status}: {message}") from error
        except (api.RetryError, requests.RequestException, OSError) as error:
            cause = getattr(error, "cause", None) or error
            raise StoreUnavailable(f"{place}: {_without_authority(repr(cause))}") from error
        except auth.GoogleAuthError as error:
            if isinstance(error, auth.TransportError) or error.retryable:
                raise StoreUnavailable(f"{place}: {error}") from error
            raise StoreRefused(f"{self.url}: access was denied: the credentials are not accepted: {error}") from error


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed; also after an answer that was cut short on its way."""
    return bool(DEFAULT_RETRY._predicate(error)) or isinstance(error, requests.exceptions.JSONDecodeError)


class _Gone(Exception):
    """The object is not there."""


def _without_authority(message: str) -> str:
    """What the library says without the address of an upload, with which anybody could write the object."""
    return re.sub(r"upload_id=[^&\s'\")]+", "upload_id=…", message)


def _generation(expected: StoredObject | None) -> int:
    return 0 if expected is None else int(expected.version)


def _deltas(name: str) -> str:
    """Outside the TensorBoard folder, which must hold nothing but event files."""
    return f"{INTERNAL}deltas/{name}/"
