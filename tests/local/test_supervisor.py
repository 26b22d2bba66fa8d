"""Supervisors over real processes that stand in for training: what they print, and when they count as stuck."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.local.local_run import free_port_pairs
from maskfleet.errors import DONE, FAILED
from maskfleet.goodput import PEERS, STARTUP, STOPPED
from maskfleet.pace import FleetPace
from maskfleet.phase_log import ledger_of
from maskfleet.records import Event
from maskfleet.run_directory import RunDirectory
from tests.helpers.processes import environment_of
from trainer.supervision.handshake import admit
from trainer.supervision.rendezvous import finish, serialize, start

SUPERVISE = """
import sys
from pathlib import Path
from maskfleet.peers import Peers
from maskfleet.config import TrainConfig
from maskfleet.records import Event
from maskfleet.run_directory import RunDirectory
from maskfleet.run_lock import open_worker_log
from trainer.supervision.supervisor import supervise

config = TrainConfig(start_timeout=4, stall_timeout=4, max_restarts=0)
command = [sys.executable, "-c", sys.argv[2]]
run, peers = RunDirectory(Path(sys.argv[1])), Peers.from_environment()
with open_worker_log(run, peers.worker) as log:
    sys.exit(supervise(command, config, peers, run, log))
"""
BUSY = """
import os, time
for _ in range(20):
    time.sleep(.5)
    os.write(int(os.environ["MASKFLEET_HEARTBEAT_FD"]), b".")
"""
PACED = """
import json, os, time
for _ in range(70):
    time.sleep(.1)
    steps = {"count": 1, "seconds": .1, "input": .01, "compute": COMPUTE, "all_reduce": .08 - COMPUTE}
    os.write(int(os.environ["MASKFLEET_HEARTBEAT_FD"]), b"." + json.dumps(steps).encode() + b"\\n")
"""
LOSES_A_PEER = """
import pathlib, sys, time
run = pathlib.Path(sys.argv[1])
if (run / "lost").exists():
    sys.exit(0)
(run / "lost").touch()
WORK
time.sleep(100)
"""
SAVES = """
(run / "checkpoints" / ".writing").mkdir(parents=True)
time.sleep(3)
(run / "saved").touch()
(run / "checkpoints" / ".writing").rmdir()
"""
IS_LOST = """
import pathlib, sys, time
run = pathlib.Path(sys.argv[1])
if (run / "again").exists():
    sys.exit(0)
(run / "again").touch()
while not (run / WAITS_FOR).exists():
    time.sleep(.01)
sys.exit(75)
"""
SILENT = "import time; time.sleep(10)"


def supervise(path: Path, *programs: str, supervisor: str = SUPERVISE) -> list[tuple[int, str]]:
    """Exit code and output of a supervisor for each of the ``programs``, all workers of one run."""
    peers = tuple(f"127.0.0.1:{port}" for port in free_port_pairs(len(programs)))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", supervisor, str(path), program],
            env=environment_of(worker, peers, path),
            stdout=subprocess.PIPE,
            text=True,
        )
        for worker, program in enumerate(programs)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


def test_a_worker_is_not_done_because_the_chief_says_so(tmp_path: Path) -> None:
    """Somebody who knows the token lets the training start, and calls the run done while it trains."""
    (port,) = free_port_pairs(1)
    peers = (f"127.0.0.1:{port}", "127.0.0.1:2")

    async def forge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await admit(reader, writer, b"of this test", 2, no_check)
        writer.write(serialize(start(1, range(2))) + serialize(finish(DONE, "")))

    async def no_check(worker: int) -> None: ...

    async def main() -> tuple[int | None, bytes]:
        server = await asyncio.start_server(forge, "127.0.0.1", port + 1)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SUPERVISE, str(tmp_path), SILENT,
            env=environment_of(1, peers, tmp_path), stderr=subprocess.PIPE,
        )  # fmt: skip
        _, errors = await process.communicate()
        server.close()
        return process.returncode, errors

    code, errors = asyncio.run(main())
    assert code != DONE
    assert b"PeerLost: worker 0 (the chief) calls the run done, and worker 1 is not" in errors


def test_a_line_of_any_length_is_passed_on_and_the_last_words_are_told(tmp_path: Path) -> None:
    program = "print('x' * 300_000); print('error: ' + 'y' * 100_000); raise SystemExit(1)"
    ((code, output),) = supervise(tmp_path, program)
    assert code == FAILED
    assert "x" * 300_000 in output
    told = RunDirectory(tmp_path).events.read_text()
    assert "worker 0: yyy" in told
    assert len(told) < 10_000


def test_a_worker_that_waits_for_one_that_gets_on_is_not_stuck(tmp_path: Path) -> None:
    results = supervise(tmp_path, BUSY, SILENT)
    assert [code for code, _ in results] == [DONE, DONE], results


@pytest.mark.parametrize(("work", "waits_for"), [("", "lost"), (SAVES, "checkpoints/.writing")])
def test_who_has_lost_a_peer_is_ended_at_once_but_for_a_checkpoint(tmp_path: Path, work: str, waits_for: str) -> None:
    restarting = SUPERVISE.replace("max_restarts=0", "max_restarts=1").replace("start_timeout=4", "start_timeout=60")
    restarting = restarting.replace("sys.argv[2]]", "sys.argv[2], sys.argv[1]]")
    programs = LOSES_A_PEER.replace("WORK", work), IS_LOST.replace("WAITS_FOR", repr(waits_for))
    results = supervise(tmp_path, *programs, supervisor=restarting)
    assert [code for code, _ in results] == [DONE, DONE], results
    assert "SIGKILL" not in results[0][1], "nobody else has killed it"
    assert (tmp_path / "saved").exists() == bool(work)
    first, second = (event.time for event in Event.read_all(RunDirectory(tmp_path)) if event.kind in ("restart", "end"))
    assert second - first < (60 if work else 3)


@pytest.mark.parametrize("programs", [(SILENT,), (SILENT, SILENT)])
def test_workers_of_whom_none_gets_on_are_stuck(tmp_path: Path, programs: tuple[str, ...]) -> None:
    started = time.monotonic()
    results = supervise(tmp_path, *programs)
    assert {code for code, _ in results} == {FAILED}
    assert any("the training process did not start within 4 s and was killed" in output for _, output in results)
    assert time.monotonic() - started < 10


def test_the_chief_names_a_worker_that_computes_longer(tmp_path: Path) -> None:
    often = f"import trainer.supervision.chief as chief\nchief.LOOK_SECONDS = 1.1\n{SUPERVISE}"
    programs = (PACED.replace("COMPUTE", each) for each in (".02", ".06"))
    (code, output), _ = supervise(tmp_path, *programs, supervisor=often)
    assert code == DONE
    assert output.startswith("worker 1 takes 3.0 times the others' compute")
    found = FleetPace.read(RunDirectory(tmp_path))
    assert found is not None
    assert found.slow == (), "nobody holds up a run that is over"
    spent = ledger_of(RunDirectory(tmp_path))
    assert spent.seconds[STARTUP] > 6
    assert spent.seconds[PEERS] > 0
    assert spent.last is not None
    assert spent.last.then == STOPPED
