"""Which worker holds up the others, and by what. Pure.

A worker is compared with the median of all others. It is named once it has been slower by far in several looks in a
row, and until it has been about as fast in as many: so neither a single pause nor a noisy moment names anybody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

from maskfleet.pace import Pace, Usage

LOOKS = 3
"""In a row, for a worker to be named, and to be no longer."""
NAMED_RATIO, CLEARED_RATIO = 1.3, 1.15
"""Of a worker's own time to the others'."""
LEAST_OF_STEP = 0.1
"""By how much of a step a worker has to be behind: what is less costs nobody anything worth a line."""
THROTTLED = 0.1
CPU_WAIT = 0.2
IO_WAIT = 0.1
MEMORY_FULL = 0.97
"""Shares from which a worker is told to be held up by that; of the first three, how much more than the others'."""
NETWORK_SHARE = 0.2
"""Of a step, that even the last worker waits for the sum: then the network counts."""
NETWORK_RATIO, NETWORK_SECONDS = 3.0, 0.005
"""Of a round trip to a worker to the shortest, and how much longer it has to be."""
MOST_NAMED = 3
"""Workers that are told of."""


@dataclass(frozen=True)
class Slow:
    """A worker that holds up the others, and how in a line."""

    worker: int
    line: str


@dataclass
class _Suspect:
    looks: int = 0
    named: bool = False


@dataclass
class SlowWorkers:
    """Looks at the fleet again and again."""

    _slow: tuple[Slow, ...] = ()
    _suspects: dict[tuple[str, int], _Suspect] = field(default_factory=dict)
    _trips: dict[int, deque[float]] = field(default_factory=dict)

    def look(self, fleet: Mapping[int, Pace]) -> tuple[Slow, ...]:
        """At what the workers have told since the last look; returns those that are named, the slowest first."""
        for worker, pace in fleet.items():
            if pace.round_trip is not None:
                # The shortest of a few: a single late packet is no slow network.
                self._trips.setdefault(worker, deque(maxlen=LOOKS)).append(pace.round_trip)
        found = {worker: pace for worker, pace in fleet.items() if pace.steps.count}
        if len(found) < 2:
            return self._slow
        behind = self._behind(found)
        named = sorted(behind, key=lambda worker: -behind[worker])[:MOST_NAMED]
        self._slow = tuple(Slow(worker, slow_line(worker, found)) for worker in named) or self._far_away(found)
        return self._slow

    def _behind(self, fleet: Mapping[int, Pace]) -> dict[int, float]:
        """Seconds of a step by which each worker that is to be named is behind the others."""
        usual = _of_others({worker: pace.own for worker, pace in fleet.items()})
        step = median(pace.step for pace in fleet.values())
        behind = {}
        for worker, pace in fleet.items():
            excess, ratio = pace.own - usual[worker], pace.own / max(usual[worker], 1e-9)
            far = ratio >= NAMED_RATIO and excess >= LEAST_OF_STEP * step
            if self._is_named("own", worker, far, ratio < CLEARED_RATIO or excess < LEAST_OF_STEP / 2 * step):
                behind[worker] = excess
        return behind

    def _far_away(self, fleet: Mapping[int, Pace]) -> tuple[Slow, ...]:
        """Who is far away by the network, if that is what even the last worker waits for."""
        trips = {worker: min(times) for worker, times in self._trips.items() if worker in fleet}
        near = min(trips.values(), default=0.0)  # as a rule the chief's to itself, over no network
        waits = min(pace.all_reduce / max(pace.step, 1e-9) for pace in fleet.values()) >= NETWORK_SHARE
        away = {}
        for worker, trip in trips.items():
            far = waits and trip > NETWORK_RATIO * near and trip > near + NETWORK_SECONDS
            if self._is_named("network", worker, far, not far):
                away[worker] = trip
        others = [trip for worker, trip in trips.items() if worker not in (0, *away)]
        if len(away) > 1 and not others:
            takes = _time(median(away.values()))
            return (Slow(0, f"the network between worker 0 and all others takes {takes} there and back"),)
        compared = f", to the others {_time(median(others))}" if others else ""
        return tuple(
            Slow(worker, f"the network between workers 0 and {worker} takes {_time(trip)} there and back{compared}")
            for worker, trip in sorted(away.items(), key=lambda each: -each[1])[:MOST_NAMED]
        )

    def _is_named(self, why: str, worker: int, far: bool, near: bool) -> bool:
        """Whether it is, after this look: ``far`` speaks for it, ``near`` against, and neither leaves it as it is."""
        suspect = self._suspects.setdefault((why, worker), _Suspect())
        speaks_for_change = near if suspect.named else far
        suspect.looks = suspect.looks + 1 if speaks_for_change else 0
        if suspect.looks >= LOOKS:
            suspect.named, suspect.looks = not suspect.named, 0
        return suspect.named


def slow_line(worker: int, fleet: Mapping[int, Pace]) -> str:
    """How slow ``worker`` is against the others, and what its usage says about why."""
    pace = fleet[worker]
    waits = _of_others({each: other.input for each, other in fleet.items()})[worker]
    computes = _of_others({each: other.compute for each, other in fleet.items()})[worker]
    if pace.input - waits > pace.compute - computes:
        line = f"worker {worker} waits {_time(pace.input)} a step for its data, the others {_time(waits)}"
        return _because(line, pace, cpu_first=False, others=fleet)
    line = f"worker {worker} takes {pace.compute / max(computes, 1e-9):.1f} times the others' compute"
    return _because(line, pace, cpu_first=True, others=fleet)


def _because(line: str, pace: Pace, *, cpu_first: bool, others: Mapping[int, Pace]) -> str:
    """``line`` with what hinders this worker and does not hinder the others as much."""
    usages = [each.usage for each in others.values() if each is not pace]

    def more(of: Callable[[Usage], float | None]) -> float:
        return (of(pace.usage) or 0.0) - median(of(usage) or 0.0 for usage in usages)

    usage = pace.usage
    cpu = disk = ""
    if more(lambda each: each.throttled) >= THROTTLED:
        cpu = f"its CPU is throttled {usage.throttled:.0%} of the time"
    elif more(lambda each: each.cpu_wait) >= CPU_WAIT:
        cpu = f"other processes have its CPU {usage.cpu_wait:.0%} of the time"
    if more(lambda each: each.io_wait) >= IO_WAIT:
        disk = f"it waits for its disk {usage.io_wait:.0%} of the time"
    reason = (cpu or disk) if cpu_first else (disk or cpu)
    if not reason and (usage.memory or 0.0) >= MEMORY_FULL:
        reason = f"its memory is full, {usage.memory:.0%} of the limit"
    if not reason and cpu_first and usage.cpus is not None:
        usual = median(each.cpus or 0.0 for each in usages)
        reason = f"it uses {usage.cpus:.1f} CPUs, the others {usual:.1f}"
    return f"{line}; {reason}" if reason else line


def _of_others(fleet: Mapping[int, float]) -> dict[int, float]:
    """For each worker the median over all others; quick for thousands of them. Of one alone there is none."""
    if len(fleet) < 2:
        return {}
    ordered = sorted(fleet, key=fleet.__getitem__)
    values = [fleet[worker] for worker in ordered]
    last = len(values) - 1
    found = {}
    for place, worker in enumerate(ordered):
        low, high = (last - 1) // 2, last // 2  # of the others, in their order
        found[worker] = (values[low + (low >= place)] + values[high + (high >= place)]) / 2
    return found


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "under 1 ms"
