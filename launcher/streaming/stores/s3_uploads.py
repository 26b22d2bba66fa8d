"""Uploads in several parts that a killed process has begun and nobody will end: S3 keeps, and bills, their parts.

obstore neither lists nor ends them, but signs any address with its credentials. So the query of these requests stands
in the address of the server, and what obstore puts behind it becomes a parameter ``x-id``, which S3 passes over.
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import timedelta
from urllib.parse import quote, urlencode
from xml.sax.saxutils import unescape

import obstore
from obstore.store import S3Store as Bucket

log = logging.getLogger("launcher.stream")

_UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_MOST_BYTES = 16 << 20
"""Of an answer, which has a thousand uploads at most."""
_SECONDS = 30.0


class UnfinishedUploads:
    """Those to ``bucket`` below ``prefix``. What can't be listed or ended is left to the bucket's own rules."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.rstrip('/')}/" if prefix else ""

    def end(self, prefix: str) -> int:
        """Ends those to names that begin with ``prefix``; returns how many."""
        ended = 0
        try:
            for key, upload in list(self.find(prefix)):
                self._ask("DELETE", key, {"uploadId": upload})
                ended += 1
        except (OSError, http.client.HTTPException, ValueError, obstore.exceptions.BaseError) as error:
            # We may not, or the server does not know such requests.
            log.debug("unfinished uploads to %s stay: %s", self._bucket, type(error).__name__)
        return ended

    def find(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Key and id of those to names that begin with ``prefix``. Raises OSError: they can't be listed."""
        prefix = self._prefix + prefix
        markers: dict[str, str] = {}
        while True:
            answer = self._ask("GET", "", {"uploads": "", "prefix": prefix, **markers})
            for upload in _UPLOAD.findall(answer):
                key = _element(upload, "Key")
                if key.startswith(prefix):  # a server may know no prefix
                    yield key, _element(upload, "UploadId")
            following = {name: _element(answer, f"Next{tag}") for name, tag in _MARKERS.items()}
            if _element(answer, "IsTruncated") != "true" or not any(following.values()) or following == markers:
                return
            markers = following

    def _ask(self, method: str, key: str, query: Mapping[str, str]) -> str:
        """Raises OSError: there is no answer, or a refusal."""
        place = f"{_server(self._bucket)}/{quote(key)}".rstrip("/")
        signing = Bucket(
            self._bucket,
            endpoint=f"{place}?{urlencode(query, quote_via=quote)}&x-id=",
            virtual_hosted_style_request=True,  # the address has all of it
            client_options={"allow_http": place.startswith("http://")},
        )
        url = obstore.sign(signing, "GET" if method == "GET" else "DELETE", "uploads", timedelta(seconds=2 * _SECONDS))
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=_SECONDS) as answer:
            return bytes(answer.read(_MOST_BYTES)).decode()


_MARKERS = {"key-marker": "KeyMarker", "upload-id-marker": "UploadIdMarker"}


def _server(bucket: str) -> str:
    """The address of the bucket, as obstore makes it of the environment."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and os.environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() in ("true", "1"):
        return endpoint.rstrip("/")
    return f"{(endpoint or f'https://s3.{region}.amazonaws.com').rstrip('/')}/{bucket}"


def _element(text: str, tag: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return unescape(found[1], {"&quot;": '"', "&apos;": "'"}) if found else ""
