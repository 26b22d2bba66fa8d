"""goodput.jsonl: what a run's processes did when, written by each while it does it, one after the other.

Worker 0 alone writes it. In turn: who begins the run (``launcher run``, or ``prepare`` in a pod), its supervisor, and
its training process. A line is whole or not there, so that a kill leaves what was written; of a kill's time before the
next line, who comes next says what it was.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from maskfleet.files import append_line
from maskfleet.goodput import COMPUTING, RECOVERY, REDONE, STARTUP, STOPPED, Ledger, Phase
from maskfleet.records import read_lines_from
from maskfleet.run_directory import RunDirectory

SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 30.0
"""Between two lines about steps: a thousandth of the process's time so far, so that the file of a long run stays small.
A line is never later than a checkpoint, so steps that a kill leaves without one have to be done again in any case."""


class PhaseLog:
    """One process's view of goodput.jsonl, whoever else writes to it before and after.

    Args:
        run: None on all workers but the chief, who write nothing.
    """

    def __init__(self, run: RunDirectory | None):
        self.ledger = Ledger()
        self._path = run.goodput if run is not None else None
        self._position = 0
        self._wall, self._began = time.time(), time.monotonic()
        self._spent: dict[str, float] = {}
        self._step: int | None = None
        self._written = self._began
        self._then = STARTUP
        self._held_up: str | None = None
        self.catch_up()

    def catch_up(self) -> Ledger:
        """The ledger with all lines that are there by now."""
        if self._path is not None:
            lines, self._position = read_phases(self._path, self._position)
            for line in lines:
                self.ledger.book(line)
        return self.ledger

    def begin(self, cause: str, *, before: str | None = None, step: int | None = None, at: float | None = None) -> None:
        """From now on, or ``at`` that time by the monotonic clock, the time is spent on ``cause``."""
        self._then = cause
        self._write(before, self._step if step is None else step, at)

    def begin_start(self, cause: str, *, step: int | None = None) -> None:
        """As :meth:`begin`, of a part of a start; after a fault all of it is the restart."""
        last = self.catch_up().last
        causes = (self._held_up, None if last is None else last.then)
        self._held_up = None
        self.begin(RECOVERY if RECOVERY in causes else cause, step=step)

    def hold_up(self, cause: str) -> None:
        """From now on a start, or a restart, can't go on, until the next :meth:`begin_start`."""
        last = self.catch_up().last
        if last is not None and last.then != cause:
            self._held_up = last.then
        self.begin(cause)

    def take_over(self, *, by_user: bool = False, cause: str = STARTUP, at: float | None = None) -> None:
        """The first line of who begins, or begins again; what was before it is told by what was written last.

        Args:
            by_user: nobody else has had the run since it ended, or was cut off.
        """
        ledger = self.catch_up()
        last = None if ledger.last is None else ledger.last.then
        if by_user or last == STOPPED:
            self.begin(cause, before=STOPPED, at=at)
        elif ledger.is_interrupted:
            self.begin(RECOVERY, before=RECOVERY, at=at)
        else:
            self.begin(cause, at=at)

    def interrupted(self, *, killed: bool) -> None:
        """The training process has ended before its time; ``killed`` without a chance to write down its last steps."""
        last = self.catch_up().last
        trained = last is not None and last.then == COMPUTING
        self.begin(RECOVERY, before=(REDONE if killed else RECOVERY) if trained else None)

    def end(self) -> None:
        """Nobody works at the run from now on, until somebody begins it again."""
        self.begin(STOPPED)

    def steps(self, step: int, spent: Mapping[str, float]) -> None:
        """The run has come to ``step``; written down with the next line that is due.

        The first call of a process is none but part of its start, as it builds the graph.
        """
        self._step = step
        if self._then != COMPUTING:
            self.begin(COMPUTING)
            return
        for cause, seconds in spent.items():
            self._spent[cause] = self._spent.get(cause, 0.0) + seconds
        now = time.monotonic()
        if now - self._written > min(LONGEST_SECONDS, max(SHORTEST_SECONDS, (now - self._began) / 1000)):
            self._write()

    @contextlib.contextmanager
    def spending(self, cause: str) -> Iterator[None]:
        """The time of the block, which is written down at its end together with the steps before."""
        started = time.monotonic()
        yield
        self._spent[cause] = self._spent.get(cause, 0.0) + time.monotonic() - started
        self._write()

    @contextlib.contextmanager
    def phase(self, cause: str) -> Iterator[None]:
        """As :meth:`spending`, of what takes so long that its beginning is written down too."""
        before = self._then
        self.begin(cause)
        try:
            yield
        finally:
            self.begin(before)

    def close(self) -> None:
        """Writes down the last steps."""
        if self._spent:
            self._write()

    def _write(self, before: str | None = None, step: int | None = None, at: float | None = None) -> None:
        self._written = time.monotonic()
        now = self._wall + (self._written if at is None else at) - self._began
        spent = {cause: round(seconds, 6) for cause, seconds in self._spent.items() if seconds}
        line = Phase(now, self._then, spent, before, self._step if step is None else step)
        self._spent.clear()
        if self._path is not None:
            with contextlib.suppress(OSError):  # a full disk is the checkpoints' to report
                append_line(
                    self._path, json.dumps({key: each for key, each in asdict(line).items() if each not in (None, {})})
                )


def read_phases(path: Path, position: int = 0) -> tuple[list[Phase], int]:
    """The whole lines of a goodput.jsonl behind a byte's position, and where they end."""
    return read_lines_from(Phase, path, position)


def ledger_of(run: RunDirectory) -> Ledger:
    """What ``run`` has spent its time on; empty of one that an older version began."""
    return PhaseLog(run).ledger
