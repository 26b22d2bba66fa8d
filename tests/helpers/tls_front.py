"""Google's own host names on the loopback interface, for clients whose endpoint can't be set.

TensorFlow's gs:// file system always talks to https://storage.googleapis.com and https://www.googleapis.com. It does
honour a proxy and a bundle of certificates: the proxy here leads every connection to one local port.
"""

from __future__ import annotations

import socket
import socketserver
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a new certificate for Google's names, and the file of that certificate."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    names = "subjectAltName=DNS:storage.googleapis.com,DNS:www.googleapis.com"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(cert), "-addext", names], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert


class Tunnel:
    """A proxy that answers every CONNECT with a connection to ``port`` on this machine; a context manager."""

    def __init__(self, port: int):
        target = port

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while self.rfile.readline().strip():
                    pass
                with socket.create_connection(("127.0.0.1", target)) as upstream:
                    self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    back = threading.Thread(target=_pump, args=(upstream, self.connection), daemon=True)
                    back.start()
                    _pump(self.connection, upstream)
                    back.join()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Tunnel:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
