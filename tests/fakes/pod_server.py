"""An API server with one job of one pod, whose commands really run: here, with the streams of this machine's processes.

Its websocket is as awkward as a real one may be: what a command prints comes in fragments, with pings between them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import json
import os
import pty
import signal
import ssl
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websocket import ABNF

from launcher.job.manifests import manifests
from launcher.job.training_job import TrainingJob
from tests.fakes.cluster import CREATED, worker_pod

REFUSED = (
    "Internal error occurred: Internal error occurred: error executing command in container: failed to exec in "
    'container:\n failed to start exec "75630cee163a865b": OCI runtime exec failed: exec failed: unable to start '
    "container process: exec: "
)
"""As containerd and runc say it of a command that is not there."""
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"


class PodServer(ThreadingHTTPServer):
    """A context manager. ``protocol`` is the newest that it speaks; ``refusal`` answers instead of a websocket.

    ``breaks_off`` has it hang up when a command prints something. ``believed`` is the token that it accepts, over TLS.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.protocol = V5
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.breaks_off = False
        self.believed = "secret"
        self.asked: list[dict[str, list[str]]] = []
        self.headers: list[dict[str, str]] = []
        self.pods = [worker_pod(0)]
        self.job = manifests(TrainingJob(name="pets", workers=2))[0]
        self.job["metadata"] |= {"creationTimestamp": CREATED, "namespace": "team", "uid": "1"}
        self.job["spec"]["suspend"] = False

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def kubeconfig(self, file: Path, url: str = "", **user: Any) -> Path:
        """Writes one for this server, or for what stands before it at ``url``."""
        cluster = {"server": url or f"http://127.0.0.1:{self.server_port}", "insecure-skip-tls-verify": bool(url)}
        file.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": "secret", **user}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        }))  # fmt: skip
        return file


