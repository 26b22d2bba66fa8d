"""Puts the run's progress and events on its Job, where kubectl and ``launcher status`` see them.

Runs in the streamer's container of the chief, the only worker that writes them.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from launcher.cluster.kubernetes_api import ApiError, Object
from launcher.cluster.namespace import Namespace
from launcher.job.labels import EPOCH_LABEL, PROGRESS_ANNOTATION, PROGRESS_JSON_ANNOTATION
from launcher.streaming.stream_metrics import StreamMetrics
from maskfleet.errors import MaskfleetError
from maskfleet.goodput import TimeSpent
from maskfleet.pace import FleetPace
from maskfleet.phase_log import PhaseLog
from maskfleet.records import Event, Progress, ReporterMark
from maskfleet.run_directory import RunDirectory
from maskfleet.text import cut_to_bytes, format_duration, one_line

PROGRESS_SECONDS = 5.0
"""Between two updates of the Job: often enough to watch, rare enough for an API server with many jobs."""
STEP_SECONDS = 0.5
FORBIDDEN_SECONDS = 60.0
"""Until what was forbidden is tried again: the right may be given meanwhile."""
MOST_WAITING = 200
"""Events that wait for an API server that does not take them; of more the oldest are left out."""
MOST_PROBLEMS = 10
"""Of the streamer's, that are put on the Job; the others are counted. All annotations together may have 256 KiB."""
_NOTE_BYTES = 1000  # of an event; the API takes 1024
_NO_EVENT = (400, 413, 422)  # one that the server will never take must not keep back those after it
_LABEL_LENGTH = 63  # that the API takes
_REASONS = {"start": "TrainingStarted", "restart": "TrainingRestarted", "scale": "WorkersChanged",
            "checkpoint": "CheckpointSaved", "end": "TrainingEnded"}  # fmt: skip


class JobReporter:
    """Brings the Job up to date with the run directory, a step at a time.

    Args:
        cluster: the Job's namespace, as this pod's service account may see it.
        job: the Job's name.
        run: the run directory. The trainer may have written events to it before the reporter came up.
    """

    def __init__(self, cluster: Namespace, job: str, run: RunDirectory):
        self._cluster, self._job, self._run = cluster, job, run
        self._uid: str | None = None
        self._read = 0
        self._waiting: deque[Event] = deque(maxlen=MOST_WAITING)
        self._event: Event | None = None
        self._before: Progress | None = None  # what the event found
        self._reported: Mapping[str, Any] = {}
        self._next = self._next_events = 0.0
        self._phases = PhaseLog(run)
        if mark := ReporterMark.load(run):  # an earlier attempt of this container, or an earlier pod
            self._read = mark.read
            if earlier := Event.read_all(run, end=self._read):
                self._event = earlier[-1]
                found = Progress.read(run)
                self._before = found if found and found.time <= self._event.time else None

    def step(self, *, last: bool = False) -> None:
        """Sends what is new; ``last`` sends the progress even if the last update is recent.

        Raises:
            MaskfleetError: the API server refuses or does not answer; a later step tries again.
            OSError: what was sent can't be noted.
        """
        events, self._read = Event.read_from(self._run, self._read)
        self._waiting += events
        if events:
            self._event, self._before = events[-1], Progress.read(self._run)
        try:
            if last or time.monotonic() >= self._next_events:
                self._send_events()
        except ApiError as error:
            if error.is_forbidden:
                self._next_events = time.monotonic() + FORBIDDEN_SECONDS
            raise
        finally:  # the two are rights of their own
            if last or time.monotonic() >= self._next:
                self._send_progress()

    def _send_events(self) -> None:
        while self._waiting:
            try:
                self._send_event(self._waiting[0])
            except ApiError as error:
                if error.status not in _NO_EVENT:
                    raise
            self._waiting.popleft()
            if not self._waiting:
                ReporterMark(self._read).write(self._run)

    def _send_event(self, event: Event) -> None:
        if self._uid is None:
            self._uid = self._cluster.get("Job", self._job)["metadata"]["uid"]
        self._cluster.create(kubernetes_event(event, self._cluster.namespace, self._job, self._uid))

    def _send_progress(self) -> None:
        self._next = time.monotonic() + PROGRESS_SECONDS
        progress = Progress.read(self._run)
        details = {**(asdict(progress) if progress else {}), **_state(self._event, progress, self._before)}
        details.pop("time", None)
        if spent := TimeSpent.of(self._phases.catch_up()):
            details["time_spent"] = asdict(spent)
        if fleet := FleetPace.read(self._run):
            details["slow"] = list(fleet.slow)
            if fleet.present:
                details["present"] = fleet.present
        if streamed := StreamMetrics.load(self._run):
            details["streamer"] = _streamer(streamed)
        if not details or details == self._reported:
            return
        annotations = {PROGRESS_JSON_ANNOTATION: json.dumps(details)}
        metadata: Object = {"annotations": annotations}
        if progress:
            annotations[PROGRESS_ANNOTATION] = progress_sentence(progress)
            label = f"{progress.epoch}-of-{progress.epochs}"
            metadata["labels"] = {EPOCH_LABEL: label} if len(label) <= _LABEL_LENGTH else {}
        try:
            self._cluster.patch("Job", self._job, {"metadata": metadata})
        except ApiError as error:
            if error.is_forbidden:
                self._next = time.monotonic() + FORBIDDEN_SECONDS
            raise
        self._reported = details


