"""Where the time of a run went: each second is booked once, to one cause. Pure.

Training and what is around it write down what they do (:mod:`maskfleet.phase_log`); :class:`Ledger` adds it up. Names
are those of Google's ml-goodput-measurement, lower case, where it has one for the same time: there too, goodput is the
time in training steps that brought the run further, as a share of all time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from maskfleet.schema import Count, Seconds
from maskfleet.text import format_duration

QUEUED = "queued"
UNSCHEDULABLE = "unschedulable"
VOLUMES = "volume_mount"
IMAGE_PULL = "image_pull"
PREPARING = "training_prep"
STARTUP = "program_startup"
PEERS = "waiting_for_peers"
DATA = "data_loading_sync"
COMPUTING = "computing"
ALL_REDUCE = "all_reduce"
VALIDATION = "validation"
CHECKPOINT = "unproductive_checkpoint_save_time"
REDONE = "wasted_progress_from_disruption"
RECOVERY = "infrastructure_recovery_from_disruption"
RESULTS = "results"
STOPPED = "stopped"
OTHER = "other"

CAUSES: Mapping[str, str] = {
    COMPUTING: "computing",
    ALL_REDUCE: "all-reduce",
    DATA: "waiting for data",
    VALIDATION: "validation",
    CHECKPOINT: "checkpoint",
    REDONE: "work done again",
    RECOVERY: "restart",
    QUEUED: "queued",
    UNSCHEDULABLE: "unschedulable",
    VOLUMES: "mounting volumes",
    IMAGE_PULL: "image pull",
    PREPARING: "preparing data",
    PEERS: "waiting for peers",
    STARTUP: "start",
    RESULTS: "final scores and export",
    STOPPED: "ended until resumed",
    OTHER: "other",
}
"""Each cause and how people are told of it."""
PRODUCTIVE = (COMPUTING, ALL_REDUCE)
IN_STEPS = (COMPUTING, ALL_REDUCE, DATA)
"""What a step consists of, all of which is wasted if it has to be done again."""
_BEFORE_TRAINING = (STARTUP, PREPARING, PEERS, STOPPED)


@dataclass(frozen=True)
class Phase:
    """A line of goodput.jsonl: what the time up to ``time`` was spent on, and what begins then.

    Attributes:
        time: Unix seconds; within a process they follow the monotonic clock.
        then: the cause of the time from now on.
        spent: seconds by cause, of the time since the line before.
        before: the cause of what ``spent`` leaves of that time; None: that which the line before has begun.
        step: that the run has come to; less than in a line before, it was restored from there.
    """

    time: Seconds
    then: str
    spent: Mapping[str, Seconds] = field(default_factory=dict)
    before: str | None = None
    step: Count | None = None


@dataclass
class Ledger:
    """The lines of a run added up.

    Attributes:
        seconds: by cause; their sum is the time from the first line to the last.
        since: when the first line's time began, Unix seconds; None without a line.
        last: the newest line.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    since: float | None = None
    last: Phase | None = None
    _step: int = 0
    _reached: int = 0

    def book(self, line: Phase) -> None:
        """Takes the next line in. Of a clock that is behind that of the line before no time has passed between them."""
        told = sum(line.spent.values())
        if self.last is None:
            passed, rest_is = told, line.then
            self.since = line.time - told
        else:
            passed, rest_is = max(0.0, line.time - self.last.time), line.before or self.last.then
        scale = min(1.0, passed / told) if told else 0.0
        again = self._share_done_before(line.step)
        for cause, seconds in line.spent.items():
            self._add(cause, seconds * scale, again)
        self._add(rest_is, passed - told * scale, again)
        if line.step is not None:
            self._step, self._reached = line.step, max(self._reached, line.step)
        self.last = line

    def totals(self, now: float | None = None) -> dict[str, float]:
        """Seconds by cause, of a run that goes on up to ``now``."""
        if now is None or self.last is None:
            return dict(self.seconds)
        return booked(self.seconds, self.last.then, now - self.last.time)

    @property
    def is_interrupted(self) -> bool:
        """Whether whoever wrote the last line was cut off, after the run had begun to train."""
        return self.last is not None and self.last.then not in _BEFORE_TRAINING

    def _share_done_before(self, step: int | None) -> float:
        """Of the steps up to ``step``, those that an earlier attempt had taken already."""
        if step is None or step <= self._step:
            return 0.0
        return max(0.0, (min(step, self._reached) - self._step) / (step - self._step))

    def _add(self, cause: str, seconds: float, again: float) -> None:
        if cause in IN_STEPS and again:
            self._add(REDONE, seconds * again, 0.0)
            seconds *= 1 - again
        if seconds > 0:
            cause = cause if cause in CAUSES else OTHER
            self.seconds[cause] = self.seconds.get(cause, 0.0) + seconds


@dataclass(frozen=True)
class TimeSpent:
    """A ledger as one process tells another of it; see :class:`Ledger`. ``since`` and ``until`` are Unix seconds."""

    since: Seconds
    until: Seconds
    then: str
    seconds: Mapping[str, Seconds]

    @classmethod
    def of(cls, ledger: Ledger) -> Self | None:
        """None of a run that has no line yet."""
        if ledger.last is None or ledger.since is None:
            return None
        seconds = {cause: round(each, 1) for cause, each in ledger.seconds.items()}
        return cls(round(ledger.since, 1), round(ledger.last.time, 1), ledger.last.then, seconds)


def booked(seconds: Mapping[str, float], cause: str, more: float) -> dict[str, float]:
    """``seconds`` with ``more`` of a cause; less than none is none."""
    cause = cause if cause in CAUSES else OTHER
    return {**seconds, cause: seconds.get(cause, 0.0) + more} if more > 0 else dict(seconds)


def moved(seconds: Mapping[str, float], source: str, target: str, amount: float) -> dict[str, float]:
    """``seconds`` with up to ``amount`` of ``source`` booked to ``target`` instead, once more is known of it."""
    amount = min(max(amount, 0.0), seconds.get(source, 0.0))
    return booked({**seconds, source: seconds.get(source, 0.0) - amount}, target, amount) if amount else dict(seconds)


def goodput(seconds: Mapping[str, float]) -> float | None:
    """The share of the time in which training steps brought the run further, 0 to 1; None if no time has passed."""
    total = sum(seconds.values())
    return sum(seconds.get(cause, 0.0) for cause in PRODUCTIVE) / total if total > 0 else None


def goodput_facts(seconds: Mapping[str, float]) -> dict[str, Any] | None:
    """For JSON: goodput, all seconds, and those of each cause that there was; None before any time has passed."""
    share = goodput(seconds)
    if share is None:
        return None
    by_cause = {cause: round(seconds[cause], 3) for cause in CAUSES if seconds.get(cause, 0.0) > 0}
    return {"goodput": round(share, 4), "wall_seconds": round(sum(seconds.values()), 3), "seconds": by_cause}


def goodput_line(seconds: Mapping[str, float], least: float = 0.01) -> str:
    """``.91 of 1h2m: computing 50m, all-reduce 6m, restart 4m``: the largest first, without shares below ``least``."""
    total, share = sum(seconds.values()), goodput(seconds)
    if share is None:
        return ""
    largest = sorted(seconds, key=lambda cause: -seconds[cause])
    parts = [
        f"{CAUSES[cause]} {format_duration(seconds[cause])}" for cause in largest if seconds[cause] >= least * total
    ]
    return f"{share:.3f} of {format_duration(total)}: {', '.join(parts)}"
