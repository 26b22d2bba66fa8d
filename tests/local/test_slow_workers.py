"""A worker that something holds up is named in the log and in workers.json within a minute."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from maskfleet.pace import FleetPace
from tests.helpers.processes import LocalRun, until

LONG = ("--epochs=1000", "--image-size=64", "--global-batch=16", "--checkpoint-steps=0")
MINUTE = 60.0


@contextlib.contextmanager
def limited(run: LocalRun, share: float) -> Iterator[None]:
    """Worker 1 in a cgroup of its own, whose CPU limit is ``share`` of one."""
    v1 = Path("/sys/fs/cgroup/cpu")
    group = (v1 if v1.is_dir() else Path("/sys/fs/cgroup")) / f"maskfleet-test-{os.getpid()}"
    try:
        group.mkdir()
        if v1.is_dir():
            (group / "cpu.cfs_quota_us").write_text(str(int(share * 100_000)))
        else:
            (group / "cpu.max").write_text(f"{int(share * 100_000)} 100000")
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"no cgroup may be made here: {error}")
    members = [run.supervisor(1).pid, run.training_process(1).pid]
    try:
        for pid in members:
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for pid in members:
            with contextlib.suppress(OSError):
                (group.parent / "cgroup.procs").write_text(str(pid))
        with contextlib.suppress(OSError):
            group.rmdir()


@contextlib.contextmanager
def stopped_now_and_then(run: LocalRun) -> Iterator[None]:
    """Worker 1 is stopped three quarters of the time."""
    process, over = run.training_process(1), threading.Event()

    def pulse() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while not over.is_set():
                process.send_signal(signal.SIGSTOP)
                over.wait(0.15)
                process.send_signal(signal.SIGCONT)
                over.wait(0.05)

    thread = threading.Thread(target=pulse)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def named(run: LocalRun) -> str:
    """The line about the first worker that is named."""
    found = until(lambda: (FleetPace.read(run.directory) or FleetPace(0.0)).slow, "a slow worker", MINUTE)
    return str(found[0])


@pytest.mark.long
def test_a_worker_with_a_cpu_limit_is_named_with_its_cause(tmp_path: Path):
    with LocalRun.start(tmp_path / "run", *LONG) as run:
        run.wait_for_step(20)
        with limited(run, 0.15):
            line = named(run)
            until(lambda: line in run.output.read_text(), "the line in the log")
        assert run.interrupt() == 130
    assert line.startswith("worker 1 takes ")
    assert "its CPU is throttled " in line


@pytest.mark.long
def test_a_worker_that_is_stopped_now_and_then_is_named(tmp_path: Path):
    with LocalRun.start(tmp_path / "run", *LONG) as run:
        run.wait_for_step(20)
        with stopped_now_and_then(run):
            assert named(run).startswith("worker 1 takes ")
        assert run.interrupt() == 130
