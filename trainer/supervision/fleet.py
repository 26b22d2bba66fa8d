"""How fast the workers are: each supervisor's part of it, and the chief's, who asks all of them again and again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from maskfleet.pace import NO_STEPS, FleetPace, Pace, Steps
from maskfleet.run_directory import RunDirectory
from maskfleet.schema import parsed
from trainer.supervision.rendezvous import Message
from trainer.supervision.slow_workers import SlowWorkers
from trainer.supervision.usage import UsageMeter

LOOK_SECONDS = 5.0
"""Between two questions to all workers."""
MOST_SHOWN = 64
"""Workers whose pace is written down, the first ones; of more only those that are named."""
_MOST_BYTES = 1 << 12
"""Of a line of the training process that is still to end."""


class OwnPace:
    """What a supervisor has to tell of its own training process.

    Attributes:
        has_stepped: whether that has made steps.
    """

    def __init__(self) -> None:
        self.has_stepped = False
        self._steps = NO_STEPS
        self._line = b""
        self._meter: UsageMeter | None = None

    def began(self, pid: int) -> None:
        """There is a new training process."""
        self.has_stepped = False
        self._steps, self._line, self._meter = NO_STEPS, b"", UsageMeter(pid)

    def take(self, written: bytes) -> None:
        """What the training process has written to its heartbeat: dots, and lines about its steps."""
        *lines, rest = (self._line + written).split(b"\n")
        self._line = rest.lstrip(b".")[-_MOST_BYTES:]
        for line in lines:
            if (steps := parsed(Steps, line.lstrip(b"."))) is not None:
                self._steps += steps
                self.has_stepped = True

    def message(self) -> Message:
        """Since the last one."""
        steps, self._steps = self._steps, NO_STEPS
        usage = {} if self._meter is None else asdict(self._meter.usage())
        return {"is": "pace", "steps": asdict(steps), "usage": usage}


class Fleet:
    """What all supervisors tell the chief's, and what becomes of it: workers.json, and lines for the user.

    Args:
        report_line: prints a line for the user.
    """

    def __init__(self, run: RunDirectory, report_line: Callable[[str], None]):
        self._run, self._report_line = run, report_line
        self._mark = 0
        self._asked_at = 0.0
        self._trips: dict[int, float] = {}
        self._told: dict[int, Pace] = {}
        self._slow = SlowWorkers()
        self._named: set[int] = set()
        self._present = ""

    def question(self) -> Message:
        """To all workers, once what they have said to the one before is written down."""
        if self._told:
            fleet = dict(sorted(self._told.items()))
            slow = self._slow.look(fleet)
            for each in slow:
                if each.worker not in self._named:
                    self._report_line(each.line)
            self._named = {each.worker for each in slow}
            shown = {
                str(worker): pace for worker, pace in fleet.items() if worker < MOST_SHOWN or worker in self._named
            }
            self._write(FleetPace(time.time(), tuple(each.line for each in slow), shown, self._present))
        self._told, self._trips = {}, {}
        self._mark += 1
        self._asked_at = time.monotonic()
        return {"do": "ping", "mark": self._mark}

    def hear(self, worker: int, message: dict[str, Any], network: float | None = None) -> None:
        """An answer of ``worker``; what is none is passed over, as no training depends on it.

        Args:
            network: the seconds of a round trip by the kernel's clock; None where it does not tell.
        """
        if message["is"] == "pong":
            if message.get("mark") == self._mark and network is not None:
                # The answer is late where a CPU is busy, the kernel's mean long after a single packet was.
                self._trips[worker] = min(network, time.monotonic() - self._asked_at)
            return
        pace = parsed(Pace, {**message, "round_trip": self._trips.get(worker)})
        if pace is not None:
            self._told[worker] = pace

    def start(self, present: str) -> None:
        """These workers train together from now on, written as ``0,2-4``; to be called where not all have to."""
        self._present = present
        self._write(FleetPace(time.time(), present=present))

    def start_again(self) -> None:
        """The training processes have ended: nobody is slow now."""
        if self._named or self._told or self._present:
            self._write(FleetPace(time.time()))
        self._slow, self._named, self._told, self._present = SlowWorkers(), set(), {}, ""

    def _write(self, pace: FleetPace) -> None:
        with contextlib.suppress(OSError):  # a full disk is the training process's to report
            pace.write(self._run)
