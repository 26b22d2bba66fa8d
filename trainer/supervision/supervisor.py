"""The parent process of training: starts the training process, and starts it again when a peer is lost.

It imports no TensorFlow, so it is up in a moment, stays responsive while TensorFlow holds the GIL, and can
end a training process that is frozen. No pod is replaced for a lost peer, and no back-off is waited for.
What all workers must do together is decided by the chief's :class:`~trainer.supervision.rendezvous.Coordinator`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any, BinaryIO, TypeVar

from maskfleet import quiet
from maskfleet.child_processes import end_with_parent, lines, signal_name
from maskfleet.command_line import leave_outputs
from maskfleet.config import TrainConfig
from maskfleet.environment import HEARTBEAT_VARIABLE
from maskfleet.errors import DONE, FAILED, STOPPED, PeerLost
from maskfleet.goodput import PEERS, STARTUP
from maskfleet.peers import Peers
from maskfleet.phase_log import PhaseLog
from maskfleet.run_directory import RunDirectory
from maskfleet.sentences import ERROR, out_of_memory, without_error
from maskfleet.text import printable_line
from trainer import cgroup
from trainer.supervision.chief import NOTICE_SECONDS, ChiefServer
from trainer.supervision.fleet import OwnPace
from trainer.supervision.handshake import HANDSHAKE_SECONDS, Stranger, introduce, read_token
from trainer.supervision.loopback_only import LoopbackOnly
from trainer.supervision.rendezvous import MAX_REASON, Message, parse_order, serialize

RETRY_SECONDS = 0.2
END_GRACE_SECONDS = 1.0
"""For a training process to leave by itself when its attempt is over: it has lost a peer, so it is about to."""
STOP_GRACE_SECONDS = 25.0
"""For a training process to save and leave after SIGTERM; less than Kubernetes's default of 30 s."""
FAREWELL_SECONDS = 30.0
"""For a chief that is gone to come back, when all training is done here."""
ALIVE_SECONDS = 10.0
"""Between two messages that training makes progress here."""

PROCESS_DEFAULTS = {
    quiet.LEVEL_VARIABLE: quiet.ERRORS_ONLY,
    # glibc returns large blocks to the kernel as soon as they are freed. A step of 64 images got 700 MB of them anew,
    # each page zeroed: a sixth of its time.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    # Only the first arena grows without mmap. And a hundred threads of gRPC free what others allocate: with glibc's
    # own number of arenas two workers took 130 MB more each, and grew for longer.
    "MALLOC_ARENA_MAX": "1",
}
"""Variables of the training process that the supervisor's own environment does not set."""

T = TypeVar("T")


