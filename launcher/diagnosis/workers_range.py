"""A job that trains with fewer workers for as long as no more find room: how many there are, and why not more. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from launcher.diagnosis.worker_status import WorkerStatus
from launcher.job.labels import WORKERS_ANNOTATION, annotations_of
from maskfleet.environment import SHRINK_AFTER_VARIABLE
from maskfleet.peers import SHRINK_AFTER
from maskfleet.text import format_duration, numbers_in
from maskfleet.worker_count import WorkerCount

Object = Mapping[str, Any]


def count_of(pod: Object) -> WorkerCount | None:
    """How many workers the job of a pod, or of a pod's template, has; None if it is not known."""
    try:
        return WorkerCount.parse(annotations_of(pod).get(WORKERS_ANNOTATION, ""))
    except ValueError:  # anybody may write an annotation
        return None


@dataclass(frozen=True)
class WorkersRange:
    """Of a job with a range of workers.

    Attributes:
        present: those that train together, as the chief has told last; empty while none do.
        shrink_after: seconds.
    """

    count: WorkerCount
    present: frozenset[int]
    shrink_after: float

    @classmethod
    def of(cls, job: Object, details: Mapping[str, Any]) -> Self | None:
        """None of a job with a fixed number of workers."""
        template = job["spec"].get("template") or {"metadata": {}}
        count = count_of(template)
        if count is None or not count.is_range:
            return None
        try:
            present = frozenset(numbers_in(str(details.get("present", "")), count.most))
        except ValueError:
            present = frozenset()
        return cls(count, present, _shrink_after(template))

    def without(self, troubled: Sequence[WorkerStatus]) -> bool:
        """Whether the job trains without all of these workers."""
        return bool(self.present) and not any(row.worker in self.present for row in troubled)

    def line(self, why: str) -> str:
        """``3 of 2..8 workers`` that train, and ``why`` it is not more."""
        return f"{len(self.present)} of {self.count} workers" + (f"; {why}" if why else "")

    def waits(self, rows: Iterable[WorkerStatus]) -> str:
        """What becomes of a job whose workers wait for others."""
        up = sum(row.phase == "Running" for row in rows)
        if up < self.count.least:
            return f"{up} of {self.count} workers are up, and at least {self.count.least} train"
        return f"{up} of {self.count} workers are up, and go on without after {format_duration(self.shrink_after)}"

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {"least": self.count.least, "most": self.count.most, "present": sorted(self.present)}


def _shrink_after(template: Object) -> float:
    for container in template.get("spec", {}).get("containers", []):
        for variable in container.get("env", []):
            if variable["name"] == SHRINK_AFTER_VARIABLE and str(variable.get("value", "")).isdecimal():
                return float(variable["value"])
    return SHRINK_AFTER
