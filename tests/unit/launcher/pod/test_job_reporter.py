"""What the run directory's progress and events look like on the Job."""

from __future__ import annotations

import errno
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.cluster.kubernetes_api import ApiError
from launcher.job.labels import PROGRESS_JSON_ANNOTATION
from launcher.pod.job_reporter import (
    JobReporter,
    kubernetes_event,
    progress_sentence,
    report,
    take_events_as_reported,
)
from launcher.streaming.stream_metrics import StreamMetrics
from maskfleet.pace import FleetPace
from maskfleet.phase_log import PhaseLog
from maskfleet.records import Event, Progress, ReporterMark
from maskfleet.run_directory import RunDirectory
from tests.fakes.cluster import FakeCluster

PROGRESS = Progress("running", 3, 20, 57, 380, images_per_second=41.23, loss=0.5123, miou=0.613, eta_seconds=725.0)


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ({}, "epoch 3 of 20, step 57 of 380, 41.2 images/s, loss 0.512, mIoU 0.613, 12m5s left"),
        ({"miou": None, "eta_seconds": None}, "epoch 3 of 20, step 57 of 380, 41.2 images/s, loss 0.512"),
        ({"miou": None, "eta_seconds": None, "loss": None, "images_per_second": None}, "epoch 3 of 20, step 57 of 380"),
    ],
)
def test_progress_is_a_sentence_of_what_is_known(known: dict[str, Any], sentence: str) -> None:
    assert progress_sentence(replace(PROGRESS, **known)) == sentence


def test_a_restart_is_a_warning_on_the_job_with_its_time_and_reason() -> None:
    line = Event(1795428000.5, "restart", "attempt 1 ended: worker 1 left")
    event = kubernetes_event(line, "team", "pets", "0-1")
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "TrainingRestarted", line.message)
    assert event["involvedObject"]["uid"] == "0-1"
    assert event["firstTimestamp"] == "2026-11-23T10:00:00Z"


class Recorder(FakeCluster):
    """A cluster with the job, whose messages and annotations are what it was sent."""

    def __init__(self) -> None:
        super().__init__({"kind": "Job", "metadata": {"name": "pets", "uid": "0-1"}})

    @property
    def events(self) -> list[str]:
        return [each["message"] for (kind, _), each in self.objects.items() if kind == "Event"]

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.objects["Job", "pets"]["metadata"]["annotations"])


def test_the_job_is_told_what_the_run_spends_its_time_on(tmp_path: Path) -> None:
    run, recorder = RunDirectory(tmp_path), Recorder()
    reporter = JobReporter(recorder, "pets", run)
    PhaseLog(run).begin("program_startup")
    reporter.step(last=True)
    PhaseLog(run).begin("computing")
    reporter.step(last=True)
    FleetPace(1.0, ("worker 1 is slow",)).write(run)
    reporter.step(last=True)
    details = json.loads(recorder.annotations["maskfleet/progress.json"])
    assert details["slow"] == ["worker 1 is slow"]
    told = details["time_spent"]
    assert told["then"] == "computing"
    assert sum(told["seconds"].values()) == pytest.approx(told["until"] - told["since"], abs=0.3)


def test_another_number_of_workers_is_one_event_and_they_are_named(tmp_path: Path) -> None:
    run, recorder = RunDirectory(tmp_path), Recorder()
    reporter = JobReporter(recorder, "pets", run)
    PROGRESS.write(run)
    reporter.step(last=True)
    recorder.requests.clear()
    FleetPace(1.0, present="0,2-999").write(run)
    Event.append(run, "scale", "training goes on with 999 of 2 to 1000 workers: worker 1 was lost")
    reporter.step(last=True)
    assert recorder.requests == ["get Job", "create Event", "patch Job"]
    (event,) = [each for (kind, _), each in recorder.objects.items() if kind == "Event"]
    assert (event["type"], event["reason"]) == ("Normal", "WorkersChanged")
    details = json.loads(recorder.annotations[PROGRESS_JSON_ANNOTATION])
    assert (details["state"], details["present"]) == ("restarting", "0,2-999")


def test_what_the_trainer_wrote_before_the_reporter_came_up_is_sent_once(tmp_path: Path) -> None:
    run, recorder = RunDirectory(tmp_path), Recorder()
    Event.append(run, "start", "training starts")
    JobReporter(recorder, "pets", run).step()
    Event.append(run, "end", "training is complete")
    JobReporter(recorder, "pets", run).step()
    assert recorder.events == ["training starts", "training is complete"]


