"""What could not be copied at the last attempt, and when the next one is due: one bad file holds up no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from launcher.streaming.stores import patience
from launcher.streaming.stores.store import Changed, ContentDiffers, StoreRefused
from maskfleet.backoff import pauses
from maskfleet.errors import MaskfleetError
from maskfleet.plain_files import words

LONGEST_PAUSE = 8.0
"""Seconds between two attempts at what is refused; less than a short grace, so that it gets a last one."""


@dataclass(frozen=True)
class _Refusal:
    error: MaskfleetError | OSError
    waits: Iterator[float]
    not_before: float


def is_permanent(error: Exception) -> bool:
    """Whether somebody has to mend something first, by all that is known."""
    return isinstance(error, StoreRefused | OSError)


def told(error: Exception) -> str:
    """An error in one line."""
    return words(error) if isinstance(error, OSError) else str(error)


class Refusals:
    """The files, checkpoints and so on whose last attempt was refused, by the store or by this disk.

    Args:
        count: is told of each error, and whether the attempt before ended with the same one.
    """

    def __init__(self, count: Callable[[MaskfleetError | OSError, bool], None]):
        self._count = count
        self._refusals: dict[str, _Refusal] = {}

    def attempt(self, what: str, action: Callable[[], int | None]) -> int:
        """What ``action`` gives, the bytes that it sent; 0 if it is refused, or was so a moment ago.

        Raises:
            StoreUnavailable, Conflict: what hinders this one hinders all.
        """
        before = self._refusals.get(what)
        if before is not None and time.monotonic() < before.not_before:
            return 0
        try:
            sent = action() or 0
        except (StoreRefused, Changed, ContentDiffers, OSError) as error:
            waits = pauses(patience.SHORTEST_PAUSE, LONGEST_PAUSE) if before is None else before.waits
            self._refusals[what] = _Refusal(error, waits, time.monotonic() + next(waits))
            self._count(error, before is not None and str(before.error) == str(error))
            return 0
        self._refusals.pop(what, None)
        return sent

    def error(self, what: str) -> MaskfleetError | OSError | None:
        """How the last attempt ended; None if it was not refused."""
        return self._refusals[what].error if what in self._refusals else None

    def forget(self, what: str) -> None:
        self._refusals.pop(what, None)

    def lines(self) -> list[str]:
        """A line for each: what, and why."""
        return [f"{what}: {told(refusal.error)}" for what, refusal in list(self._refusals.items())]
