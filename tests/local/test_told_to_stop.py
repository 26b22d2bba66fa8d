"""Which worker the events name when somebody stops one of two, by real supervisors over processes that stand in."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.local.local_run import free_port_pairs
from maskfleet.environment import TOKEN_FILE_VARIABLE
from maskfleet.peers import Peers
from maskfleet.records import Event
from maskfleet.run_directory import RunDirectory
from tests.local.test_supervisor import SUPERVISE

TRAINING = """
import pathlib, signal, sys, time
run = pathlib.Path(sys.argv[1])
def stop(*_):
    (run / "stop").touch()  # the wish to stop rides in a step's all-reduce
    time.sleep(1)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
(run / f"trains-{sys.argv[2]}").touch()
while not (run / "stop").exists():
    time.sleep(.05)
sys.exit(143)
"""


@pytest.mark.parametrize("stopped", [0, 1])
def test_the_worker_that_was_stopped_is_named_though_the_other_ends_first(tmp_path: Path, stopped: int) -> None:
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    peers = tuple(f"127.0.0.1:{port}" for port in free_port_pairs(2))
    run = tmp_path / "run"
    run.mkdir()
    processes = []
    for worker in range(2):
        program = f"import sys; sys.argv[1:] = [{str(run)!r}, '{worker}']\n{TRAINING}"
        environment = {**os.environ, TOKEN_FILE_VARIABLE: str(token), "TF_CONFIG": Peers(worker, peers).tf_config()}
        processes.append(subprocess.Popen([sys.executable, "-c", SUPERVISE, str(run), program], env=environment))
    try:
        until(lambda: all((run / f"trains-{worker}").exists() for worker in range(2)))
        processes[stopped].terminate()
        assert processes[stopped].wait(20) == 143
        until(lambda: any(event.kind == "restart" for event in Event.read_all(RunDirectory(run))))
        (told,) = [event.message for event in Event.read_all(RunDirectory(run)) if event.kind == "restart"]
        assert told == f"attempt 1 ended: worker {stopped} was told to stop"
    finally:
        for process in processes:
            process.kill()
            process.wait()


def until(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
