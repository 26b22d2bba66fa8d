"""This process's standard input, output and terminal, passed through to a command in a pod."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Callable, Iterator

from launcher.cluster.pod_command import STDERR, PodCommand

_PIECE = 1 << 15
_MOST_UNSENT = 1 << 18
"""Bytes; of more, nothing is read from standard input."""
_SECONDS_TO_CLOSE = 2.0
"""For the server to hang up, once it has told how the command ended."""


def is_terminal() -> bool:
    """Whether a command can have this process's terminal: one is at both ends."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def pass_through(command: PodCommand, *, terminal: bool, report_line: Callable[[str], object]) -> int:
    """Passes everything between this process and ``command`` until that has ended; returns its exit code.

    With ``terminal`` keys go there as they are pressed, Ctrl-C too, and it learns the terminal's size; afterwards the
    terminal is as before.

    Raises:
        MaskfleetError: the command could not be started, or the connection broke off.
        BrokenPipeError: nobody reads this process's output any more.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(command.close)
        resized = stack.enter_context(_sizes(command)) if terminal else None
        if terminal:
            stack.enter_context(_raw_terminal())
        _pump(command, resized, report_line)
        return command.exit_code()


def _pump(command: PodCommand, resized: socket.socket | None, report_line: Callable[[str], object]) -> None:
    source = _stdin()
    if source is None:
        command.end_input()
    came = True
    while command.is_open:
        reads: list[PodCommand | socket.socket | int] = [command, *([] if resized is None else [resized])]
        if source is not None and command.unsent < _MOST_UNSENT:
            reads.append(source)
        # What TLS has decrypted already does not show at the socket: as long as something comes, there may be more.
        wait = 0.0 if came else _SECONDS_TO_CLOSE if command.has_ended else None
        ready, _, _ = select.select(reads, [command] if command.unsent else [], [], wait)
        if not ready and not came and command.has_ended:
            return
        if resized in ready and resized is not None:
            resized.recv(_PIECE)
            command.resize(*os.get_terminal_size(sys.stdout.fileno()))
        if source in ready and source is not None:
            piece = os.read(source, _PIECE)
            if piece:
                command.write(piece)
            else:
                source = None
                command.end_input()
                if not command.takes_end_of_input:
                    report_line("this API server can't pass on the end of standard input: a command may wait for more")
        command.flush()
        came = False
        for channel, data in command.receive():
            came = True
            _write(sys.stderr.fileno() if channel == STDERR else sys.stdout.fileno(), data)


def _stdin() -> int | None:
    """The descriptor of standard input; None if there is none."""
    try:
        os.fstat(0)
    except OSError:
        return None
    return 0


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Whatever ends this process, but for SIGKILL, leaves the terminal as it was."""
    before = termios.tcgetattr(0)
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _sizes(command: PodCommand) -> Iterator[socket.socket]:
    """Tells the command the terminal's size; what is yielded has something to read when it changes."""
    command.resize(*os.get_terminal_size(sys.stdout.fileno()))
    told, teller = socket.socketpair()
    with told, teller:
        teller.setblocking(False)
        before = signal.signal(signal.SIGWINCH, lambda *_: None)
        woken = signal.set_wakeup_fd(teller.fileno(), warn_on_full_buffer=False)
        try:
            yield told
        finally:
            signal.set_wakeup_fd(woken)
            signal.signal(signal.SIGWINCH, before)
