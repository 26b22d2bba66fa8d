"""Reads the batches of coming steps while the network trains on earlier ones.

How far ahead follows from what was measured: as many steps as are taken while an example is on its way, twice over,
as far as memory allows. The time that it waits for those asked for before it does not count: reading further ahead
makes that longer, not shorter. Imports no TensorFlow.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait

import numpy as np
from numpy.typing import NDArray

from maskfleet.child_processes import report_line
from trainer.data.moving_average import MovingAverage
from trainer.data.stream import Pair, Stream

_FIRST_DEPTH = 4
"""Steps ahead before anything is measured."""
_MOST_BYTES = 256 << 20
"""Of all that is read ahead."""
_WEIGHT = 0.1
"""Of the newest interval between two batches in their moving average."""
_HEARTBEAT_SECONDS, _REPORT_SECONDS = 1.0, 10.0


class ReadAhead:
    """The batches ``first`` to ``last`` - 1 of a stream; each is taken once, in about this order, by several threads.

    Args:
        examples: of a range of batches, int (batches, examples each) or, of the last one, fewer; called in order.
    """

    def __init__(self, stream: Stream, examples: Callable[[range], Iterable[Iterable[int]]], first: int, last: int):
        self._stream, self._examples = stream, examples
        self._next, self._first, self._last = first, first, last
        self._pending: dict[int, list[Future[Pair]]] = {}
        self._changed = threading.Condition()
        self._taken = first
        self._failed = False
        self._interval = MovingAverage(_WEIGHT)
        self._taken_at: float | None = None
        self._depth = _FIRST_DEPTH

    @property
    def depth(self) -> int:
        """Batches that are read ahead of the one that is taken."""
        return self._depth

    def take(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Images and masks of batch ``number``, for which it waits; a line every ten seconds says what for.

        Raises:
            BadData: as the stream.
        """
        with self._changed:
            self._submit(number + self._depth)
            futures = self._pending.pop(number)
        try:
            self._wait_for(futures)
            batch = self._stream.stacked([future.result() for future in futures])
        except BaseException:
            with self._changed:
                self._failed = True
                self._changed.notify_all()
            raise
        with self._changed:
            self._taken = max(self._taken, number + 1)
            self._adapt(sum(part.nbytes for part in batch))
            self._changed.notify_all()
        return batch

    def wait(self, number: int, is_over: Callable[[], bool] = lambda: False) -> float | None:
        """Waits until batch ``number`` is taken; returns the seconds, or None if ``is_over`` says so before.

        Of the first one none: nothing is taken until the pipeline is asked for it.
        """
        if number <= self._first:
            return 0.0
        began = time.monotonic()
        with self._changed:
            while not self._changed.wait_for(lambda: self._taken > number or self._failed, _HEARTBEAT_SECONDS):
                if is_over():
                    return None
        return time.monotonic() - began

    def _submit(self, end: int) -> None:
        end = min(end + 1, self._last)
        if self._next >= end:
            return
        numbers = range(self._next, end)
        for number, examples in zip(numbers, self._examples(numbers), strict=True):
            self._pending[number] = [self._stream.submit(int(i)) for i in examples]
        self._next = end

    def _adapt(self, size: int) -> None:
        now = time.monotonic()
        if self._taken_at is not None:
            self._interval.add(now - self._taken_at)
            wanted = 2 + math.ceil(2 * self._stream.reader.latency / max(self._interval.value, 1e-6))
            self._depth = max(2, min(wanted, _MOST_BYTES // max(1, size)))
        self._taken_at = now

    def _wait_for(self, futures: Sequence[Future[Pair]]) -> None:
        began = told = time.monotonic()
        reader = self._stream.reader
        while missing := wait(futures, _HEARTBEAT_SECONDS).not_done:
            reader.heartbeat()
            now = time.monotonic()
            if now - told > _REPORT_SECONDS:
                told = now
                report_line(
                    f"waits for data for {now - began:.0f} s: {len(missing)} of {len(futures)} examples are still to "
                    f"come from {reader.bucket.url}" + (f": {reader.problem}" if reader.problem else "")
                )
