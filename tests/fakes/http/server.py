"""A threaded HTTP server with a log of all requests and faults on order."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.fakes.http.faults import Fault, Faults


@dataclass
class Request:
    """One request as it came, and what became of it."""

    number: int
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    length: int
    """Bytes of the body that the client announced."""
    wire_bytes: int
    """Bytes of request line, headers and body."""
    status: int | None = None
    """None: no answer was sent."""
    fault: Fault | None = None
    body: bytes = field(default=b"", repr=False)

    @property
    def line(self) -> str:
        query = "&".join(f"{key}={value}" for key, value in sorted(self.query.items()))
        return f"{self.method} {self.path}" + (f"?{query}" if query else "")


@dataclass
class Answer:
    status: int
    body: Iterable[bytes] = ()
    length: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Mapping[str, Any], status: int = 200) -> Answer:
        content = json.dumps(value).encode()
        return cls(status, [content], len(content), {"Content-Type": "application/json; charset=UTF-8"})


class HttpFake(ABC):
    """A running fake of some service; a context manager.

    ``before`` and ``after`` are called with every request, before its effect and before its answer is sent.
    With ``tls`` it speaks HTTPS.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None):
        self.faults = Faults()
        self.requests: list[Request] = []
        self.before: Callable[[Request], None] = lambda request: None
        self.after: Callable[[Request], None] = lambda request: None
        self._lock = threading.Lock()
        self._server = _Server((host, port), self)
        self.port: int = self._server.server_port
        self.url = f"http{'s' if tls else ''}://{host}:{self.port}"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @abstractmethod
    def perform(self, request: Request, *, whole: bool) -> Answer:
        """The effect of a request and its answer. ``whole`` is False if the connection broke within its body."""

    def fault_answer(self, fault: Fault) -> Answer:
        """How the service words an error that was injected."""
        error = {"code": fault.status, "message": "An injected fault.", "errors": [{"reason": "injected"}]}
        return Answer.of({"error": error}, fault.status)

    def note(self, **fields: Any) -> Request:
        with self._lock:
            request = Request(len(self.requests) + 1, **fields)
            self.requests.append(request)
            return request


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], fake: HttpFake) -> None:
        super().__init__(address, _Handler)
        self.fake = fake


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    raw_requestline: bytes
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def _serve(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        headers = {key.lower(): value for key, value in self.headers.items()}
        length = int(headers.get("content-length", 0))
        head = len(self.raw_requestline) + sum(len(key) + len(value) + 4 for key, value in headers.items()) + 2
        request = self.server.fake.note(
            method=self.command,
            path=url.path,
            query=query,
            headers=headers,
            length=length,
            wire_bytes=head + length,
        )
        request.fault = fault = self.server.fake.faults.take(request.line)
        if fault and fault.kind == "drop-middle":
            request.body = self._read(length // 2)
            self.server.fake.perform(request, whole=False)
            self._drop()
            return
        request.body = self._read(length)
        self.server.fake.before(request)
        if fault and fault.kind == "drop-before":
            self._drop()
            return
        refused = fault is not None and fault.kind == "status"
        answer = (
            self.server.fake.fault_answer(fault) if fault and refused else self.server.fake.perform(request, whole=True)
        )
        request.body = b""
        self.server.fake.after(request)
        if fault and fault.kind == "drop-after":
            self._drop()
            return
        request.status = answer.status
        if fault and fault.kind in ("cut-answer", "half-answer") and self.command != "HEAD":
            half = b"".join(answer.body)[: answer.length // 2]
            self._send(replace(answer, body=[half], length=answer.length if fault.kind == "cut-answer" else len(half)))
            self.close_connection = True
            return
        self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _read(self, length: int) -> bytes:
        if not self.server.fake.faults.bandwidth:
            return self.rfile.read(length)
        pieces = []
        while length > 0 and (piece := self.rfile.read(min(length, 16384))):
            pieces.append(piece)
            length -= len(piece)
            time.sleep(len(piece) / self.server.fake.faults.bandwidth)
        return b"".join(pieces)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        if self.command != "HEAD":
            for piece in answer.body:
                self.wfile.write(piece)
        self.wfile.flush()

    def _drop(self) -> None:
        self.close_connection = True
        with_linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # l_onoff 1, l_linger 0: close() sends a reset
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, with_linger)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError, ssl.SSLError):
            self.close_connection = True
