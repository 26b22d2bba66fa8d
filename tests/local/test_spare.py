"""Spare processes: they take the place of a lost training process, and never outlive their supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from launcher.local.local_run import free_port_pairs
from maskfleet.errors import BAD_INPUT, DONE
from tests.helpers.processes import LocalRun, environment_of, inspect, leftovers, until

SUPERVISE = """
import sys
from pathlib import Path
from maskfleet.peers import Peers
from maskfleet.config import TrainConfig
from maskfleet.run_directory import RunDirectory
from maskfleet.run_lock import open_worker_log
from trainer import cgroup
from trainer.supervision import spare
from trainer.supervision.supervisor import supervise

spare.DELAY_SECONDS, spare.FIRST_RETRY_SECONDS = .1, .5
_, path, when, free, training, waiting = sys.argv
cgroup.free_memory = lambda: int(free)
config = TrainConfig(spare=when)
run, peers = RunDirectory(Path(path)), Peers.from_environment()
with open_worker_log(run, peers.worker) as log:
    command, spare_command = ([sys.executable, "-c", program] for program in (training, waiting))
    sys.exit(supervise(command, config, peers, run, log, spare_command))
"""
HABITAT = """
import os, resource, signal
heartbeat = int(os.environ.pop("MASKFLEET_HEARTBEAT_FD"))
os.fstat(heartbeat)
print("habitat", os.getsid(0), os.getpgid(0), os.getcwd(), sorted(os.environ.items()), resource.getrlimit(3),
      [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD)],
      signal.pthread_sigmask(signal.SIG_BLOCK, []), os.readlink("/proc/self/fd/0"), flush=True)
"""
TRAINS = f"""
import json, time
{HABITAT}
while True:
    steps = {{"count": 1, "seconds": .1, "input": .01, "compute": .05, "all_reduce": .04}}
    os.write(heartbeat, json.dumps(steps).encode() + b"\\n")
    time.sleep(.1)
"""
WAITS = f"""
import os, sys
if os.read(int(sys.argv[1]), 1):
    print("takes over", flush=True)
    {HABITAT.replace(chr(10), chr(10) + "    ")}
