"""Tells the supervisor that training is alive."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from maskfleet.environment import HEARTBEAT_VARIABLE

HEARTBEAT_SECONDS = 1.0
"""Between two heartbeats from a thread."""


def open_heartbeat() -> Callable[[], None]:
    """A function that writes a byte to the supervisor's watchdog, if there is one: training is alive."""
    pipe = os.environ.get(HEARTBEAT_VARIABLE)
    if pipe is None:
        return lambda: None
    descriptor = int(pipe)

    def heartbeat() -> None:
        os.write(descriptor, b".")

    return heartbeat


@contextlib.contextmanager
def beating(heartbeat: Callable[[], None]) -> Iterator[None]:
    """Has a thread beat while something is done that is long and has no steps."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            heartbeat()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
