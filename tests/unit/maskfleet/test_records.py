"""A run's files: what is written is read, and what is no record is passed over."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfleet.errors import BadInput, NotFound
from maskfleet.files import append_line
from maskfleet.records import (
    Event,
    Examples,
    FinalScores,
    MetricsLine,
    Progress,
    ReporterMark,
    Resolved,
    RunRecord,
    write_settings,
)
from maskfleet.run_directory import RunDirectory

PROGRESS = Progress("running", epoch=1, epochs=3, step=40, steps=120, loss=0.5, miou=math.inf, time=1.5)
SCORES: dict[str, Any] = dict.fromkeys(
    ("miou", "miou_without_background", "frequency_weighted_iou", "pixel_accuracy", "mean_class_accuracy", "mean_dice"),
    0.75,
)
LINE = MetricsLine(1, 40, 3.2, 41.5, 0.5, 0.6, 0.7, **SCORES, iou={"a": 0.5, "b": None}, confusion=[[1, 2], [3, 4]])
NO_RECORDS = [
    b"",
    b"null",
    b"[1]",
    b"{}",
    b"\xff",
    b'{"epoch": 1',
    b'{"epoch": "x"}',
    b'{"settings": "x", "read": "17"}',
    b"[" * 100_000,
    b'{"step": 1e999}',
]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def test_each_record_is_read_as_it_was_written(run: RunDirectory) -> None:
    PROGRESS.write(run)
    assert Progress.read(run) == PROGRESS
    LINE.append(run)
    LINE.append(run)
    assert MetricsLine.read_all(run) == [LINE, LINE]
    Event.append(run, "start", "training starts")
    assert [(event.kind, event.message) for event in Event.read_all(run)] == [("start", "training starts")]
    record = RunRecord(
        {"epochs": 3},
        Resolved(workers=2, image_size="360x480", classes=["a"], colours=[[1, 2, 3]], fit="crop"),
        "f",
        "miou",
        {"k": "1"},
    )
    record.write(run)
    assert RunRecord.read(run) == record
    ReporterMark(17).write(run)
    assert ReporterMark.load(run) == ReporterMark(17)


def test_a_run_that_has_not_begun_has_settings_alone(run: RunDirectory) -> None:
    RunRecord({"epochs": 3}).write(run)
    assert json.loads(run.config.read_text()) == {"settings": {"epochs": 3}}


@pytest.mark.parametrize("content", NO_RECORDS)
def test_what_is_no_record_is_none(run: RunDirectory, content: bytes) -> None:
    for path in (run.progress, run.metrics, run.events, run.path / ".reporter.json"):
        path.write_bytes(content)
    assert Progress.read(run) is None
    assert MetricsLine.read_all(run) == []
    assert Event.read_all(run) == []
    assert ReporterMark.load(run) is None


BEYOND = [("step", -1), ("epoch", -99), ("steps", 1 << 70), ("time", -1.0), ("time", 1e300), ("eta_seconds", math.inf),
          ("eta_seconds", math.nan), ("eta_seconds", -1.0), ("step", True), ("step", 1.0), ("state", 1)]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), BEYOND)
def test_numbers_beyond_sense_are_no_record(run: RunDirectory, key: str, value: object) -> None:
    run.progress.write_text(json.dumps({**dataclasses.asdict(PROGRESS), key: value}))
    assert Progress.read(run) is None


@pytest.mark.parametrize("time", [-1.0, 1e300, math.inf, math.nan])
def test_an_event_of_no_time_is_passed_over(run: RunDirectory, time: float) -> None:
    Event.append(run, "start", "first")
    with run.events.open("a") as file:
        file.write(json.dumps({"time": time, "kind": "end", "message": "forged"}) + "\n")
    Event.append(run, "end", "last")
    assert [event.message for event in Event.read_all(run)] == ["first", "last"]
    assert [event.message for event in Event.read_from(run, 0)[0]] == ["first", "last"]


def test_a_mark_beyond_the_end_of_the_events_hides_none_that_follow(run: RunDirectory) -> None:
    Event.append(run, "start", "first")
    events, end = Event.read_from(run, 1 << 40)
    assert (events, end) == ([], run.events.stat().st_size)
    Event.append(run, "end", "last")
    assert [event.message for event in Event.read_from(run, end)[0]] == ["last"]
    run.reporter_mark.write_text('{"read": -5}')
    assert ReporterMark.load(run) is None


def test_a_fifo_in_the_place_of_a_record_is_none(run: RunDirectory) -> None:
    for path in (run.progress, run.metrics, run.events, run.reporter_mark, run.examples, run.config):
        os.mkfifo(path)
    assert (Progress.read(run), MetricsLine.read_all(run), Event.read_all(run)) == (None, [], [])
    assert (Event.read_from(run, 3), ReporterMark.load(run), Examples.read(run)) == (([], 3), None, None)
    with pytest.raises(BadInput, match=r"config\.json: can't be read: expected a file, found a pipe or device"):
        RunRecord.read(run)


@pytest.mark.parametrize("content", NO_RECORDS)
def test_a_config_that_is_no_run_s_is_one_line(run: RunDirectory, content: bytes) -> None:
    run.config.write_bytes(content)
    with pytest.raises(BadInput, match=r"config\.json: expected the settings of a run: ") as error:
        RunRecord.read(run)
    assert "\n" not in str(error.value)


def test_a_missing_config_is_no_run(run: RunDirectory) -> None:
    with pytest.raises(NotFound, match="there is no run: expected"):
        RunRecord.read(run)


def test_keys_that_are_not_known_and_keys_that_are_missing_are_no_hindrance(run: RunDirectory) -> None:
    old: dict[str, Any] = {"epoch": 1, "step": 2, "training_seconds": 3, "images_per_second": 4, "loss": 5}
    run.metrics.write_text(json.dumps({**old, "validation_loss": 6, "of_tomorrow": 7}) + "\n")
    (line,) = MetricsLine.read_all(run)
    assert (line.validation_loss, dict(line.dice)) == (6.0, {})


def test_a_bad_line_between_good_ones_is_passed_over(run: RunDirectory) -> None:
    LINE.append(run)
    with run.metrics.open("ab") as file:
        file.write(b'{"epoch": 2, "st\n')
    LINE.append(run)
    assert len(MetricsLine.read_all(run)) == 2


@given(cut=st.integers(0, 60), tail=st.binary(max_size=50).filter(lambda tail: b"\n" not in tail))
def test_a_line_follows_whole_lines_wherever_a_write_was_cut(
    cut: int, tail: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    whole = b"first\n" * (cut % 3)
    path.write_bytes(whole + tail)
    append_line(path, "last")
    assert path.read_bytes() == whole + b"last\n"


@pytest.mark.parametrize("room", range(12))
def test_a_line_for_which_there_is_no_room_is_undone(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RLIMIT_FSIZE stands in for a full disk: a write takes what fits, and the next one fails."""
    import resource
    import signal

    path = tmp_path / "file"
    path.write_bytes(b"first\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 + room, limits[1]))
    try:
        if room < len("second\n"):
            with pytest.raises(OSError, match=f"{errno.ENOSPC}|{errno.EFBIG}"):
                append_line(path, "second")
        else:
            append_line(path, "second")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == (b"first\n" if room < 7 else b"first\nsecond\n")


def test_keys_of_a_later_version_stay_when_settings_change(run: RunDirectory) -> None:
    run.config.write_text(json.dumps({"settings": {"epochs": 1}, "of_tomorrow": 7}))
    write_settings(run, {"epochs": 2})
    assert json.loads(run.config.read_text()) == {"settings": {"epochs": 2}, "of_tomorrow": 7}


def test_a_pipe_in_a_file_s_place_is_not_waited_for(run: RunDirectory) -> None:
    for path in (run.config, run.progress, run.examples, run.metrics, run.events, run.path / ".reporter.json"):
        os.mkfifo(path)
    assert Progress.read(run) is None
    assert Examples.read(run) is None
    assert MetricsLine.read_all(run) == []
    assert Event.read_from(run, 5) == ([], 5)
    assert ReporterMark.load(run) is None
    for read in (RunRecord.read, lambda run: write_settings(run, {})):
        with pytest.raises(BadInput, match="expected a file, found a pipe or device"):
            read(run)


@pytest.mark.parametrize(
    ("split", "chosen_on", "title"),
    [
        ("test", None, "on the test split"),
        ("test", "validation", "on the test split, of epoch 3, which was chosen on the validation split"),
        ("test", "test", "on the test split, on which the end of training was chosen too: the scores are too good"),
        (
            "validation",
            "validation",
            "on the validation split, on which epoch 3 was chosen too: the data has no test split",
        ),
    ],
)
def test_final_scores_say_which_split_chose_what(split: str, chosen_on: str | None, title: str, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert FinalScores.read(run) is None
    scores = FinalScores(split, 60, chosen_on, 120, 3, 0.5, miou=0.7, iou={"a": 0.7, "b": None}, confusion=[[1, 2]])
    scores.write(run)
    found = FinalScores.read(run)
    assert found is not None
    assert found.title == title
    assert (found.iou, found.confusion, found.step) == (scores.iou, scores.confusion, 120)
    run.scores.write_bytes(b'{"split": "test"')
    assert FinalScores.read(run) is None


def test_a_run_of_before_was_validated_on_its_test_split() -> None:
    assert (Resolved().chooser, Resolved(validation_examples=3).chooser) == ("test", "validation")


@pytest.mark.parametrize("count", [-1, 1 << 63])
def test_a_count_beyond_sense_in_a_confusion_matrix_is_no_metrics(tmp_path: Path, count: int) -> None:
    run = RunDirectory(tmp_path)
    MetricsLine(1, 1, 1.0, 1.0, 1.0, 1.0, confusion=((count,),)).append(run)
    assert MetricsLine.read_all(run) == []
