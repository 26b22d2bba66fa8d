"""What another process prints, line by line. Imports no TensorFlow."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
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


def die_with_parent() -> None:
    """Has the kernel end this process when its parent dies, so that no ending leaves an orphan (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


_PR_SET_PDEATHSIG = 1


def _drain_with_parent() -> None:
    """Runs in the child: SIGTERM reaches it when the launcher dies, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def report_line(line: str) -> None:
    """Prints a line so that whoever reads this process's output has it at once."""
    print(line, flush=True)
