"""A worker that something holds up is named in the log and in workers.json within a minute."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launcher.local.local_run import free_port_pairs
from maskfleet.pace import FleetPace
from maskfleet.run_directory import RunDirectory
from tests.helpers.delayed_network import ADDRESSES, delayed_network
from tests.helpers.packed_data import drawn_pairs, write_packed
from tests.helpers.processes import LocalRun, pods, until
from tests.helpers.slow_disk import slow_disk

LONG = ("--spare=off", "--epochs=1000", "--image-size=64", "--global-batch=16", "--checkpoint-steps=0")
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


def named(run: RunDirectory) -> str:
    """The only line about the workers that are named first."""
    (found,) = until(lambda: (FleetPace.read(run) or FleetPace(0.0)).slow, "a slow worker", MINUTE)
    return str(found)


def wait_for_steps(run: RunDirectory) -> None:
    """Until all workers have told of some."""

    def all_step() -> bool:
        fleet = FleetPace.read(run)
        return fleet is not None and all(pace.steps.count for pace in fleet.workers.values()) and bool(fleet.workers)

    until(all_step, "steps of all workers")


@pytest.mark.long
def test_a_worker_with_a_cpu_limit_is_named_with_its_cause(tmp_path: Path):
    with LocalRun.start(tmp_path / "run", *LONG) as run:
        run.wait_for_step(20)
        with limited(run, 0.15):
            line = named(run.directory)
            until(lambda: line in run.output.read_text(), "the line in the log")
        assert run.interrupt() == 130
    assert line.startswith("worker 1 takes ")
    assert "its CPU is throttled " in line


@pytest.mark.long
def test_a_worker_that_is_stopped_now_and_then_is_named(tmp_path: Path):
    with LocalRun.start(tmp_path / "run", *LONG) as run:
        run.wait_for_step(20)
        with stopped_now_and_then(run):
            assert named(run.directory).startswith("worker 1 takes ")
        assert run.interrupt() == 130


@pytest.mark.long
@pytest.mark.parametrize(("away", "line"), [
    (1, r"the network between workers 0 and 1 takes \d+ ms there and back, to the others under 1 ms"),
    (0, r"the network between worker 0 and all others takes \d+ ms there and back"),
])  # fmt: skip
def test_a_worker_behind_a_slow_network_is_named(away: int, line: str, tmp_path: Path):
    sides = [int(worker == away) for worker in range(3)]
    peers = tuple(f"{ADDRESSES[side]}:{20_000 + 10 * worker}" for worker, side in enumerate(sides))
    with delayed_network() as network:
        own = {worker: (network.prefix(side), ()) for worker, side in enumerate(sides)}
        with pods(tmp_path, peers, *LONG, own=own) as run:
            wait_for_steps(run)
            network.delay = 0.03
            found = named(run)
            until(lambda: found in (tmp_path / "worker-0.out").read_text(), "the line in the log")
    assert re.fullmatch(line, found)


@pytest.mark.long
def test_a_worker_whose_data_lies_on_a_slow_disk_is_named_with_its_cause(tmp_path: Path):
    peers = tuple(f"127.0.0.1:{port}" for port in free_port_pairs(3))
    with slow_disk(tmp_path) as disk:
        places = (tmp_path / "packed", disk.folder / "packed")
        for place in places:
            write_packed(place, drawn_pairs(50, 64), train=8000, test=6)
        # Less than all of the scaled pairs: then the records are read where they lie, again and again.
        settings = (*LONG, f"--data=packed:{places[0]}", "--cache=64KB")
        own = {worker: (disk.prefix(slow=worker == 1), ()) for worker in range(3)}
        own[1] = (own[1][0], (f"--data=packed:{places[1]}",))
        with pods(tmp_path, peers, *settings, own=own) as run:
            wait_for_steps(run)
            disk.limit(reads=3)
            line = named(run)
    assert re.fullmatch(r"worker 1 waits .* for its data, the others .*; it waits for its disk \d+% of the time", line)
