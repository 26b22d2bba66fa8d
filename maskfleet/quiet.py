"""Keeps TensorFlow's own start-up lines, and the warnings of libraries, out of what a user reads.

TensorFlow notes which processor it has and which of CUDA's libraries it lacks before absl's logging is set up, and no
variable of its own silences all of it. So the lines are left out by whoever passes them on: the supervisor for a
training process, a process of its own for a command that uses TensorFlow itself. Errors of TensorFlow are passed on.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import signal
import sys
import warnings
from typing import TextIO

from maskfleet.environment import is_debugging

LEVEL_VARIABLE, ERRORS_ONLY = "TF_CPP_MIN_LOG_LEVEL", "2"
"""TensorFlow's own variable, which silences what comes after its start."""

_STARTUP_LINE = re.compile(
    rb"""
    WARNING:\ All\ log\ messages\ before\ absl::InitializeLog
    | WARNING:(absl|tensorflow):                                # for who calls Keras and TensorFlow
    | [IW]\d{4}\ [\d:.]+\s+\d+\ [^\s\]]+:\d+\]                  # I0000 00:00:1795704252.222724    7475 port.cc:153]
    | \d{4}-\d\d-\d\d\ [\d:.]+:\ [IW]\ \S+:\d+\]                # 2026-11-26 09:15:00.123456: I tensorflow/port.cc:153]
    | (E\d{4}\ [\d:.]+\s+\d+|\d{4}-\d\d-\d\d\ [\d:.]+:\ E)\ \S+\]\ (
        Unable\ to\ register\ cu\w+\ factory                    # the same library was linked twice
        | failed\ call\ to\ cuInit                              # there is no GPU
      )
    | INFO:\ Created\ TensorFlow\ Lite\                         # LiteRT's
    # Second lines of the notes above.
    | To\ enable\ the\ following\ instructions:
    | Skipping\ registering\ GPU\ devices
    """,
    re.VERBOSE,
)


def is_startup_line(line: bytes) -> bool:
    """Whether ``line`` is one that TensorFlow writes about itself when it starts; none is to who looks for a fault."""
    return not is_debugging() and _STARTUP_LINE.match(line) is not None


def leave_out_warnings() -> None:
    """From now on, leaves out what libraries warn of: it is for who calls them, and what users need is said by us.

    Some warn by logging, as Matplotlib of a home that it can't write to; our own lines are passed on.
    """
    if is_debugging():
        return
    if not sys.warnoptions:
        warnings.showwarning = lambda *_, **__: None
    if logging.lastResort is not None:
        logging.lastResort.addFilter(_is_ours_or_an_error)


def _is_ours_or_an_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or record.name.partition(".")[0] == "launcher"


def quiet_stderr() -> TextIO:
    """From now on, leaves TensorFlow's start-up lines out of this process's standard error.

    A child of this process reads what is written there, also by C++, and passes the rest on, until this process has
    ended. To be called before any thread is started.

    Returns:
        Standard error itself, past that child: for a progress bar, which needs the terminal if it is one.
    """
    if is_debugging() or not hasattr(os, "fork"):
        return sys.stderr
    os.environ.setdefault(LEVEL_VARIABLE, ERRORS_ONLY)
    sys.stderr.flush()
    terminal = os.dup(2)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(writing)
        _pass_on(reading, terminal)
        os._exit(0)
    os.close(reading)
    os.dup2(writing, 2)
    os.close(writing)

    def go_on_without(*_: object) -> None:
        """If the child is the one that has ended: it was killed, and what is written now shall not be lost with it."""
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG) != (0, 0):
                os.dup2(terminal, 2)

    def wait_for_the_last_line() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sys.stderr.flush()
        os.dup2(terminal, 2)
        with contextlib.suppress(ChildProcessError):  # it was killed
            os.waitpid(child, 0)

    signal.signal(signal.SIGCHLD, go_on_without)
    signal.siginterrupt(signal.SIGCHLD, False)  # nobody else's system call shall fail for it
    atexit.register(wait_for_the_last_line)
    return open(terminal, "w", encoding=sys.stderr.encoding, errors=sys.stderr.errors, closefd=False)


def _pass_on(reading: int, writing: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends when its parent does
        signal.signal(number, signal.SIG_IGN)
    with open(reading, "rb") as lines, open(writing, "wb", buffering=0) as terminal:
        for line in lines:
            if not is_startup_line(line):
                with contextlib.suppress(OSError):  # nobody reads it any more; the parent goes on all the same
                    terminal.write(line)
