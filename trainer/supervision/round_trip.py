"""How long the network takes to the other side of a connection and back, by the kernel's clock.

An answer of the process there says less: it is late as well where a CPU is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys

_INFO_BYTES, _RTT = 104, 68
"""Of Linux's ``struct tcp_info``, and of it before ``tcpi_rtt``: microseconds, a moving average."""


def acknowledge_at_once(writer: asyncio.StreamWriter) -> None:
    """Has the kernel acknowledge what comes next by itself, not with the answer; it forgets that at each answer."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # who reads next finds out that the connection is lost
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def round_trip(writer: asyncio.StreamWriter) -> float | None:
    """Seconds until what is sent is acknowledged; None where the kernel does not tell, or the connection is lost."""
    if sys.platform != "linux":
        return None
    try:
        info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return None
    microseconds: int = struct.unpack_from("I", info, _RTT)[0]
    return microseconds / 1e6
