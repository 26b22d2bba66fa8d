"""``launcher exec`` as it is typed, against a server whose commands really run: streams, terminal, end, trouble."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.cluster import worker_pod
from tests.fakes.pod_server import V4, PodServer, tls_before
from tests.helpers.tls_front import certificate

LAUNCHER = [sys.executable, "-m", "launcher.cli", "exec"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PodServer]:
    with PodServer() as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path / "config")))
        yield running


def run(*arguments: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*LAUNCHER, *arguments], input=input, capture_output=True, timeout=20, check=False)


def test_streams_and_exit_code_are_the_command_s(server: PodServer) -> None:
    done = run("pets", "--", "sh", "-c", "cat; echo 'an error' >&2; exit 7", input="größer\n\0\xff".encode("latin-1"))
    assert (done.returncode, done.stdout, done.stderr) == (7, "größer\n\0\xff".encode("latin-1"), b"an error\n")
    assert server.asked[0]["container"] == ["trainer"]
    assert "tty" not in server.asked[0]
    assert run("pets", "--container", "trainer", "--", "true").returncode == 0


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_much_goes_through_both_ways_at_once(tls: bool, server: PodServer, tmp_path: Path) -> None:
    sent = os.urandom(1 << 20) * 24
    with contextlib.ExitStack() as stack:
        if tls:
            address = stack.enter_context(tls_before(server, certificate(tmp_path)[0]))
            server.kubeconfig(tmp_path / "config", address)
        done = run("pets", "--", "cat", input=sent)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(sent).digest()


def test_a_command_that_reads_no_more_ends_all_the_same(server: PodServer) -> None:
    done = run("pets", "--", "head", "-c", "3", input=b"abcdef" * 1_000_000)
    assert (done.returncode, done.stdout) == (0, b"abc")


def test_a_reader_that_has_enough_ends_it(server: PodServer) -> None:
    line = f"{' '.join(LAUNCHER)} pets -- yes | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, check=False
    )
    assert (done.stdout, done.stderr) == ("y\n141\n", "")


def test_an_older_server_can_not_end_the_input_and_that_is_said(server: PodServer) -> None:
    server.protocol = V4
    done = run("pets", "--", "sh", "-c", "head -c 3; exit 4", input=b"abc")
    told = b"note: this API server can't pass on the end of standard input: a command may wait for more\n"
    assert (done.returncode, done.stdout, done.stderr) == (4, b"abc", told)


def forbidden(message: str) -> tuple[int, dict[str, object]]:
    return 403, {"kind": "Status", "reason": "Forbidden", "message": message}


def test_what_can_t_be_run_is_one_line(server: PodServer) -> None:
    started = run("pets", "--", "no-such-program")
    assert (started.returncode, started.stderr.count(b"\n")) == (1, 1)
    assert started.stderr == b'error: exec: "no-such-program": executable file not found in $PATH\n'

    server.refusal = forbidden('pods "pets-0-abcde" is forbidden: may not create pods/exec')
    refused = run("pets", "--", "true")
    assert (refused.returncode, refused.stderr) == (
        1, b'error: pods "pets-0-abcde" is forbidden: may not create pods/exec\n',
    )  # fmt: skip
    server.refusal = (404, {"kind": "Status", "message": 'pods "pets-0-abcde" not found'})
    assert run("pets", "--", "true").returncode == 3
    server.refusal = None

    server.breaks_off = True
    broken = run("pets", "--", "sh", "-c", "echo; sleep 1")
    assert (broken.returncode, broken.stderr) == (1, b"error: the connection broke off; the command may still run\n")


def test_a_container_that_does_not_run_is_told_with_the_pod_s_state(server: PodServer) -> None:
    cases = [
        (("--worker", "1"), 1, "the trainer of worker 1 of job pets does not run: Pending – waits for its pod to be"),
        (("--worker", "2"), 2, "--worker 2: expected one from 0 to 1, which job pets has"),
        (("--container", "streamer"), 1, "the streamer of worker 0 of job pets does not run: Running"),
    ]
    for flags, code, told in cases:
        done = run("pets", *flags, "--", "true")
        assert (done.returncode, done.stderr.count(b"\n")) == (code, 1)
        assert done.stderr.decode().startswith(f"error: {told}")
    ended = {"exitCode": 1, "message": "ValueError: no", "finishedAt": "2026-11-23T10:00:00Z"}
    server.pods = [worker_pod(0, phase="Failed", terminated=ended)]
    done = run("pets", "--", "true")
    told = "the trainer of worker 0 of job pets does not run: Failed – trainer ended with exit code 1: ValueError: no"
    assert (done.returncode, done.stderr.decode()) == (1, f"error: {told}\n")


class Terminal:
    """A launcher with a terminal of 100 columns and 30 lines, in a session of its own."""

    def __init__(self, *arguments: str) -> None:
        self.screen, theirs = pty.openpty()
        self.resize(100, 30)
        self.before = termios.tcgetattr(self.screen)
        self.process = subprocess.Popen(
            [*LAUNCHER, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.kept_open = theirs  # else what it left of its settings goes with it

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.screen, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.screen, keys)

    def until(self, expected: bytes, seconds: float = 20) -> bytes:
        """What was shown up to and with ``expected``."""
        shown, deadline = b"", time.monotonic() + seconds
        while expected not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([self.screen], [], [], 0.2)[0]:
                shown += os.read(self.screen, 1 << 16)
        return shown

    def end(self) -> int:
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.kept_open)
        os.close(self.screen)


@pytest.fixture
def opened() -> Iterator[list[Terminal]]:
    terminals: list[Terminal] = []
    yield terminals
    for each in terminals:
        each.close()


INTERACTIVE = """
import os, signal, sys
signal.signal(signal.SIGWINCH, lambda *_: print("resized to", *os.get_terminal_size(), flush=True))
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
print("ready", *os.get_terminal_size(), flush=True)
while (line := sys.stdin.readline()) != "end\\n":
    print(f"got <{line.strip()}>", flush=True)
