"""Requests to the API server and their answers: credentials, proxies, TLS, what is tried again, what is an error."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode, urlsplit

from launcher.cluster.credentials import Credentials, Identity
from launcher.cluster.websockets import Refused, open_websocket
from maskfleet.backoff import pauses
from maskfleet.errors import BadInput, MaskfleetError, NotFound
from maskfleet.text import one_line

if TYPE_CHECKING:
    import urllib3
    from websocket import WebSocket

Object = dict[str, Any]

_STREAM_SILENCE = 60.0  # seconds; a stream that says nothing for longer is asked for anew
_LONGEST_RETRY_AFTER = 60.0  # seconds; a server that wants to be left alone for longer is said to be so
_HTML = b"HTML: a login page or a proxy?"
_BUSY = (429, 500, 502, 503, 504)


class ApiError(MaskfleetError):
    """The API server refused a request; ``status`` is HTTP's, ``reason`` Kubernetes' word for it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason

    @property
    def is_forbidden(self) -> bool:
        """Whether we may not do this, however often we ask."""
        return self.status == 403


class Unreachable(MaskfleetError):
    """The API server did not answer in time."""


class Connection:
    """Sends requests with the kubernetes package's ``configuration`` (host, TLS, proxy) and ``credentials``."""

    def __init__(self, configuration: Any, credentials: Credentials, extra_headers: list[tuple[str, str]]) -> None:
        self._configuration = configuration
        self._credentials = credentials
        self._extra_headers = extra_headers
        self._host = configuration.host.rstrip("/")
        self._pools: dict[tuple[str | None, str | None], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        stream: float | None = None,
        *,
        patience: float,
    ) -> urllib3.BaseHTTPResponse:
        """One request, repeated for ``patience`` seconds while the server is down or overloaded.

        Should it name a time to come back, it is not asked before, and once then, even beyond our patience.

        Args:
            stream: the read time-out of a stream, seconds; None reads the whole answer.

        Raises:
            ApiError: it refuses.
            NotFound: there is no such object.
            Unreachable: it does not answer, or something else does.
            BadInput: there are no credentials.
        """
        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = [("Accept", accept), ("User-Agent", "maskfleet-launcher"), *self._extra_headers]
        headers += [("Content-Type", content_type)] if body is not None else []
        failure: MaskfleetError | None = None
        waits = pauses(0.1, 2.0, timeout=patience)
        identity, renewed = self._credentials.current(), False
        while True:
            response = self._try(method, url, headers, body, stream, identity)
            pause: float | None = None
            if isinstance(response, Unreachable):
                failure = response
            elif response.status == 401 and not renewed:
                renewed = True
                if other := self._credentials.instead_of(identity):
                    identity = other
                    response.drain_conn()
                    continue
                raise self._refusal(response, path)
            elif response.status < 300:
                return response
            elif method == "DELETE" and response.status == 404 and failure is not None:
                return response  # the request before did it, and its answer was lost
            elif response.status < 400:
                raise Unreachable(_redirected(self._host, response.headers.get("Location", "")))
            else:
                failure = self._refusal(response, path)
                if response.status not in _BUSY:
                    raise failure
                pause = _pause_wanted(response, failure)
            wait = next(waits, None)
            if wait is None:
                assert failure is not None
                raise failure
            time.sleep(wait if pause is None else max(wait, pause))

    def websocket(self, path: str, query: Sequence[tuple[str, str]]) -> WebSocket:
        """A websocket of the subresource at ``path`` of a pod.

        Raises:
            ApiError, NotFound, Unreachable, BadInput: as :meth:`send`.
        """
        identity = self._credentials.current()
        try:
            return self._websocket(path, query, identity)
        except Refused as refused:
            other = self._credentials.instead_of(identity) if refused.answer.status == 401 else None
            if other is None:
                raise self._refusal(refused.answer, path) from refused
        try:
            return self._websocket(path, query, other)
        except Refused as refused:
            raise self._refusal(refused.answer, path) from refused

    def _websocket(self, path: str, query: Sequence[tuple[str, str]], identity: Identity) -> WebSocket:
        """Raises Refused, Unreachable and BadInput."""
        authorization = [("Authorization", identity.authorization)] if identity.authorization else []
        headers = [*authorization, *self._extra_headers]
        for name, value in headers:
            _in_a_header(name, value)
        with self._lock:
            self._configuration.cert_file, self._configuration.key_file = identity.certificate, identity.key
            configuration = copy.copy(self._configuration)
        try:
            return open_websocket(configuration, f"{self._host}{path}", query, headers)
        except ConnectionError as error:
            raise Unreachable(f"{self._host}: no connection to {path.split('/')[-2]}: {error}") from error

    def lines(self, path: str, query: Mapping[str, str], *, patience: float) -> Iterator[bytes]:
        """Lines of a streamed answer, with their ends.

        Raises:
            ConnectionError: the stream broke off, or was silent for a minute, which a dead one is too.
            ApiError, NotFound, Unreachable, BadInput: as :meth:`send`.
        """
        import urllib3

        response = self.send("GET", path, query, stream=_STREAM_SILENCE, patience=patience)
        rest = b""
        try:
            if _is_html(response):
                raise self.unlike_the_api(_HTML)
            while True:
                try:
                    piece = response.read1()
                except (urllib3.exceptions.HTTPError, OSError) as error:
                    raise ConnectionError(str(error)) from error
                if not piece:
                    break
                *lines, rest = (rest + piece).split(b"\n")
                yield from (line + b"\n" for line in lines)
            if rest:
                yield rest
        finally:
            response.close()

    def answer(self, response: urllib3.BaseHTTPResponse) -> Object:
        """The answer, which every API server gives as an object of a kind.

        Raises:
            Unreachable: something else answered, such as the login page of a proxy.
        """
        try:
            answer = json.loads(response.data)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict) and "kind" in answer:
            return answer
        raise self.unlike_the_api(_HTML if _is_html(response) else response.data)

    def unlike_the_api(self, found: bytes) -> Unreachable:
        """The error for an answer that no API server gives."""
        words = one_line(found[:80].decode(errors="replace")) or "nothing"
        return Unreachable(f"{self._host} does not answer as Kubernetes' API server does; found {words}")

    def _refusal(self, response: urllib3.BaseHTTPResponse, path: str) -> MaskfleetError:
        if _is_html(response):
            return self.unlike_the_api(f"HTTP {response.status} with ".encode() + _HTML)
        if response.status == 407:
            proxy = _without_password(self._configuration.proxy)
            return Unreachable(f"the proxy {proxy} wants other credentials for the way to {self._host}")
        return _refusal(response, path)

    def _try(
        self,
        method: str,
        url: str,
        headers: list[tuple[str, str]],
        body: Object | None,
        stream: float | None,
        identity: Identity,
    ) -> urllib3.BaseHTTPResponse | Unreachable:
        import urllib3

        if identity.authorization:
            headers = [*headers, ("Authorization", identity.authorization)]
        sent = urllib3.HTTPHeaderDict([(name, _in_a_header(name, value)) for name, value in headers])
        try:
            return self._pool(identity).request(
                method,
                url,
                headers=sent,
                body=None if body is None else json.dumps(body).encode(),
                preload_content=stream is None,
                timeout=urllib3.Timeout(connect=5, read=stream or 30),
                retries=False,
                redirect=False,  # nor does urllib3 look at where it leads
            )
        except urllib3.exceptions.SSLError as error:
            raise Unreachable(f"{self._host}: TLS: {error}") from error
        except urllib3.exceptions.ProxyError as error:
            proxy = _without_password(self._configuration.proxy)
            return Unreachable(f"the proxy {proxy} does not lead to the API server at {self._host}: {_root(error)}")
        except (urllib3.exceptions.HTTPError, OSError, ssl.SSLError) as error:
            return Unreachable(f"the API server at {self._host} does not answer: {_root(error)}")

    def _pool(self, identity: Identity) -> urllib3.PoolManager:
        """The connections of this client certificate; those of one that was renewed are not used again."""
        from kubernetes import client

        with self._lock:
            mine = (identity.certificate, identity.key)
            if mine not in self._pools:
                self._configuration.cert_file, self._configuration.key_file = mine
                self._pools = {mine: client.ApiClient(self._configuration).rest_client.pool_manager}
            return self._pools[mine]


