"""Several ways to do the same, timed in turns: what disturbs one disturbs the others as well."""

from __future__ import annotations

import functools
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
    with own_process(functools.partial(_take_turns, make), **variables) as connection:

        def take_turn() -> None:
            connection.send(None)
            connection.recv()

        yield take_turn


@contextmanager
def own_process(work: Callable[[Connection], None], **variables: str) -> Iterator[Connection]:
    """Our end of the connection to ``work``, which a new process with such variables does until it is killed."""
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    process = processes.Process(target=work, args=(theirs,), daemon=True)
    with environment(**variables):
        process.start()
    try:
        yield ours
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