@contextlib.contextmanager
def tls_before(server: PodServer, context: ssl.SSLContext) -> Iterator[str]:
    """The address of a server that speaks TLS and passes all on to ``server``."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server.server_port)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PodServer

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        name = parts.path.rpartition("/")[2]
        self.server.headers.append({key.title(): value for key, value in self.headers.items()})
        if self.headers["Authorization"] not in (None, f"Bearer {self.server.believed}"):
            self._answer(401, {"kind": "Status", "reason": "Unauthorized", "message": "Unauthorized"})
        elif name == "exec":
            self.server.asked.append(parse_qs(parts.query))
            self._exec(self.server.asked[-1])
        elif name == "portforward":
            if self._upgraded():
                _forward(self, int(parse_qs(parts.query)["ports"][0]))
        elif name == "pets":
            self._answer(200, {"kind": "Job", **self.server.job})
        elif name in ("pods", "events"):
            self._answer(200, {"kind": "List", "metadata": {}, "items": self.server.pods if name == "pods" else []})
        else:
            self._answer(403, {"kind": "Status", "reason": "Forbidden", "message": f"{name} may not be seen"})

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _exec(self, query: dict[str, list[str]]) -> None:
        if self._upgraded():
            _Session(self, query).run()

    def _upgraded(self) -> bool:
        """Whether this is a websocket now; else what refuses it has been answered."""
        self.close_connection = True
        if self.server.refusal is not None:
            self._answer(*self.server.refusal)
            return False
        offered = self.headers["Sec-WebSocket-Protocol"].split(",")
        protocol = next(each for each in (self.server.protocol, V4) if each in offered)
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        for header in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept),
                       ("Sec-WebSocket-Protocol", protocol)):  # fmt: skip
            self.send_header(*header)
        self.end_headers()
        self.wfile.flush()
        return True


def _forward(handler: _Handler, port: int) -> None:
    """Has the port give back what it gets, in upper case."""

    def send(channel: int, data: bytes) -> None:
        handler.connection.sendall(ABNF(1, 0, 0, 0, ABNF.OPCODE_BINARY, 0, bytes([channel]) + data).format())

    for channel in (0, 1):
        send(channel, struct.pack("<H", port))
    while message := _receive(handler):
        send(0, message[1:].upper())


class _Session:
    def __init__(self, handler: _Handler, query: dict[str, list[str]]) -> None:
        self._handler = handler
        self._query = query
        self._sending = threading.Lock()
        self._terminal: int | None = None

    def run(self) -> None:
        tty = self._query.get("tty") == ["true"]
        readers = []
        try:
            if tty:
                self._terminal, theirs = pty.openpty()
                process = subprocess.Popen(self._query["command"], stdin=theirs, stdout=theirs, stderr=theirs,
                                           start_new_session=True, preexec_fn=_take_terminal)  # fmt: skip
                os.close(theirs)
                self._stdin, outputs = self._terminal, [(1, self._terminal)]
            else:
                pipe = subprocess.PIPE
                process = subprocess.Popen(self._query["command"], stdin=pipe, stdout=pipe, stderr=pipe)
                assert process.stdin is not None
                assert process.stdout is not None
                assert process.stderr is not None
                self._stdin, outputs = (
                    process.stdin.fileno(),
                    [(1, process.stdout.fileno()), (2, process.stderr.fileno())],
                )
        except OSError:
            said = f"{REFUSED}{json.dumps(self._query['command'][0])}: executable file not found in $PATH"
            self._end({"status": "Failure", "reason": "InternalError", "message": said})
            return
        readers = [threading.Thread(target=self._read, args=output) for output in outputs]
        for reader in readers:
            reader.start()

        def wait() -> None:
            for reader in readers:
                reader.join()
            code = process.wait()
            code = code if code >= 0 else 128 - code
            causes = {"causes": [{"reason": "ExitCode", "message": str(code)}]}
            self._end({"status": "Failure", "reason": "NonZeroExitCode", "details": causes} if code else
                      {"status": "Success"})  # fmt: skip

        threading.Thread(target=wait).start()
        with contextlib.suppress(OSError, ValueError):
            while message := _receive(self._handler):
                self._obey(message[0], message[1:])
        with contextlib.suppress(OSError):
            process.send_signal(signal.SIGHUP)

    def _obey(self, channel: int, data: bytes) -> None:
        if channel == 0:
            with contextlib.suppress(OSError):  # it reads no more
                while data:
                    data = data[os.write(self._stdin, data) :]
        elif channel == 255 and data == b"\0":
            os.close(self._stdin)
        elif channel == 4 and self._terminal is not None:
            size = json.loads(data)
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size["Height"], size["Width"], 0, 0))

    def _read(self, channel: int, source: int) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(source, 1 << 16):
                if self._handler.server.breaks_off:
                    self._handler.connection.shutdown(2)
                half = len(data) // 2
                self._send(ABNF(0, 0, 0, 0, ABNF.OPCODE_BINARY, 0, bytes([channel]) + data[:half]),
                           ABNF(1, 0, 0, 0, ABNF.OPCODE_PING, 0, b"there?"),
                           ABNF(1, 0, 0, 0, ABNF.OPCODE_CONT, 0, data[half:]))  # fmt: skip

    def _end(self, status: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._send(ABNF(1, 0, 0, 0, ABNF.OPCODE_BINARY, 0, b"\3" + json.dumps(status).encode()))
            self._send(ABNF(1, 0, 0, 0, ABNF.OPCODE_CLOSE, 0, struct.pack("!H", 1000)))
            self._handler.connection.shutdown(2)

    def _send(self, *frames: ABNF) -> None:
        with self._sending:
            for frame in frames:
                self._handler.connection.sendall(frame.format())


def _receive(handler: _Handler) -> bytes:
    """The client's next message that is neither ping nor pong; empty at the end. Clients mask what they send."""
    while True:
        head = handler.rfile.read(2)
        if len(head) < 2 or head[0] & 15 == ABNF.OPCODE_CLOSE:
            return b""
        length = head[1] & 127
        if length >= 126:
            length = int.from_bytes(handler.rfile.read(2 if length == 126 else 8), "big")
        mask, data = handler.rfile.read(4), handler.rfile.read(length)
        if head[0] & 15 == ABNF.OPCODE_BINARY:
            return bytes(ABNF.mask(mask, data))


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
