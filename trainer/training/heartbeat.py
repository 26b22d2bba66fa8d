"""Tells the supervisor that training is alive."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from maskfleet.environment import HEARTBEAT_VARIABLE

HEARTBEAT_SECONDS = 1.0
"""Between two heartbeats from a thread."""


def _heartbeat() -> Callable[[], None]:
    """Tells the supervisor, if there is one, that training gets on."""
    pipe = os.environ.get(HEARTBEAT_VARIABLE)
    if pipe is None:
        return lambda: None
    descriptor = int(pipe)

    def get_on() -> None:
        os.write(descriptor, b".")

    return get_on


@contextlib.contextmanager
def _getting_on(get_on: Callable[[], None]) -> Iterator[None]:
    """Has a thread say so for as long as something is done that is long and has no steps to be told."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            get_on()

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