"""
PLENTY = 1 << 50


@contextmanager
def supervised(
    path: Path, when: str = "auto", free: int = PLENTY, waits: str = WAITS
) -> Iterator[tuple[psutil.Popen, Path]]:
    """A supervisor over processes that stand in for training, and its log."""
    peers = tuple(f"127.0.0.1:{port}" for port in free_port_pairs(1))
    process = psutil.Popen(
        [sys.executable, "-c", SUPERVISE, str(path), when, str(free), TRAINS, waits], env=environment_of(0, peers, path)
    )
    try:
        yield process, path / "logs" / "worker-0.log"
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def child(supervisor: psutil.Popen, program: str) -> psutil.Process | None:
    """The one that runs ``program``."""
    for each in supervisor.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie among them
            if program in each.cmdline():
                return each
    return None


def test_the_spare_takes_over_in_the_surroundings_of_one_that_was_started(tmp_path: Path) -> None:
    with supervised(tmp_path) as (supervisor, log):
        spare = until(lambda: child(supervisor, WAITS), "a spare process")
        training = child(supervisor, TRAINS)
        assert training is not None
        training.kill()
        assert supervisor.wait(60) == DONE
        lines = log.read_text().splitlines()
    assert not spare.is_running()
    assert "worker 0: the training process was killed by SIGKILL" in lines
    assert lines[-2] == "takes over"
    first, second = (line for line in lines if line.startswith("habitat"))
    assert first == second
    assert sum(line.startswith("--spare auto: a spare process waits; training takes") for line in lines) == 1


def test_a_spare_that_is_lost_is_told_and_replaced(tmp_path: Path) -> None:
    with supervised(tmp_path) as (supervisor, log):
        first = until(lambda: child(supervisor, WAITS), "a spare process")
        first.kill()
        until(lambda: (found := child(supervisor, WAITS)) and found.pid != first.pid, "another spare process")
        assert "the spare process was lost (killed by SIGKILL); there is another one in 0 s" in log.read_text()
        training = child(supervisor, TRAINS)
        assert training is not None
        training.kill()
        assert supervisor.wait(60) == DONE


def test_a_spare_that_can_not_live_is_tried_less_and_less_often(tmp_path: Path) -> None:
    broken = "raise SystemExit('no module named tensorflow')"
    with supervised(tmp_path, waits=broken) as (supervisor, log):
        until(lambda: log.exists() and log.read_text().count("the spare process was lost") == 3, "three of them")
        found = [line for line in log.read_text().splitlines() if "the spare process was lost" in line]
        assert found[0].startswith("the spare process was lost (exit code 1: no module named tensorflow); there is")
        assert [line.rpartition("in ")[2] for line in found] == ["0 s", "1 s", "2 s"]
        assert child(supervisor, TRAINS) is not None, "training goes on"


@pytest.mark.parametrize(
    ("when", "free", "waits", "line"),
    [
        ("off", PLENTY, False, None),
        ("auto", 1 << 20, False, "--spare auto: no spare process, a lost one takes longer; training takes "),
        ("on", 1 << 20, True, None),
    ],
)
def test_whether_there_is_one_follows_the_setting_and_the_memory(
    when: str, free: int, waits: bool, line: str | None, tmp_path: Path
) -> None:
    with supervised(tmp_path, when, free) as (supervisor, log):
        until(lambda: child(supervisor, TRAINS), "a training process")
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline and child(supervisor, WAITS) is None:
            time.sleep(0.1)
        assert (child(supervisor, WAITS) is not None) == waits
        told = [each for each in log.read_text().splitlines() if "spare" in each and "habitat" not in each]
        assert len(told) == (line is not None)
        if line is not None:
            assert told[0].startswith(line)
            assert told[0].endswith("MiB, 1 MiB of memory is free")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_spare_outlives_its_supervisor(number: signal.Signals, tmp_path: Path) -> None:
    with supervised(tmp_path) as (supervisor, _):
        spare = until(lambda: child(supervisor, WAITS), "a spare process")
        supervisor.send_signal(number)
        supervisor.wait(60)
        _, alive = psutil.wait_procs([spare], timeout=10)
    assert alive == []


def test_a_spare_process_tells_what_any_training_process_would_and_ends_with_its_gate(tmp_path: Path) -> None:
    outputs = []
    for module, told in (("process", None), ("spare", b"\n"), ("spare", b"")):
        reading, writing = os.pipe()
        gate = [] if told is None else [str(reading)]
        process = subprocess.Popen(
            [sys.executable, "-m", f"trainer.training.{module}", str(tmp_path), *gate],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[reading],
            text=True,
        )
        os.close(reading)
        os.write(writing, told or b"")
        os.close(writing)
        output, _ = process.communicate(timeout=300)
        outputs.append((process.returncode, output))
    cold, spare, unneeded = outputs
    assert cold[0] == BAD_INPUT
    assert str(tmp_path) in cold[1]
    assert spare == cold
    assert unneeded == (0, "")


def test_a_run_whose_training_is_killed_goes_on_in_the_spares_with_the_bits_of_the_undisturbed_run(
    tmp_path: Path, undisturbed_state: str
) -> None:
    """Training is held while the spare processes come up: the run is a short one."""
    with LocalRun.start(tmp_path / "run", "--spare=on") as run:
        run.wait_for_step(7)
        training = [run.training_process(worker) for worker in range(2)]
        for process in training:
            process.suspend()
        spares = [run.spare_process(worker) for worker in range(2)]
        training[1].kill()
        training[0].resume()
        until(lambda: not any(each.is_running() for each in training), "both to end")
        assert [run.training_process(worker) for worker in range(2)] == spares
        assert run.wait() == 0, run.output.read_text()
    assert inspect(run.directory)["sha256"] == undisturbed_state
    assert leftovers(run.directory) == []
    assert "Traceback" not in run.output.read_text()
