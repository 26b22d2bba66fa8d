"""Statuses as text for people. Pure: returns lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from launcher.diagnosis.job_status import JobStatus
from launcher.diagnosis.reasons import steady
from launcher.diagnosis.worker_status import WorkerStatus
from maskfleet.goodput import goodput_line
from maskfleet.records import Progress
from maskfleet.text import format_duration, ranges, some_of

MOST_ROWS = 32
"""Workers that get a row each; of more, those in the same state share one unless the form is wide."""
MOST_RANGES = 4
"""Of the workers that share a row, as in 0-2,5."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns under ``header``, aligned to the left; the last one is not padded."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
    return ["  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[-1]]).rstrip()
            for line in lines]  # fmt: skip


def describe_status(status: JobStatus, *, wide: bool = False, now: datetime | None = None) -> list[str]:
    """The status of one job: what, why, how far, and a row for each worker."""
    lines = [f"{status.name}: {status.phase}" + (f" – {status.reason}" if status.reason else "")]
    if status.progress:
        lines.append(f"progress: {status.progress}")
    if streamer := status.details.get("streamer"):
        lines.append(f"streamer: {some_of([streamer['line'], *streamer['problems']], separator='; ')}")
    if slow := status.details.get("slow"):
        lines.append(f"slow: {'; '.join(slow)}")
    if spent := status.time_spent:
        lines.append(f"goodput: {goodput_line(spent['seconds'])}")
    lines.append(f"age: {age(status, now)}   namespace: {status.namespace}")
    lines += ["", *worker_table(status.workers, wide=wide)]
    if status.evidence:
        lines += ["", "last output:", *(f"  {line}" for line in status.evidence)]
    return lines


def worker_table(workers: Sequence[WorkerStatus], *, wide: bool = False) -> list[str]:
    """A row per worker, or where there are many one for all workers in the same state, and few of these."""
    if wide or len(workers) <= MOST_ROWS:
        rows = [[str(w.worker), w.phase, str(w.attempt), w.node or "-", w.pod or "-", w.reason] for w in workers]
        if not wide:
            rows = [[*row[:4], row[5]] for row in rows]
        header = ["WORKER", "PHASE", "ATTEMPT", "NODE", *(["POD"] if wide else []), "REASON"]
        return table(header, rows)
    alike: dict[tuple[str, str], list[WorkerStatus]] = {}
    for each in workers:
        alike.setdefault((each.phase, steady(each.reason)), []).append(each)
    groups = sorted(alike.values(), key=len, reverse=True)
    shown, left = groups[:MOST_ROWS], [each for group in groups[MOST_ROWS:] for each in group]
    rows = [[str(len(group)), group[0].phase, _names(group), group[0].reason] for group in shown]
    if left:
        rows.append([str(len(left)), "…", _names(left), "for other reasons: -o wide"])
    return table(["COUNT", "PHASE", "WORKERS", "REASON"], rows)


def _names(workers: Iterable[WorkerStatus]) -> str:
    return ranges(sorted(each.worker for each in workers), MOST_RANGES)


def job_table(
    jobs: Iterable[JobStatus], *, wide: bool = False, namespaces: bool = False, now: datetime | None = None
) -> list[str]:
    """A row for each job; ``namespaces`` says where each is."""
    rows = []
    for job in jobs:
        up = sum(worker.phase in ("Running", "Finishing", "Succeeded") for worker in job.workers)
        place = [job.namespace] if namespaces else []
        row = [*place, job.name, job.phase, f"{up}/{len(job.workers)}", _epoch(job), age(job, now)]
        rows.append([*row, job.progress or "-", job.reason] if wide else [*row, job.reason])
    header = [*(["NAMESPACE"] if namespaces else []), "NAME", "PHASE", "WORKERS", "EPOCH", "AGE"]
    return table([*header, "PROGRESS", "REASON"] if wide else [*header, "REASON"], rows)


def age(status: JobStatus, now: datetime | None = None) -> str:
    """How long ago the job was made."""
    if not status.created:
        return "-"
    passed = ((now or datetime.now(UTC)) - datetime.fromisoformat(status.created)).total_seconds()
    return format_duration(max(0.0, passed))  # this machine's clock may be behind the API server's


def _epoch(status: JobStatus) -> str:
    progress = Progress.parse(status.details)
    return "-" if progress is None else f"{progress.epoch}/{progress.epochs}"