class Supervisor:
    """Runs the training process of one worker through all attempts.

    Args:
        command: the training process's command line.
        config: for its time-outs and ``max_restarts``.
        peers: this worker's place.
        run: where the run's events go.
        log: the worker's, which nobody else has.
    """

    def __init__(self, command: Sequence[str], config: TrainConfig, peers: Peers, run: RunDirectory, log: BinaryIO):
        self._command = command
        self._config = config
        self._peers = peers
        self._run = run
        self._process: asyncio.subprocess.Process | None = None
        self._ended: asyncio.Task[None] | None = None
        self._last_code: int | None = None  # of the training process; None while there is one
        self._last_words = ""
        self._stopping = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._log = log
        self._chief = peers.rendezvous_address(0)
        self._memory: cgroup.Memory | None = None
        self._alive_at = 0.0
        self._token = b""
        self._phases = PhaseLog(run if peers.is_chief else None)
        self._pace = OwnPace()

    async def run(self) -> int:
        """Supervises until the run is over, and returns the exit code.

        Raises:
            BadSettings: the run's token can't be read.
            PeerLost: the other workers did not come in time.
        """
        self._phases.take_over(cause=PEERS if self._peers.workers > 1 else STARTUP)
        # Alone, the chief's supervisor talks to itself: any token that nobody else has will do.
        self._token = read_token() if self._peers.workers > 1 else secrets.token_bytes()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        async with contextlib.AsyncExitStack() as stack:
            if self._peers.is_chief:
                server = ChiefServer(self._config, self._peers, self._run, self._token, self._report_line)
                self._chief = await stack.enter_async_context(server.serving())
            try:
                return await self._until_over()
            finally:
                await self._end_process(0)

    async def _until_over(self) -> int:
        """One turn for each connection to the chief's supervisor."""
        while True:
            connection = await self._unless_stopping(self._reach_peers())
            if connection is None:
                return STOPPED
            reader, self._writer = connection
            try:
                code = await self._obey(reader)
            finally:
                self._writer.close()
                with contextlib.suppress(OSError, asyncio.TimeoutError):
                    await asyncio.wait_for(self._writer.wait_closed(), 1)
            if code is not None:
                return code
            await self._end_process(END_GRACE_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)  # a chief that hangs up at once may do so again

    async def _unless_stopping(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of ``work``, or None as soon as SIGTERM comes."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if task.done():
            return task.result()
        task.cancel()
        return None

    async def _obey(self, reader: asyncio.StreamReader) -> int | None:
        """Does as the chief says until the run is over (an exit code) or the connection is lost (None)."""
        self._send({"is": "ready"})
        while True:
            line = await self._unless_stopping(_read_line(reader))
            if line is None:
                await self._leave()
                return STOPPED
            try:
                message = parse_order(line)
            except ValueError as error:
                self._report_line(f"worker 0 (the chief) said what no worker understands: {error}")
                return None
            if message is None:
                return None
            if message["do"] == "start":
                self._phases.begin_start(STARTUP)
                await self._start_process(message["attempt"])
            elif message["do"] == "wait":
                self._report_line(f"waiting for {message['for']}")
            elif message["do"] == "go on":
                self._alive_at = time.monotonic()
            elif message["do"] == "ping":
                self._send({"is": "pong", "mark": message["mark"]})
                self._send(self._pace.message())
            elif message["do"] == "stop":
                await self._end_process(END_GRACE_SECONDS)
                self._send({"is": "ready"})
            elif message["do"] == "finish":
                await self._end_process(END_GRACE_SECONDS)
                self._phases.end()
                if message["code"] == DONE and self._last_code != DONE:
                    raise PeerLost(f"worker 0 (the chief) calls the run done, and worker {self._peers.worker} is not")
                if message["reason"] and message["reason"] != self._last_words:
                    self._report_line(ERROR + message["reason"])
                return int(message["code"])

    async def _reach_peers(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Resolves every peer and connects to the chief's supervisor, trying until the start time-out.

        Every name must resolve before TensorFlow starts: its first collective fails at once on one that
        does not.

        Raises:
            PeerLost: it took too long.
        """
        limit = FAREWELL_SECONDS if self._last_code == DONE else self._config.start_timeout
        started = time.monotonic()
        notice = started + NOTICE_SECONDS
        while True:
            missing = await self._unresolved_peer()
            if missing is None:
                try:
                    return await self._connect_to_chief()
                except (OSError, Stranger) as error:
                    why = (isinstance(error, OSError) and error.strerror) or str(error) or "it does not answer"
                    missing = f"worker 0 (the chief) at {':'.join(map(str, self._chief))}: {why}"
            if time.monotonic() - started > limit:
                raise PeerLost(f"worker {self._peers.worker} waited {limit:.0f} s in vain for {missing}")
            if time.monotonic() > notice:
                self._report_line(f"waiting for {missing}")
                notice += NOTICE_SECONDS
            await asyncio.sleep(RETRY_SECONDS)

    async def _connect_to_chief(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection over which both sides have proven that they know the run's token.

        Raises:
            OSError, Stranger: there is none to be had now.
        """
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            reader, writer = await asyncio.open_connection(*self._chief)
        try:
            await introduce(reader, writer, self._token, self._peers.worker)
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def _unresolved_peer(self) -> str | None:
        if self._peers.workers == 1:
            return None
        loop = asyncio.get_running_loop()
        for worker in range(self._peers.workers):
            host, port = self._peers.rendezvous_address(worker)
            try:
                await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:  # of what can't be a name at all
                return f"worker {worker}: the name {host:.200} does not resolve ({getattr(error, 'strerror', error)})"
        return None

    async def _start_process(self, attempt: int) -> None:
        self._last_code = None
        self._memory = cgroup.memory()
        heartbeat_read, heartbeat_write = os.pipe()
        ports = LoopbackOnly(self._report_line) if self._peers.are_local else None
        environment = {**PROCESS_DEFAULTS, **os.environ, HEARTBEAT_VARIABLE: str(heartbeat_write)}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                pass_fds=[heartbeat_write],
                preexec_fn=end_with_parent(signal.SIGKILL, ports.ask if ports else None),
            )
        finally:
            os.close(heartbeat_write)
        self._pace.began(self._process.pid)
        if ports:
            ports.attend()
        self._ended = asyncio.create_task(self._follow_process(self._process, attempt, heartbeat_read))

    async def _follow_process(self, process: asyncio.subprocess.Process, attempt: int, heartbeat: int) -> None:
        """Passes the output on, watches for progress, and reports the end to the chief."""
        assert process.stdout is not None
        watchdog = asyncio.create_task(self._watch_progress(process, heartbeat))
        words = ""
        async for line in lines(process.stdout):
            if quiet.is_startup_line(line):
                continue
            self._pass_on(line)
            words = line[:MAX_REASON].decode(errors="replace").strip() or words
        code = await process.wait()
        killed_for = self._out_of_memory()
        if code == -signal.SIGKILL and killed_for is not None:
            code, words = FAILED, killed_for
            self._report_line(ERROR + words)
        elif watchdog.done():
            words = watchdog.result()
        elif code < 0:
            words = f"the training process was killed by {signal_name(code)}"
            self._report_line(f"worker {self._peers.worker}: {words}")
        if code != DONE:
            self._phases.interrupted(killed=code < 0 and not watchdog.done())
        watchdog.cancel()
        self._last_code = code
        self._last_words = f"worker {self._peers.worker}: {without_error(words)}"
        self._send({"is": "ended", "attempt": attempt, "code": code, "reason": self._last_words})

    def _out_of_memory(self) -> str | None:
        """What the kernel killed the training process for, if it was memory; another attempt would need as much."""
        now = cgroup.memory()
        if now is None or self._memory is None or now.kills == self._memory.kills:
            return None
        return out_of_memory(now.peak, now.limit)

    async def _watch_progress(self, process: asyncio.subprocess.Process, heartbeat: int) -> str:
        """Kills a process that is alive but stuck, and returns why.

        It is not stuck as long as any worker's makes progress: it may be waiting for that one.
        """
        os.set_blocking(heartbeat, False)
        self._alive_at, sent = time.monotonic(), -math.inf
        limit, what = self._config.start_timeout, "did not start"
        try:
            while time.monotonic() - self._alive_at < limit:
                await asyncio.sleep(1)
                with contextlib.suppress(BlockingIOError):
                    if written := os.read(heartbeat, 1 << 16):
                        self._pace.take(written)
                        self._alive_at = time.monotonic()
                        limit, what = self._config.stall_timeout, "made no step"
                        if self._alive_at - sent > min(ALIVE_SECONDS, limit / 4):
                            self._send({"is": "alive"})
                            sent = self._alive_at
        finally:
            os.close(heartbeat)
        process.kill()
        reason = f"the training process {what} within {limit} s and was killed"
        self._report_line(f"worker {self._peers.worker}: {reason}")
        return reason

    async def _end_process(self, grace: float) -> None:
        """Ends the training process if there is one; returns when it is gone and its output passed on."""
        if self._process is None or self._ended is None:
            return
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._ended), grace)
        if not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._ended
        self._process = self._ended = None

    async def _leave(self) -> None:
        """After SIGTERM: lets the training process save its state at a step that all workers agree on."""
        self._send({"is": "stopping"})
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
        await self._end_process(STOP_GRACE_SECONDS)

    def _send(self, message: Message) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(serialize(message))

    def _report_line(self, text: str) -> None:
        self._pass_on(f"{text}\n".encode())

    def _pass_on(self, line: bytes) -> None:
        try:
            sys.stdout.buffer.write(printable_line(line))
            sys.stdout.buffer.flush()
        except OSError:  # its reader is gone, or its disk full; that is no reason to stop training
            leave_outputs()
        with contextlib.suppress(OSError):  # a full disk is the training process's to report
            self._log.write(line)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    """A line, or nothing once the connection is lost."""
    try:
        return await reader.readline()
    except (OSError, ValueError):  # of a line that is too long
        return b""


def supervise(command: Sequence[str], config: TrainConfig, peers: Peers, run: RunDirectory, log: BinaryIO) -> int:
    """Runs ``command`` as this worker's training process until the run is over; returns the exit code."""
    return asyncio.run(Supervisor(command, config, peers, run, log).run())
