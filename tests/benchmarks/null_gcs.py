"""As much of Google Cloud Storage as an upload needs, which forgets every byte: a sink that is not the bottleneck.

A checksum that the client announces is believed; of what comes without one it is computed.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from urllib.parse import parse_qs, urlsplit

import google_crc32c

PIECE = 1 << 20


class Upload:
    """What is left of an object: its name, size and checksum. ``announced`` is the client's word for the checksum."""

    def __init__(self, name: str, announced: str | None):
        self.name, self.announced, self.size, self.crc = name, announced, 0, 0

    def add(self, content: bytes | memoryview) -> None:
        self.size += len(content)
        if self.announced is None:
            self.crc = google_crc32c.extend(self.crc, bytes(content))

    def resource(self) -> bytes:
        crc = self.announced or base64.b64encode(self.crc.to_bytes(4, "big")).decode()
        times = {"updated": "2024-01-01T00:00:00.000Z", "timeCreated": "2024-01-01T00:00:00.000Z"}
        names = {"name": self.name, "bucket": "bucket", "generation": "1", "metageneration": "1"}
        return json.dumps({"kind": "storage#object", "size": str(self.size), "crc32c": crc, **names, **times}).encode()


class NullHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    uploads: dict[str, Upload] = {}  # noqa: RUF012
    lock = threading.Lock()

    def setup(self) -> None:
        super().setup()
        self.buffer = bytearray(PIECE)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.endswith("/o"):
            self.answer(200, b'{"kind": "storage#objects"}')
        elif "/o/" in path:
            self.answer(404, b'{"error": {"code": 404, "message": "No such object"}}')
        else:
            self.answer(200, b'{"kind": "storage#bucket", "name": "bucket", "metageneration": "1", "location": "US"}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        query = parse_qs(urlsplit(self.path).query)
        found = re.search(rb'"name": ?"([^"]+)"', body[:4096])
        announced = re.search(rb'"crc32c": ?"([^"]+)"', body[:4096])
        upload = Upload(found[1].decode() if found else query["name"][0], announced[1].decode() if announced else None)
        if query["uploadType"] == ["resumable"]:
            with self.lock:
                number = str(len(self.uploads))
                self.uploads[number] = upload
            host = f"http://{self.headers['Host']}"
            self.answer(200, b"", Location=f"{host}/upload?uploadType=resumable&upload_id={number}")
            return
        content = re.split(rb"\r?\n\r?\n", body, maxsplit=2)[2]  # gcloud separates parts by bare newlines
        content = re.sub(rb"\r?\n--[^\n]+--\s*\Z", b"", content)
        upload.add(content)
        self.answer(200, upload.resource())

    def do_PUT(self) -> None:
        upload = self.uploads[parse_qs(urlsplit(self.path).query)["upload_id"][0]]
        left = int(self.headers["Content-Length"])
        buffer = memoryview(self.buffer)
        while left and (count := self.rfile.readinto(buffer[: min(left, PIECE)])):
            upload.add(buffer[:count])
            left -= count
        total = self.headers["Content-Range"].rpartition("/")[2]
        if total == str(upload.size):
            self.answer(200, upload.resource())
        else:
            self.answer(308, b"", Range=f"bytes=0-{upload.size - 1}")

    def do_DELETE(self) -> None:
        self.answer(204, b"")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve_null_gcs(ready: Connection) -> None:
    """Runs the server in this process; sends its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), NullHandler)
    ready.send(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()


def serve_null_tcp(ready: Connection) -> None:
    """Reads and forgets whatever is sent to it over one connection after the other."""
    server = socket.create_server(("127.0.0.1", 0))
    ready.send(server.getsockname())
    buffer = bytearray(PIECE)
    while True:
        connection, _ = server.accept()
        with connection:
            while connection.recv_into(buffer):
                pass
            connection.sendall(b"x")
