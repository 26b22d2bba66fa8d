"""Pictures worked on by several threads, as many as memory allows. Imports no TensorFlow."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

from trainer.cgroup import cpu_limit

_PIXELS_AT_ONCE = 100_000_000
"""Of pictures that are in memory at the same time, some 10 bytes each. A larger one is read alone."""

_Begun = TypeVar("_Begun")
_Made = TypeVar("_Made")
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


def in_stages(
    groups: Iterable[range],
    begin: Callable[[int], _Begun],
    together: Callable[[Sequence[_Begun]], Iterable[_Made]],
    end: Callable[[_Made], _Result],
    pixels: Callable[[int], int],
    at_once: int,
) -> Iterator[_Result]:
    """What ``end`` makes of each picture, in their order, while three groups of pictures are on their way.

    Args:
        begin: by threads, as many as there are CPUs, while the group before is computed.
        together: of what was begun of a whole group, in the caller's own thread: something for each of its pictures.
        end: by the same threads, while the group after is computed.
        pixels: of picture i. Groups wait while there would be more than ``at_once`` together; a larger one is alone.
    """
    threads = ThreadPoolExecutor(cpu_limit())
    begun: _Stage[_Begun] | None = None
    ending: _Stage[_Result] | None = None

    def compute(stage: _Stage[_Begun]) -> _Stage[_Result]:
        made = together([future.result() for future in stage.futures])
        return _Stage(stage.pixels, [threads.submit(end, each) for each in made])

    try:
        for group in groups:
            size = sum(map(pixels, group))
            while (begun or ending) and size + sum(stage.pixels for stage in (begun, ending) if stage) > at_once:
                if ending:
                    yield from ending.results()
                    ending = None
                elif begun:
                    ending = compute(begun)
                    begun = None
            following = _Stage(size, [threads.submit(begin, i) for i in group])
            if begun:
                computed = compute(begun)
                if ending:
                    yield from ending.results()
                ending = computed
            begun = following
        last = compute(begun) if begun else None
        for stage in filter(None, (ending, last)):
            yield from stage.results()
    finally:
        threads.shutdown(cancel_futures=True)


class _Stage(NamedTuple, Generic[_Result]):
    """A group of pictures of which something is being made."""

    pixels: int
    futures: list[Future[_Result]]

    def results(self) -> Iterator[_Result]:
        return (future.result() for future in self.futures)


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