def test_what_hindered_the_streamer_last_is_in_its_line(tmp_path: Path) -> None:
    run, recorder = RunDirectory(tmp_path), Recorder()
    StreamMetrics(errors=2, last_error="gs://b: 503\nService Unavailable").write(run)
    JobReporter(recorder, "pets", run).step()
    streamer = json.loads(recorder.annotations[PROGRESS_JSON_ANNOTATION])["streamer"]
    assert streamer["line"].endswith(" 0 retries, 2 errors, the last: gs://b: 503 Service Unavailable")


def test_what_was_brought_back_from_an_earlier_pod_is_not_sent_again(tmp_path: Path) -> None:
    run, recorder = RunDirectory(tmp_path), Recorder()
    Event.append(run, "start", "training starts")
    take_events_as_reported(run)
    Event.append(run, "restart", "attempt 1 ended")
    JobReporter(recorder, "pets", run).step()
    assert recorder.events == ["attempt 1 ended"]


def test_who_may_not_make_events_still_tells_of_progress(tmp_path: Path) -> None:
    run, recorder = RunDirectory(tmp_path), Recorder()
    Event.append(run, "start", "training starts")
    PROGRESS.write(run)

    def refuse(request: str) -> None:
        if request == "create Event":
            raise ApiError(403, "Forbidden", "may not create events")

    recorder.before = refuse
    reporter = JobReporter(recorder, "pets", run)
    with pytest.raises(ApiError, match="may not create events"):
        reporter.step()
    assert "epoch 3 of 20" in recorder.annotations["maskfleet/progress"]
    asked = len(recorder.requests)
    reporter.step()  # at once, and so without another try
    assert len(recorder.requests) == asked
    recorder.before = lambda request: None
    reporter.step(last=True)
    assert recorder.events == ["training starts"]


def test_an_event_that_the_server_will_never_take_keeps_no_other_back(tmp_path: Path) -> None:
    run, recorder = RunDirectory(tmp_path), Recorder()
    for message in ("first", "second"):
        Event.append(run, "start", message)
    refusals = iter([ApiError(422, "Invalid", "message: Invalid value")])

    def refuse(request: str) -> None:
        if request == "create Event" and (error := next(refusals, None)):
            raise error

    recorder.before = refuse
    JobReporter(recorder, "pets", run).step()
    assert recorder.events == ["second"]


@pytest.mark.parametrize("set_by", [-3600.0, 0.0, 3600.0])
def test_the_state_does_not_depend_on_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_by: float) -> None:
    run, recorder = RunDirectory(tmp_path), Recorder()
    monkeypatch.setattr("launcher.pod.job_reporter.PROGRESS_SECONDS", 0.0)
    reporter = JobReporter(recorder, "pets", run)

    def state(now: float) -> str:
        monkeypatch.setattr("time.time", lambda: now)
        reporter.step()
        return str(json.loads(recorder.annotations[PROGRESS_JSON_ANNOTATION])["state"])

    now = 1795428000.0
    Event.append(run, "start", "training starts")
    assert state(now) == "starting"
    replace(PROGRESS, loss=None, time=now + set_by).write(run)
    assert state(now + set_by) == "starting"
    replace(PROGRESS, time=now + set_by + 1).write(run)
    assert state(now + set_by + 1) == "training"
    Event.append(run, "restart", "attempt 1 ended")
    assert state(now + 2 * set_by) == "restarting"
    replace(PROGRESS, time=now).write(run)
    assert state(now) == "training"


def test_a_full_disk_does_not_end_the_reporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, recorder, stop = RunDirectory(tmp_path), Recorder(), threading.Event()
    monkeypatch.setattr("launcher.pod.job_reporter.STEP_SECONDS", 0.01)
    monkeypatch.setattr("launcher.pod.job_reporter.PROGRESS_SECONDS", 0.0)
    write, full = ReporterMark.write, OSError(errno.ENOSPC, "No space left on device")

    def fail(mark: ReporterMark, run: RunDirectory) -> None:
        monkeypatch.setattr(ReporterMark, "write", write)
        raise full

    monkeypatch.setattr(ReporterMark, "write", fail)
    Event.append(run, "start", "training starts")
    thread = threading.Thread(target=report, args=(JobReporter(recorder, "pets", run), stop))
    thread.start()
    time.sleep(0.2)
    Event.append(run, "end", "training is complete")
    stop.set()
    thread.join()
    assert recorder.events == ["training starts", "training is complete"]