def set_proxy(configuration: Any, proxy: str | None) -> None:
    """Has requests go by way of ``proxy``; without one by that of the environment, as Go's programs do.

    Raises:
        BadInput: it is no HTTP proxy.
    """
    from urllib3.util import make_headers

    if proxy:
        configuration.proxy = proxy
        configuration.no_proxy = None  # NO_PROXY is about HTTPS_PROXY
    elif urlsplit(configuration.host).hostname in ("localhost", "127.0.0.1", "::1"):
        configuration.proxy = None
    scheme, separator, _ = (configuration.proxy or "").partition("://")
    if separator and scheme.lower() not in ("http", "https"):
        raise BadInput(
            f"proxy: expected http:// or https://, found {one_line(scheme, 20)}://, by which no request goes; "
            "name an HTTP proxy in proxy-url or HTTPS_PROXY"
        )
    if configuration.proxy and (parts := urlsplit(configuration.proxy)).username:
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        configuration.proxy_headers = make_headers(proxy_basic_auth=pair)


def _without_password(url: str | None) -> str:
    try:
        parts = urlsplit(url or "")
    except ValueError:  # a half of an IPv6 address: what is in it can't be told apart
        return "an address that is none"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _redirected(host: str, location: str) -> str:
    # Our credentials are for this server, and the place that it names is whoever's.
    return (
        f"{host} does not answer as Kubernetes' API server does; found a redirection to "
        f"{one_line(_without_password(location)) or 'nowhere'}: a login page or a proxy? Name the server itself"
    )


