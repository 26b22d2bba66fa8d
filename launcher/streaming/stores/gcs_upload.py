"""A large object's body to Google Cloud Storage, in one request of a resumable upload.

The client library would hold a chunk in memory and wait for an answer to each. This holds a megabyte whatever the
size, waits once, and after an interruption goes on from what the service has kept. The protocol is
https://cloud.google.com/storage/docs/performing-resumable-uploads.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import requests
from google.api_core import exceptions as api
from google.cloud.storage.retry import DEFAULT_RETRY

from maskfleet.backoff import pauses

BLOCK = 1 << 20
"""Bytes that are read and sent at a time. The time-out of a request holds for each of them anew."""

LONGEST_PAUSE = 8.0
"""Seconds between two attempts, at most."""

_refusal: Callable[[requests.Response], api.GoogleAPICallError] = api.from_http_response


class _Rest:
    """What of the file is still to be sent, as a request's body."""

    def __init__(self, file: BinaryIO, start: int, size: int):
        self._file = file
        self._start = start
        self._size = size

    def __len__(self) -> int:
        return self._size - self._start

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self._start)
        left = len(self)
        while left:
            block = self._file.read(min(BLOCK, left))
            if not block:
                raise EOFError(f"the file has ended {left} bytes before the size that its digest says")
            left -= len(block)
            yield block


class ResumableUpload:
    """One upload to the address of a session that the client library has begun.

    Args:
        url: the session's address, which is all the authority that it needs.
        size: bytes of ``file``; at least 1.
        timeout: seconds for a block to be sent, and for the answer to come.
        patience: seconds after which a row of errors without any progress is given up.
        pause: seconds before the first new attempt, at most; each further one is up to twice as long, up to 8.
        on_retry: called with each error after which the upload goes on.
    """

    def __init__(
        self,
        url: str,
        file: BinaryIO,
        size: int,
        *,
        timeout: float,
        patience: float,
        pause: float,
        on_retry: Callable[[Exception], None],
    ):
        self._url = url
        self._file = file
        self._size = size
        self._timeout = timeout
        self._patience = patience
        self._pause = pause
        self._on_retry = on_retry
        self._kept = 0

    def send(self, session: requests.Session) -> dict[str, Any]:
        """Sends all of the file; the new object as the service describes it.

        Raises:
            EOFError: the file is shorter than its size.
            google.api_core.exceptions.GoogleAPICallError, requests.RequestException: the upload was refused, or could
                not go on.
        """
        waits: Iterator[float] | None = None  # of the row of errors that goes on now
        asking = False
        while True:
            before = self._kept
            try:
                done = self._ask(session) if asking else self._send_rest(session)
                if done is not None:
                    return done
                asking = False
            except Exception as error:
                waits = waits or pauses(self._pause, LONGEST_PAUSE, timeout=self._patience)
                pause = next(waits, None)
                if pause is None or not DEFAULT_RETRY._predicate(error):
                    raise
                self._on_retry(error)
                time.sleep(pause)
                asking = True
            if self._kept > before:
                waits = None

    def _send_rest(self, session: requests.Session) -> dict[str, Any] | None:
        before = self._kept
        rest = _Rest(self._file, before, self._size)
        done = self._put(session, f"bytes {before}-{self._size - 1}/{self._size}", rest)
        if done is None and self._kept <= before:
            raise requests.ConnectionError("the service has kept nothing of what was sent")
        return done

    def _ask(self, session: requests.Session) -> dict[str, Any] | None:
        """How much has the service kept? It may be all: then this is the answer that was lost."""
        return self._put(session, f"bytes */{self._size}", None)

    def _put(self, session: requests.Session, content_range: str, body: _Rest | None) -> dict[str, Any] | None:
        headers = {"Content-Range": content_range}
        answer = session.put(self._url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False)
        if answer.status_code in (200, 201):
            found: dict[str, Any] = answer.json()
            return found
        if answer.status_code != 308:
            raise _refusal(answer)
        kept = re.fullmatch(r"bytes=0-(\d+)", answer.headers.get("Range", ""))
        self._kept = int(kept[1]) + 1 if kept else 0
        return None
