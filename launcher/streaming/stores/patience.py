"""Waiting for a store that can't be reached: an outage of any length is waited out, and reported while it lasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from launcher.streaming.stores.store import StoreUnavailable
from maskfleet.backoff import pauses

SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds between two attempts while the store can't be reached: the first pause and the longest, at most."""

T = TypeVar("T")


def retry_until_reachable(
    action: Callable[[], T], wait: Callable[[float], bool], failed: Callable[[StoreUnavailable], None]
) -> T:
    """What ``action`` gives once the store can be reached.

    Args:
        wait: lets so many seconds pass; true if the waiting is to end.
        failed: is called with the error of each attempt that failed.

    Raises:
        StoreUnavailable: ``wait`` said so.
    """
    waits = pauses(SHORTEST_PAUSE, LONGEST_PAUSE)
    while True:
        try:
            return action()
        except StoreUnavailable as error:
            failed(error)
            if wait(next(waits)):
                raise
