"""Several ways to do the same, timed in turns: what disturbs one disturbs the others as well."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection

Way = Callable[[], object]


def medians(ways: Mapping[str, Way], turns: int) -> dict[str, float]:
    """Median seconds of each of ``ways`` over ``turns``, after one turn that does not count (tracing, caches)."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            started = time.monotonic()
            way()
            if turn:
                seconds[name].append(time.monotonic() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


@contextmanager
def in_own_process(make: Callable[[], Way], **variables: str) -> Iterator[Way]:
    """The way that ``make`` makes, in a new process whose environment has ``variables`` as well."""
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    process = processes.Process(target=_take_turns, args=(make, theirs), daemon=True)
    with environment(**variables):
        process.start()

    def take_turn() -> None:
        ours.send(None)
        ours.recv()

    try:
        yield take_turn
    finally:
        process.kill()
        process.join()


def _take_turns(make: Callable[[], Way], connection: Connection) -> None:
    way = make()
    while True:
        connection.recv()
        way()
        connection.send(None)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
