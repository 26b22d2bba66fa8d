"""Waiting for a store that can't be reached: an outage of any length is waited out, and reported while it lasts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from launcher.streaming.stores.store import StoreUnavailable
from maskfleet.backoff import pauses

SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds between two attempts while the store can't be reached: the first pause and the longest, at most."""

READ_SECONDS = 30.0
"""For which one reading is tried again before it counts as an outage."""

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


def retry_reading(read: Callable[[], T], on_retry: Callable[[Exception], None]) -> T:
    """What ``read`` gives; an answer that is cut short, or a hiccup, is no reason to begin all anew.

    Raises:
        StoreUnavailable: it does not get better within READ_SECONDS.
    """
    ends = time.monotonic() + READ_SECONDS

    def wait(seconds: float) -> bool:
        if time.monotonic() + seconds >= ends:
            return True
        time.sleep(seconds)
        return False

    return retry_until_reachable(read, wait, on_retry)
