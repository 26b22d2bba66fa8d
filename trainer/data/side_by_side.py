"""Examples read by several threads, as many as memory allows. Imports no TensorFlow."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from trainer.cgroup import cpu_limit

_PIXELS_AT_ONCE = 100_000_000
"""Of pictures that are in memory at the same time, some 10 bytes each. A larger one is read alone."""

_Result = TypeVar("_Result")


def side_by_side(
    work: Callable[[int], _Result], count: int, pixels: Callable[[int], int], at_once: int = _PIXELS_AT_ONCE
) -> Iterator[_Result]:
    """``work(0)``, ``work(1)`` … in this order, by as many threads as there are CPUs.

    Args:
        pixels: of the picture that ``work(i)`` reads, known before; threads wait while there are too many together.
    """
    budget = _Budget(at_once)

    def bounded(i: int) -> _Result:
        with budget.taken(pixels(i)):
            return work(i)

    threads = ThreadPoolExecutor(cpu_limit())
    try:
        yield from threads.map(bounded, range(count))
    finally:
        threads.shutdown(cancel_futures=True)


def in_groups(count: int, pixels: Callable[[int], int], most: int, at_once: int) -> Iterator[range]:
    """0 to ``count`` - 1 in their order, as many together as have ``at_once`` pixels, at least 1 and at most ``most``.

    Args:
        pixels: of picture i.
    """
    start = 0
    while start < count:
        end, left = start + 1, at_once - pixels(start)
        while end < min(start + most, count) and (left := left - pixels(end)) >= 0:
            end += 1
        yield range(start, end)
        start = end


class _Budget:
    """What threads may take of, together."""

    def __init__(self, amount: int) -> None:
        self._amount = self._free = amount
        self._changed = threading.Condition()
        self._waiting = itertools.count()
        self._next = 0

    @contextlib.contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Waits until so much is free; of more than there is, until nobody else has any. First come, first served."""
        amount = min(amount, self._amount)
        with self._changed:
            turn = next(self._waiting)
            self._changed.wait_for(lambda: self._next == turn and self._free >= amount)
            self._next += 1
            self._free -= amount
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()
