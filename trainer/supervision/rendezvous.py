"""All workers start an attempt together, and stop together: the agreement between their supervisors.

TensorFlow's collectives can't be re-joined: when one worker is lost, every training process has to start
again, and none may start while one of the last attempt still runs. So the supervisors of all workers keep a
connection to the chief's, and it tells them when to start and when to stop. A connection that ends is how a
lost supervisor shows. Messages are JSON objects, one a line.

:class:`Coordinator` is the decision, without input or output; :mod:`trainer.supervision.supervisor` carries it out.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from maskfleet.errors import BAD_INPUT, DONE, FAILED, PEER_LOST, STOPPED
from maskfleet.sentences import told_to_stop

RESTART_WINDOW_SECONDS = 3600
MAX_REASON = 4000
"""Characters of a reason; a message is one line of at most 64 KiB."""
NAMED_WORKERS = 5
"""Of those that are missing; the others are counted."""

Message = dict[str, Any]


def start(attempt: int) -> Message:
    """Chief to all: every worker is ready, start the training process."""
    return {"do": "start", "attempt": attempt}


def stop(reason: str) -> Message:
    """Chief to all: end the training process of this attempt and say ``ready``."""
    return {"do": "stop", "reason": reason}


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
    "start": {"attempt": int},
    "wait": {"for": str},
    "go on": {},
    "ping": {"mark": int},
    "stop": {"reason": str},
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


@dataclass
class Coordinator:
    """What the chief's supervisor answers to what it hears; each answer goes to all workers.

    Attributes:
        workers: how many there are.
        max_restarts: attempts that may fail within :data:`RESTART_WINDOW_SECONDS` before the run fails.
        told: workers whose supervisors have said that somebody stops them, the first one first.
    """

    workers: int
    max_restarts: int
    attempt: int = 0
    phase: Literal["gathering", "running", "over"] = "gathering"
    ready: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    told: list[int] = field(default_factory=list)
    failures: deque[tuple[float, str]] = field(default_factory=deque)

    def missing(self) -> list[int]:
        """Workers that are not ready."""
        return sorted(set(range(self.workers)) - self.ready)

    def worker_ready(self, worker: int) -> Message | None:
        """``worker`` has no training process and can reach its peers."""
        self.ready.add(worker)
        if self.phase != "gathering" or len(self.ready) < self.workers:
            return None
        self.phase = "running"
        self.ready.clear()
        self.attempt += 1
        self.done.clear()
        self.told.clear()
        return start(self.attempt)

    def worker_told(self, worker: int) -> None:
        """Somebody stops ``worker``; its training process, and with it all others, will save and end."""
        if worker not in self.told:
            self.told.append(worker)

    def worker_left(self, worker: int, now: float) -> Message | None:
        """The connection to ``worker``'s supervisor has ended."""
        self.ready.discard(worker)
        if self.phase == "running" and worker not in self.done:
            if worker in self.told:
                self.phase = "gathering"
                return stop(told_to_stop([worker]))
            return self._restart(f"worker {worker} was lost", now)
        return None

    def process_ended(self, worker: int, attempt: int, code: int, reason: str, now: float) -> Message | None:
        """The training process of ``worker`` has ended: see :class:`Ended`."""
        if self.phase != "running" or attempt != self.attempt:
            return None  # it was told to stop
        if code == DONE:
            self.done.add(worker)
            if len(self.done) < self.workers:
                return None
            self.phase = "over"
            return finish(DONE, "")
        if code in (FAILED, BAD_INPUT):
            self.phase = "over"
            return finish(code, reason)
        if code == STOPPED:
            # Every process saved and left because one worker was told to stop, and any of them may be heard of first.
            # That worker goes away; the others wait for it to come back.
            self.phase = "gathering"
            return stop(told_to_stop(self.told or [worker]))
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
        self.phase = "gathering"
        return stop(reason)
