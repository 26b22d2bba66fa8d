"""What another process prints, line by line. Imports no TensorFlow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The lines of ``stream`` to its end, each with its newline if it has one.

    A line that is longer than the stream's buffer comes in pieces: a stream iterated by itself raises ValueError then,
    and nobody would read on.
    """
    while True:
        try:
            line = await stream.readuntil(b"\n")
        except asyncio.LimitOverrunError as overrun:
            line = await stream.readexactly(overrun.consumed)
        except asyncio.IncompleteReadError as end:
            line = end.partial
        if not line:
            return
        yield line