sys.exit(5)
"""


def test_a_terminal_is_passed_through_and_left_as_it_was(server: PodServer, opened: list[Terminal]) -> None:
    opened.append(terminal := Terminal("pets", "--", sys.executable, "-c", INTERACTIVE))
    terminal.until(b" 100 30")  # the size follows the command, which may be ready before
    assert server.asked[0]["tty"] == ["true"]
    assert termios.tcgetattr(terminal.screen)[3] & (termios.ICANON | termios.ECHO | termios.ISIG) == 0
    terminal.resize(80, 24)
    terminal.until(b"resized to 80 24")
    terminal.type(b"\x03")
    terminal.until(b"interrupted")
    terminal.type(b"hello\r")
    terminal.until(b"got <hello>")
    terminal.type(b"end\r")
    assert terminal.end() == 5
    assert termios.tcgetattr(terminal.screen) == terminal.before


@pytest.mark.parametrize("how", ["SIGTERM", "a lost connection", "a command that is not there"])
def test_a_terminal_is_left_as_it_was_whatever_ends_it(how: str, server: PodServer, opened: list[Terminal]) -> None:
    server.breaks_off = how == "a lost connection"
    command = ("no-such-program",) if how == "a command that is not there" else ("sh", "-c", "echo up; sleep 60")
    opened.append(terminal := Terminal("pets", "--", *command))
    if how == "SIGTERM":
        terminal.until(b"up")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 130
    else:
        terminal.until(b"error: ")
        assert terminal.end() == 1
    assert termios.tcgetattr(terminal.screen) == terminal.before


def test_without_a_terminal_at_both_ends_the_command_has_none(server: PodServer, opened: list[Terminal]) -> None:
    opened.append(terminal := Terminal("pets", "--", "sh", "-c", "test -t 1; echo $?"))
    terminal.until(b"0\r\n")
    assert terminal.end() == 0
    assert run("pets", "--", "sh", "-c", "test -t 1; echo $?").stdout == b"1\n"
