"""The ports of a local run's workers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from launcher.local.local_run import free_port_pairs


def test_they_are_free_with_their_successors_and_no_outgoing_connection_gets_one() -> None:
    ports = free_port_pairs(20)
    assert len({*ports, *(port + 1 for port in ports)}) == 40
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    for port in ports:
        assert port + 1 < first or port > last
        for each in (port, port + 1):
            with socket.socket() as listening:
                listening.bind(("", each))


def test_one_that_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = sorted(free_port_pairs(2))
    drawn = iter([taken, free])
    monkeypatch.setattr("launcher.local.local_run.random.randrange", lambda *_: next(drawn))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", taken + 1))
        assert free_port_pairs(1) == [free]
