"""Strangers at all ports of a run change nothing of it, and those of other machines do not even reach one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.processes import LocalRun, inspect, until
from tests.local.test_loopback_only import own_addresses, reaches

LOOPBACK = "127.0.0.1"


def ports_of(run: LocalRun) -> set[int]:
    """Where the processes of a run listen."""
    found = set()
    for process in run.descendants():
        with contextlib.suppress(psutil.Error):
            found |= {each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    return found


@contextlib.contextmanager
def two_strangers(ports: set[int]) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.helpers.strangers", LOOPBACK, *map(str, sorted(ports))]
    strangers = [subprocess.Popen(command) for _ in range(2)]
    try:
        yield
        assert [stranger.poll() for stranger in strangers] == [None, None], "a stranger has given up"
    finally:
        for stranger in strangers:
            stranger.kill()
            stranger.wait()


def disturbed(run: LocalRun, *, seconds: float) -> None:
    """Waits for the end of ``run`` among strangers, of whom a worker has to make its way through once."""
    # TensorFlow's of both workers, and the rendezvous; the chief's supervisor is the only one that listens.
    ports = until(lambda: len(found := ports_of(run)) >= 3 and found, "three ports")
    assert ports
    for address in own_addresses():
        for port in ports:
            assert not reaches(address, port)
    started = time.monotonic()
    with two_strangers(ports):
        run.wait_for_step(7)
        run.training_process(1).kill()
        assert run.process.wait(3600) == 0, run.output.read_text()
    lasted, output = time.monotonic() - started, run.output.read_text()
    assert lasted > seconds, "the strangers had too little time"
    assert output.count("refused a connection from 127.0.0.1 to the rendezvous port: ") >= 1
    assert output.count("refused a connection") < 10 + lasted / 5, "who knocks fills the log"
    assert "Traceback" not in output


def test_strangers_change_nothing_of_a_run(tmp_path: Path, undisturbed_state: str):
    with LocalRun.start(tmp_path / "run") as run:
        disturbed(run, seconds=10)
    assert inspect(run.directory)["sha256"] == undisturbed_state


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_five_minutes_of_strangers_change_nothing_of_a_run(tmp_path: Path):
    epochs = "--epochs=150"  # more than five minutes of training beside the strangers
    with LocalRun.start(tmp_path / "undisturbed", epochs) as run:
        assert run.process.wait(3600) == 0, run.output.read_text()
    expected = inspect(run.directory)["sha256"]
    with LocalRun.start(tmp_path / "run", epochs) as run:
        disturbed(run, seconds=300)
    assert inspect(run.directory)["sha256"] == expected
