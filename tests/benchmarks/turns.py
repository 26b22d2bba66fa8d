"""Several ways to do the same, timed in turns: what disturbs one disturbs the others as well."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def medians(ways: Mapping[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Median seconds of each of ``ways`` over ``turns``, after one turn that does not count (tracing, caches)."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, way in ways.items():
            started = time.monotonic()
            way()
            if turn:
                seconds[name].append(time.monotonic() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}
