"""How a parent and a child process go together: lines, logs, and what the end of one means for the other."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable

from maskfleet.log_lines import OneLine
from maskfleet.sentences import LOG_FORMAT
from maskfleet.text import printable


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


def send_signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To a child process, unless it has ended.

    Not by the method that it has for this: that collects the exit code of a child which has just ended, and asyncio,
    which finds none any more, says 255.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def end_with_parent(number: signal.Signals, also: Callable[[], None] | None = None) -> Callable[[], None] | None:
    """For ``preexec_fn``: has the kernel send the child this signal when its parent dies, however that happens.

    The parent is the thread that makes the child, so that has to live as long as the process. None off Linux, which has
    no such thing. The library is loaded before the fork: what runs between fork and exec in a process with threads must
    take no lock, and neither call does. ``also`` is done after it, under the same condition.
    """
    if sys.platform != "linux":
        return None
    prctl, pr_set_pdeathsig, parent = ctypes.CDLL(None).prctl, 1, os.getpid()

    def ask() -> None:
        prctl(pr_set_pdeathsig, int(number))
        if os.getppid() != parent:  # it has died before the kernel was asked
            os.kill(os.getpid(), number)
        if also is not None:
            also()

    return ask


def signal_name(code: int) -> str:
    """Of the signal that has killed a process, by its negative exit code. Most real-time signals have numbers alone."""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def set_up_logging() -> None:
    """The log of a process without a terminal of its own: the launcher's lines, and of libraries what is amiss."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(LOG_FORMAT))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("launcher").setLevel(logging.INFO)


def report_line(line: str) -> None:
    """Prints a line, whoever's names are in it, so that whoever reads this process's output has it at once."""
    print(printable(line).replace("\n", "\\n"), flush=True)