def _streamer(streamed: StreamMetrics) -> dict[str, Any]:
    """What is put on the Job of it, which does not grow with the number of files."""
    problems = [one_line(problem) for problem in streamed.problems[:MOST_PROBLEMS]]
    if len(streamed.problems) > MOST_PROBLEMS:
        problems.append(f"and {len(streamed.problems) - MOST_PROBLEMS} more")
    facts = {**asdict(streamed), "last_error": one_line(streamed.last_error), "problems": problems}
    del facts["time"]  # it alone is nothing new
    return {**facts, "line": _streamers_line(streamed)}


def _streamers_line(streamed: StreamMetrics) -> str:
    """How far the streamer is, and what hindered it last."""
    return streamed.line() + (f", the last: {one_line(streamed.last_error)}" if streamed.last_error else "")


def take_events_as_reported(run: RunDirectory) -> None:
    """Has no reporter send again what ``run`` holds, which has just been brought back from an earlier pod."""
    if run.events.exists() and ReporterMark.load(run) is None:
        ReporterMark(run.events.stat().st_size).write(run)


def progress_sentence(progress: Progress) -> str:
    """``epoch 3 of 20, step 57 of 380, 41.2 images/s, loss 0.512, mIoU 0.613, 12m left``, as far as it is known."""
    known = (
        (progress.images_per_second, "{:.1f} images/s"),
        (progress.loss, "loss {:.3f}"),
        (progress.miou, "mIoU {:.3f}"),
    )
    parts = [f"epoch {progress.epoch} of {progress.epochs}", f"step {progress.step} of {progress.steps}"]
    parts += [form.format(value) for value, form in known if value is not None]
    if progress.eta_seconds:
        parts.append(f"{format_duration(progress.eta_seconds)} left")
    return ", ".join(parts)


def kubernetes_event(event: Event, namespace: str, job: str, uid: str) -> Object:
    """An event of the run as one on its Job."""
    at = datetime.fromtimestamp(event.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{job}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": "batch/v1", "kind": "Job", "name": job, "namespace": namespace, "uid": uid,
        },
        "type": "Warning" if event.kind == "restart" else "Normal",
        "reason": _REASONS.get(event.kind, "Training"),
        "message": cut_to_bytes(one_line(event.message, _NOTE_BYTES), _NOTE_BYTES),
        "source": {"component": "maskfleet"},
        "reportingComponent": "maskfleet",
        "reportingInstance": f"{job}-0",
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }  # fmt: skip


def report(reporter: JobReporter, stop: threading.Event) -> None:
    """Steps until ``stop`` is set, and a last time then; says once what hinders it and goes on trying."""
    reported = forbidden = ""
    while True:
        last = stop.wait(STEP_SECONDS)
        try:
            reporter.step(last=last)
            reported = ""
        except (MaskfleetError, OSError) as error:  # also of the disk: nobody starts this thread again
            if str(error) not in (reported, forbidden):
                reported = str(error)
                print(f"progress can't be put on the Job: {error}", flush=True)
            if isinstance(error, ApiError) and error.is_forbidden:
                forbidden = str(error)  # said once, as it is tried again for as long as the pod lives
        if last:
            return


def _state(event: Event | None, progress: Progress | None, before: Progress | None) -> dict[str, Any]:
    """Whether the training processes are starting, restarting or training, by what was written last.

    That is told by the progress's having changed since the event, not by their times: the clock may have been set.
    """
    state = {"start": "starting", "restart": "restarting", "scale": "restarting"}.get(event.kind) if event else None
    trains = event and progress and progress.loss is not None and progress != before
    if event and state and not trains:
        return {"state": state, "message": one_line(event.message, _NOTE_BYTES)}
    return {"state": "training"} if progress else {}
