"""A local port that leads to a port of a pod."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

from launcher.cluster.namespace import Namespace
from maskfleet.command_line import echo_line
from maskfleet.errors import BadSettings, MaskfleetError

_PIECE = 1 << 16


LOCALHOST = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """Raises BadSettings if somebody else listens there."""
    try:
        return socket.create_server((LOCALHOST, port))
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise BadSettings(f"--port {port}: {why}; choose another, or 0 for any that is free") from error


def forward(pod: str, cluster: Namespace, port: int, report_line: Callable[[str], None]) -> None:
    """Passes connections to ``port`` of this machine on to the pod, until Ctrl-C."""
    with listen(port) as server:
        report_line(f"http://127.0.0.1:{server.getsockname()[1]}")
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_serve, args=(connection, pod, cluster), daemon=True).start()


def _serve(connection: socket.socket, pod: str, cluster: Namespace) -> None:
    with connection:
        try:
            remote = cluster.connect_to_pod(pod, 6006)
        except (OSError, MaskfleetError) as error:
            echo_line(f"a connection to {pod} failed: {error}")
            return
        with contextlib.suppress(OSError), contextlib.closing(remote):
            threading.Thread(target=_copy, args=(connection, remote), daemon=True).start()
            _copy(remote, connection)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
