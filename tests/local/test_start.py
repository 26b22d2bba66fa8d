"""Workers that come late: the others say who is missing, and start when all are there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.local.local_run import free_port_pairs
from maskfleet.run_directory import RunDirectory
from tests.helpers.data_folders import write_pairs
from tests.helpers.processes import PATIENCE, SETTINGS, LocalRun, environment_of, inspect


def worker(
    number: int, peers: tuple[str, ...], path: Path, *prefix: str, settings: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """``trainer train`` as one worker, started by hand as a pod is."""
    environment = environment_of(number, peers, path.parent)
    command = [*prefix, sys.executable, "-m", "trainer.cli", "train", "--run-dir", str(path), *SETTINGS, *settings]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end(processes: list[subprocess.Popen[str]]) -> list[str]:
    try:
        return [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


def test_a_worker_that_starts_late_is_waited_for_by_name(tmp_path: Path, undisturbed_state: str):
    path = tmp_path / "run"
    peers = tuple(f"127.0.0.1:{port}" for port in free_port_pairs(2))
    processes = [worker(0, peers, path)]
    time.sleep(30)
    processes.append(worker(1, peers, path))
    outputs = end(processes)
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0].count(f"waiting for worker 1 ({peers[1]})") >= 2
    assert inspect(RunDirectory(path))["sha256"] == undisturbed_state


def can_unshare() -> bool:
    command = ["unshare", "--map-root-user", "--mount", "mount", "--bind", "/etc/hostname", "/etc/hosts"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not can_unshare(), reason="not run: this user may not make a mount namespace of its own")
def test_a_name_that_resolves_late_is_waited_for(tmp_path: Path, undisturbed_state: str):
    """Each worker sees an /etc/hosts of ours, which learns the name of worker 1 after a while."""
    path, hosts = tmp_path / "run", tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost worker-zero.test\n")
    first, second = free_port_pairs(2)
    peers = (f"worker-zero.test:{first}", f"worker-one.test:{second}")
    own_hosts = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    prefix = ("unshare", "--map-root-user", "--mount", "sh", "-c", own_hosts, "sh")
    processes = [worker(number, peers, path, *prefix) for number in range(2)]
    time.sleep(12)
    with hosts.open("a") as file:
        file.write("127.0.0.1 worker-one.test\n")
    outputs = end(processes)
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "waiting for worker 1: the name worker-one.test does not resolve" in outputs[0]
    assert inspect(RunDirectory(path))["sha256"] == undisturbed_state


def test_a_worker_that_never_comes_ends_the_start(tmp_path: Path):
    peers = tuple(f"127.0.0.1:{port}" for port in free_port_pairs(2))
    process = worker(0, peers, tmp_path / "run", settings=("--start-timeout=11",))
    (output,) = end([process])
    assert process.returncode == 75, output
    assert f"in vain for worker 1 ({peers[1]})" in output


def test_a_chief_that_never_comes_ends_the_start(tmp_path: Path):
    peers = tuple(f"127.0.0.1:{port}" for port in free_port_pairs(2))
    process = worker(1, peers, tmp_path / "run", settings=("--start-timeout=2",))
    (output,) = end([process])
    assert process.returncode == 75, output
    assert "worker 1 waited 2 s in vain for worker 0 (the chief)" in output


def test_workers_with_different_data_are_refused(tmp_path: Path):
    peers = tuple(f"127.0.0.1:{port}" for port in free_port_pairs(2))
    other = f"--data=folder:{write_pairs(tmp_path / 'data', count=20)}"
    processes = [worker(0, peers, tmp_path / "chief"), worker(1, peers, tmp_path / "other", settings=(other,))]
    outputs = end(processes)
    assert [process.returncode for process in processes] == [2, 2], outputs
    assert "worker 1: --data: expected the data of worker 0, with the fingerprint" in outputs[0]
    assert not RunDirectory(tmp_path / "chief").metrics.exists()


def test_a_process_that_is_alive_but_stuck_is_killed_and_started_again(tmp_path: Path):
    """SIGSTOP of the only worker: no peer's heartbeat notices, the supervisor's watchdog does."""
    with LocalRun.start(tmp_path / "run", "--stall-timeout=60", workers=1) as run:
        run.wait_for_step(3)
        run.training_process(0).suspend()
        assert run.wait() == 0, run.output.read_text()
    assert "made no step within 60 s and was killed" in run.output.read_text()
    events = [json.loads(line) for line in run.directory.events.read_text().splitlines()]
    assert "restart" in [event["kind"] for event in events]
