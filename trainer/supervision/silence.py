"""A connection to a machine that is gone ends: nothing there says so, and Linux would wait for a quarter of an hour."""

from __future__ import annotations

import asyncio
import contextlib
import socket

SILENCE_SECONDS = 30
"""Of the other side's kernel, after which it is taken for gone; a process that is frozen has one that answers."""


def end_when_silent(writer: asyncio.StreamWriter) -> None:
    """Has the kernel ask the other side again and again, and end the connection when it does not answer.

    Reading from it fails with OSError then. What a system does not know is left as it is there.
    """
    connection = writer.get_extra_info("socket")
    options = {
        "TCP_KEEPIDLE": max(1, SILENCE_SECONDS // 3),
        "TCP_KEEPINTVL": max(1, SILENCE_SECONDS // 6),
        "TCP_KEEPCNT": 4,
        "TCP_USER_TIMEOUT": SILENCE_SECONDS * 1000,  # of what was sent: then no question is asked
    }
    with contextlib.suppress(OSError):  # who reads next finds out that the connection is lost
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if (option := getattr(socket, name, None)) is not None:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
