"""What supervisors tell the chief's of their training processes, and what it writes down."""

from __future__ import annotations

import json
import os
import sys
import time
import types
from dataclasses import asdict
from pathlib import Path

import pytest

from maskfleet.environment import HEARTBEAT_VARIABLE
from maskfleet.pace import NO_STEPS, FleetPace, Steps, Usage
from maskfleet.run_directory import RunDirectory
from trainer import cgroup
from trainer.supervision.fleet import Fleet, OwnPace
from trainer.supervision.rendezvous import parse_order, serialize
from trainer.supervision.usage import UsageMeter
from trainer.training import pace
from trainer.training.pace import PaceMeter

STEPS = Steps(10, 4.0, 0.1, 2.5, 1.0)


def answer(steps: Steps, **usage: float) -> dict[str, object]:
    return {"is": "pace", "steps": asdict(steps), "usage": usage}


def test_lines_among_heartbeats_are_added_up_however_they_are_cut():
    line = json.dumps(asdict(STEPS)).encode() + b"\n"
    written = b"..." + line + b"." + line + b"no line\n" + b"{}\n" + b"." * 10_000
    for size in (1, 7, 1 << 16):
        own = OwnPace()
        for start in range(0, len(written), size):
            own.take(written[start : start + size])
        assert own.message() == answer(STEPS + STEPS)
        assert own.message() == answer(NO_STEPS)


def test_a_training_process_tells_each_second_what_its_steps_took(monkeypatch: pytest.MonkeyPatch):
    read, write = os.pipe()
    monkeypatch.setenv(HEARTBEAT_VARIABLE, str(write))
    clock = iter([100.0, 100.4, 100.9, 101.5])
    monkeypatch.setattr(pace, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    meter = PaceMeter(share=0.5)
    for _ in range(5):  # the first one traces
        meter.steps(1, 2.0, 0.1, 1.0, 0.5)
    told = [json.loads(line) for line in os.read(read, 1 << 16).splitlines()]
    assert [each["count"] for each in told] == [1, 3]
    assert told[1]["compute"] == pytest.approx(6.0)  # as with twice as many examples
    os.close(read)
    os.close(write)


def test_the_chief_asks_and_writes_down(tmp_path: Path):
    run, lines = RunDirectory(tmp_path), []
    fleet = Fleet(run, lines.append)
    assert FleetPace.read(run) is None
    slow = Steps(10, 6.0, 0.1, 5.0, 0.0)
    for number in range(5):
        question = fleet.question()
        assert parse_order(serialize(question)) == question == {"do": "ping", "mark": number + 1}
        for worker, steps in ((1, slow), (0, Steps(10, 6.0, 0.1, 2.5, 2.5))):
            fleet.hear(worker, {"is": "pong", "mark": question["mark"]}, network=1000.0 * worker)
            fleet.hear(worker, answer(steps, throttled=0.4 * worker))
    fleet.question()
    line = "worker 1 takes 2.0 times the others' compute; its CPU is throttled 40% of the time"
    assert lines == [line]
    found = FleetPace.read(run)
    assert found is not None
    assert found.slow == (line,)
    assert [*found.workers] == ["0", "1"]
    assert found.workers["1"].compute == 0.5
    assert found.workers["0"].round_trip == 0.0
    assert 0 < (found.workers["1"].round_trip or 0) < 100, "no longer than the answer took"
    fleet.start_again()
    assert FleetPace.read(run) == FleetPace(pytest.approx(time.time(), abs=60))


@pytest.mark.parametrize(
    "message", [{}, {"steps": {}}, {"steps": asdict(STEPS), "usage": {"throttled": 7}}, {"steps": [], "usage": None}]
)
def test_an_answer_that_is_none_is_passed_over(tmp_path: Path, message: dict[str, object]):
    fleet = Fleet(RunDirectory(tmp_path), print)
    fleet.hear(1, {"is": "pace", **message})
    fleet.question()
    assert FleetPace.read(RunDirectory(tmp_path)) is None


def test_a_late_answer_is_of_no_round_trip(tmp_path: Path):
    fleet = Fleet(RunDirectory(tmp_path), print)
    fleet.question()
    fleet.hear(0, {"is": "pong", "mark": 77}, network=0.001)
    fleet.hear(0, answer(STEPS))
    fleet.hear(1, {"is": "pong", "mark": 1}, network=None)  # of a kernel that does not tell
    fleet.hear(1, answer(STEPS))
    fleet.question()
    found = FleetPace.read(RunDirectory(tmp_path))
    assert found is not None
    assert [pace.round_trip for pace in found.workers.values()] == [None, None]


def test_usage_is_what_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def threads(*stats: str) -> None:
        for number, stat in enumerate(stats):
            path = tmp_path / "7/task" / str(number) / "schedstat"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(stat)

    periods = iter([cgroup.CpuPeriods(100, 10), cgroup.CpuPeriods(150, 30), cgroup.CpuPeriods(150, 30)])
    monkeypatch.setattr(cgroup, "cpu_periods", lambda: next(periods))
    monkeypatch.setattr(cgroup, "io_stalled", lambda: None)
    monkeypatch.setattr(cgroup, "memory", lambda: cgroup.Memory(1000, 900, 0))
    threads("1000000000 0 5", "0 0 1")
    meter = UsageMeter(7, tmp_path)
    threads("2500000000 500000000 5", "500000000 0 1", "gone")
    found = meter.usage()
    assert found.cpu_wait == pytest.approx(0.5 / 2.5)
    assert (found.throttled, found.memory, found.io_wait, found.gpu) == (0.4, 0.9, None, None)
    assert meter.usage().throttled is None, "without a period nobody knows"


def test_this_process_uses_a_cpu():
    meter = UsageMeter(os.getpid())
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        pass
    assert 0 < (meter.usage().cpus or 0) < 10


def test_a_process_that_is_gone_uses_nothing(tmp_path: Path):
    found = UsageMeter(7, tmp_path).usage()
    assert (found.cpus, found.cpu_wait) == (None, None)


def test_gpus_are_told_by_nvidias_library(monkeypatch: pytest.MonkeyPatch):
    memory, busy = [(30, 100), (10, 100)], [90, 70]
    monkeypatch.setitem(sys.modules, "pynvml", types.SimpleNamespace(
        nvmlInit=lambda: None, nvmlShutdown=lambda: None, NVMLError=RuntimeError, nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUtilizationRates=lambda index: types.SimpleNamespace(gpu=busy[index]),
        nvmlDeviceGetMemoryInfo=lambda index: types.SimpleNamespace(used=memory[index][0], total=memory[index][1]),
    ))  # fmt: skip
    found = UsageMeter(os.getpid()).usage()
    assert (found.gpu, found.gpu_memory) == (0.8, 0.2)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert UsageMeter(os.getpid()).usage().gpu is None
    assert Usage().gpu is None
