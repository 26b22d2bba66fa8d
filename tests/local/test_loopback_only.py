"""Wherever a training process listens, no other machine can connect, and where that can't be had a line says so."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable

import psutil
import pytest

from maskfleet.child_processes import end_with_parent
from trainer.supervision import loopback_only
from trainer.supervision.loopback_only import LoopbackOnly

LISTEN = """
import socket, subprocess, sys
if len(sys.argv) > 1:
    sys.exit(subprocess.run([sys.executable, "-c", sys.argv[1]]).returncode)
sockets = [socket.create_server(("0.0.0.0", 0)),
           socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)]
unix = socket.socket(socket.AF_UNIX); unix.bind("\\0maskfleet-test"); unix.listen()
print(*(each.getsockname()[1] for each in sockets), flush=True)
sys.stdin.read()
"""


def own_addresses() -> list[str]:
    """Of this machine, as others reach it."""
    found = [each for name, of_it in psutil.net_if_addrs().items() if name != "lo" for each in of_it]
    families = (socket.AF_INET, socket.AF_INET6)
    return [each.address for each in found if each.family in families and "%" not in each.address]


def reaches(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 2).close()
    except OSError:
        return False
    return True


def listening(*arguments: str, look: Callable[[int], None]) -> list[str]:
    """Has ``look`` see each port of a process that listens everywhere; gives what was reported."""
    lines: list[str] = []

    async def main() -> None:
        ports = LoopbackOnly(lines.append)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", LISTEN, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            preexec_fn=end_with_parent(signal.SIGKILL, ports.ask),
        )  # fmt: skip
        ports.attend()
        assert process.stdout is not None
        assert process.stdin is not None
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        for port in line.split():
            look(int(port))
        process.stdin.close()
        assert await process.wait() == 0
        await asyncio.sleep(0.1)
        assert ports._notices < 0 or not asyncio.get_running_loop().remove_reader(ports._notices), "still waited for"

    asyncio.run(main())
    return lines


@pytest.mark.skipif(not own_addresses(), reason="not run: this machine has no address but the loopback interface's")
@pytest.mark.parametrize("arguments", [(), (LISTEN,)], ids=["process", "process of a process"])
def test_no_other_machine_reaches_a_port(arguments: tuple[str, ...]) -> None:
    found = []

    def look(port: int) -> None:
        found.append((reaches("127.0.0.1", port), [reaches(address, port) for address in own_addresses()]))

    assert listening(*arguments, look=look) == []
    assert found == [(True, [False] * len(own_addresses()))] * 2


def test_where_there_is_no_seccomp_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback_only, "_CALLS", {})
    (line,) = listening(look=lambda port: None)
    assert line.startswith("warning: TensorFlow's ports are open to other machines")
    assert "there is no seccomp here" in line


def test_where_a_socket_may_not_be_bound_a_line_says_so_and_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback_only, "_PIDFD_GETFD", 0xFFFF)  # no system call
    (line,) = listening(look=lambda port: None)
    assert "(Function not implemented)" in line
