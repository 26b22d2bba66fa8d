"""Knocks at ports in every way that needs no token: ``python -m tests.helpers.strangers HOST PORT …``."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

PAUSE = 0.1
"""Between two knocks of one kind, seconds: what a machine of two cores bears beside a training."""
HELD = 200
"""Half-open connections at each port; more than a rendezvous waits for."""


def random_bytes(connection: socket.socket) -> None:
    connection.sendall(os.urandom(4096))


def oversized_line(connection: socket.socket) -> None:
    for _ in range(4):
        connection.sendall(b"x" * (1 << 16))


def end_of_the_run(connection: socket.socket) -> None:
    """What a worker would say, without having proven that it is one."""
    for worker in range(2):
        said = {"is": "ended", "worker": worker, "attempt": 1, "code": 0, "reason": "y" * 1000}
        connection.sendall(json.dumps(said).encode() + b"\n")


def guessed_proof(connection: socket.socket) -> None:
    said = {"worker": 1, "nonce": "n", "proof": "0" * 64}
    connection.sendall(json.dumps(said).encode() + b"\n" + json.dumps({"is": "ready"}).encode() + b"\n")
    connection.recv(4096)
    connection.recv(4096)


def http2_preface(connection: socket.socket) -> None:
    """What a client of gRPC begins with (RFC 9113), and then a frame of a length that it does not send."""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000ffffff000000000001"))


KNOCKS: tuple[Callable[[socket.socket], None], ...] = (
    random_bytes, oversized_line, end_of_the_run, guessed_proof, http2_preface,
)  # fmt: skip


def knock(address: tuple[str, int], way: Callable[[socket.socket], None]) -> None:
    while True:
        with contextlib.suppress(OSError), socket.create_connection(address, 1) as connection:
            connection.settimeout(1)
            way(connection)
        time.sleep(PAUSE)


def hold(address: tuple[str, int]) -> None:
    held: list[socket.socket] = []
    while True:
        with contextlib.suppress(OSError):
            held.append(socket.create_connection(address, 1))
        if len(held) > HELD:
            held.pop(0).close()
        time.sleep(PAUSE)


def main(host: str, ports: list[int]) -> None:
    for address in [(host, port) for port in ports]:
        for way in KNOCKS:
            threading.Thread(target=knock, args=(address, way), daemon=True).start()
        threading.Thread(target=hold, args=(address,), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], [int(port) for port in sys.argv[2:]])
