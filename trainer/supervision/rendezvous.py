"""All workers start an attempt together, and stop together: the agreement between their supervisors.

TensorFlow's collectives can't be re-joined: when one worker is lost, every training process has to start
again, and none may start while one of the last attempt still runs. So the supervisors of all workers keep a
connection to the chief's, and it tells them when to start and when to stop. A connection that ends is how a
lost supervisor shows. Messages are JSON objects, one a line.

Where fewer workers may train for as long as there are no more, those who have come are waited for together, and go on
without the others after a while. Who comes later waits until all of them stop once, and go on with it.

:class:`Coordinator` is the decision, without input or output; :mod:`trainer.supervision.supervisor` carries it out.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from maskfleet.errors import BAD_INPUT, DONE, FAILED, PEER_LOST, STOPPED
from maskfleet.sentences import told_to_stop
from maskfleet.text import format_duration, ranges

RESTART_WINDOW_SECONDS = 3600
SETTLE_SECONDS = 10.0
"""After the last one that has come, before all stop to go on with it: several often come together."""
GROW_SECONDS = 60.0
"""Of training, before all stop for some that have come while others are still missing: a stop costs seconds."""
MAX_REASON = 4000
"""Characters of a reason; a message is one line of at most 64 KiB."""
NAMED_WORKERS = 5
"""Of those that are missing; the others are counted."""

Message = dict[str, Any]


def start(attempt: int, workers: Sequence[int]) -> Message:
    """Chief to all: ``workers``, in order, are ready and train together, start the training process."""
    return {"do": "start", "attempt": attempt, "workers": ranges(workers)}


def stop(reason: str, *, save: bool = False) -> Message:
    """Chief to all: end the training process of this attempt, which may ``save`` first, and say ``ready``."""
    return {"do": "stop", "reason": reason, "save": save}


def finish(code: int, reason: str) -> Message:
    """Chief to all: the run is over; leave with this exit code."""
    return {"do": "finish", "code": code, "reason": reason}


def serialize(message: Message) -> bytes:
    return json.dumps(message).encode() + b"\n"


def parse(line: bytes) -> Message | None:
    """A message, or None at the end of the connection.

    Raises:
        ValueError: the peer speaks something else.
    """
    if not line.endswith(b"\n"):
        return None
    try:
        message = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(message, dict):
        raise ValueError(f"expected a JSON object, found {message!r}")
    return message


_ORDERS: dict[str, dict[str, type]] = {
    "start": {"attempt": int, "workers": str},
    "wait": {"for": str},
    "go on": {},
    "ping": {"mark": int},
    "stop": {"reason": str, "save": bool},
    "finish": {"code": int, "reason": str},
}


def parse_order(line: bytes) -> Message | None:
    """What the chief says to a worker, or None at the end of the connection.

    Raises:
        ValueError: it is no such message.
    """
    message = parse(line)
    if message is None:
        return None
    expected = _ORDERS.get(str(message.get("do")))
    if expected is None or any(type(message.get(name)) is not kind for name, kind in expected.items()):
        raise ValueError(f"expected one of {', '.join(_ORDERS)}, found {message!r:.200}")
    return message


@dataclass(frozen=True)
class Ended:
    """Worker to chief: its training process of this attempt has ended with ``code``, negative for a signal."""

    attempt: int
    code: int
    reason: str

    @classmethod
    def of(cls, message: Message) -> Self:
        """Raises ValueError if it is no such message."""
        attempt, code, reason = message.get("attempt"), message.get("code"), message.get("reason")
        if type(attempt) is not int or type(code) is not int or not -64 <= code <= 255 or not isinstance(reason, str):
            raise ValueError(f"expected an attempt, an exit code and a reason, found {message!r:.200}")
        return cls(attempt, code, reason[:MAX_REASON])


def names_of(workers: Sequence[int], addresses: Sequence[str]) -> str:
    """Who is missing, in a line that does not grow with the number of workers."""
    named = ", ".join(f"worker {worker} ({addresses[worker]:.200})" for worker in workers[:NAMED_WORKERS])
    return named + (f" and {len(workers) - NAMED_WORKERS} more" if len(workers) > NAMED_WORKERS else "")


def _named(workers: Collection[int]) -> str:
    return f"worker{'s' if len(workers) > 1 else ''} {ranges(sorted(workers), NAMED_WORKERS)}"


def _have(workers: Collection[int]) -> str:
    return "have" if len(workers) > 1 else "has"


@dataclass
class Coordinator:
    """What the chief's supervisor answers to what it hears; each answer goes to all workers.

    Times are seconds by one clock, ``now`` in each call.

    Attributes:
        workers: how many there are at most.
        max_restarts: attempts that may fail within :data:`RESTART_WINDOW_SECONDS` before the run fails.
        least: how many train where the others do not come; None: all have to.
        shrink_after: how long the others are waited for.
        since: when it began to wait for workers.
        wanted: so many are waited for.
        world, before: the workers of this attempt, and of the last one.
        connected: those whose supervisors are there; not all of them are ready.
        told: workers whose supervisors have said that somebody stops them, the first one first.
        cause: why the last attempt was stopped; empty if it was for workers that had come.
    """

    workers: int
    max_restarts: int
    least: int | None = None
    shrink_after: float = 0.0
    since: float = 0.0
    wanted: int = 0
    attempt: int = 0
    phase: Literal["gathering", "running", "over"] = "gathering"
    world: frozenset[int] = frozenset()
    before: frozenset[int] = frozenset()
    connected: set[int] = field(default_factory=set)
    ready: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    told: list[int] = field(default_factory=list)
    failures: deque[tuple[float, str]] = field(default_factory=deque)
    cause: str = ""
    _came_at: float = 0.0

    def __post_init__(self) -> None:
        self.wanted = self.wanted or self.workers

    def missing(self) -> list[int]:
        """Workers that are not ready."""
        return sorted(set(range(self.workers)) - self.ready)

    def worker_came(self, worker: int) -> None:
        """The supervisor of ``worker`` is there."""
        self.connected.add(worker)

    def worker_ready(self, worker: int, now: float, before: int = 0) -> Message | None:
        """``worker`` has no training process and can reach its peers; it was one of ``before`` that trained together.

        A chief that has just come waits for as many as there were before its time, and no longer for all.
        """
        self.connected.add(worker)
        if self.phase == "running" and worker in self.world:
            return None
        self.ready.add(worker)
        self._came_at = now
        if self.attempt == 0 and before:
            self.wanted = min(self.workers, max(before, self.least or self.workers))
        return self._begin(now)

    def look(self, now: float, *, may_grow: bool = True) -> Message | None:
        """To be called now and then: time has passed. Unless the run ``may_grow``, its end is too near for that."""
        if self.phase != "running":
            return self._begin(now)
        if not self.ready or self.done or not may_grow:
            return None
        count = len(self.world) + len(self.ready)
        settled = now - self._came_at >= SETTLE_SECONDS and now - self.since >= GROW_SECONDS
        if count < self.workers and not settled:
            return None
        order = self._gather(f"{_named(self.ready)} {_have(self.ready)} come", now, count, save=True)
        self.cause = ""  # who has come is told by who trains then
        return order

    def _begin(self, now: float) -> Message | None:
        """Starts an attempt if enough are there, and none of those still has a process of the last one."""
        waited_enough = self.least is not None and now - self.since >= self.shrink_after
        enough = self.least if self.least is not None and waited_enough else self.wanted
        if self.phase != "gathering" or self.ready != self.connected or len(self.ready) < enough or 0 not in self.ready:
            return None
        self.phase, self.since = "running", now
        self.before, self.world = self.world, frozenset(self.ready)
        self.ready.clear()
        self.attempt += 1
        self.done.clear()
        self.told.clear()
        return start(self.attempt, sorted(self.world))

    @property
    def beginning(self) -> str:
        """Of an attempt that has begun: how many workers train, and why others than before, if so; else empty."""
        if self.attempt > 1 and self.world == self.before:
            return ""
        if self.least is None:
            return f"{self.workers} worker(s)"
        expected = self.before or frozenset(range(self.workers))
        come, gone = sorted(self.world - expected), sorted(expected - self.world)
        why = [f"{_named(come)} {_have(come)} come"] if come else []
        if gone:
            back = " back" if self.before else ""
            within = f" within {format_duration(self.shrink_after)}" if len(self.world) < len(expected) else ""
            why = [*filter(None, [self.cause]), f"{_named(gone)} {_have(gone)} not come{back}{within}", *why]
        count = f"{len(self.world)} of {self.least} to {self.workers} workers"
        return f"{count}: {'; '.join(why)}" if why else count

    def _gather(self, reason: str, now: float, wanted: int, *, save: bool = False) -> Message:
        self.phase, self.since, self.wanted, self.cause = "gathering", now, wanted, reason
        return stop(reason, save=save)

    def worker_told(self, worker: int) -> None:
        """Somebody stops ``worker``; its training process, and with it all others, will save and end."""
        if worker not in self.told:
            self.told.append(worker)

    def worker_left(self, worker: int, now: float) -> Message | None:
        """The connection to ``worker``'s supervisor has ended."""
        self.connected.discard(worker)
        self.ready.discard(worker)
        if self.phase == "running" and worker in self.world - self.done:
            if worker in self.told:
                return self._gather(told_to_stop([worker]), now, len(self.world))
            return self._restart(f"worker {worker} was lost", now)
        return self._begin(now)  # the others may have waited for this one alone

    def process_ended(self, worker: int, attempt: int, code: int, reason: str, now: float) -> Message | None:
        """The training process of ``worker`` has ended: see :class:`Ended`."""
        if self.phase != "running" or attempt != self.attempt:
            return None  # it was told to stop
        if code == DONE:
            self.done.add(worker)
            if len(self.done) < len(self.world):
                return None
            self.phase = "over"
            return finish(DONE, "")
        if code in (FAILED, BAD_INPUT):
            self.phase = "over"
            return finish(code, reason)
        if code == STOPPED:
            # Every process saved and left because one worker was told to stop, and any of them may be heard of first.
            # That worker goes away; the others wait for it to come back.
            return self._gather(told_to_stop(self.told or [worker]), now, len(self.world))
        return self._restart(reason, now)

    def gathering_timed_out(self, reason: str) -> Message:
        """Not all workers came in time."""
        self.phase = "over"
        return finish(PEER_LOST, reason)

    def _restart(self, reason: str, now: float) -> Message:
        self.failures.append((now, reason))
        while now - self.failures[0][0] > RESTART_WINDOW_SECONDS:
            self.failures.popleft()
        if len(self.failures) > self.max_restarts:
            self.phase = "over"
            first = self.failures[0][1]
            return finish(FAILED, f"gave up after {len(self.failures) - 1} restarts; the first cause: {first}")
        return self._gather(reason, now, len(self.world))