def _is_html(response: urllib3.BaseHTTPResponse) -> bool:
    return "html" in response.headers.get("Content-Type", "").lower()


def _in_a_header(name: str, value: str) -> str:
    """``value`` as http.client sends it in UTF-8, as Go's programs do.

    Raises:
        BadInput: it is more than a line. It is not shown: it may be a token.
    """
    if any(mark in value for mark in "\r\n\0"):
        raise BadInput(
            f"the kubeconfig's credentials: {name}: expected one line, found more: mend the token, "
            "the 'as' or the exec plugin that gives it"
        )
    return value.encode(errors="surrogateescape").decode("latin-1")


def _pause_wanted(response: urllib3.BaseHTTPResponse, failure: MaskfleetError) -> float | None:
    """Seconds for which the server wants to be left alone; raises ApiError if they are too many to wait."""
    pause = _retry_after(response)
    if pause is not None and pause > _LONGEST_RETRY_AFTER:
        raise ApiError(response.status, "", f"{failure}; the API server wants to be left alone for {pause:.0f} s")
    return pause


def _retry_after(response: urllib3.BaseHTTPResponse) -> float | None:
    from urllib3.exceptions import InvalidHeader
    from urllib3.util import Retry

    with contextlib.suppress(InvalidHeader, OverflowError, ValueError):  # a number or a year beyond sense
        return Retry().get_retry_after(response)
    return None


def _refusal(response: urllib3.BaseHTTPResponse, path: str) -> MaskfleetError:
    try:
        status = json.loads(response.data)
    except (ValueError, RecursionError):
        status = None
    if isinstance(status, dict):
        reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    else:
        found = " ".join(response.data[:200].decode(errors="replace").split())
        reason, message = "", f"HTTP {response.status} for {path}: {found}" if found else ""
    message = " ".join(message.split()) or f"HTTP {response.status} for {path}"
    if response.status == 404:
        return NotFound(message)
    if response.status == 401:
        message = "the API server does not accept the credentials of the kubeconfig: log in again"
    return ApiError(response.status, reason, message)


def _root(error: BaseException) -> str:
    """The cause that a person understands, at the end of urllib3's chain."""
    reason = getattr(error, "original_error", None) or getattr(error, "reason", None) or error.__cause__ or error
    return re.sub(r"^\[Errno -?\d+\] ", "", str(reason).rsplit(": ", 1)[-1])
