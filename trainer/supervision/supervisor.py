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
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, TypeVar

from maskfleet import quiet
from maskfleet.child_processes import lines, send_signal, signal_name
from maskfleet.command_line import leave_outputs
from maskfleet.config import TrainConfig
from maskfleet.errors import DONE, FAILED, PEER_LOST, STOPPED, PeerLost
from maskfleet.goodput import PEERS, STARTUP
from maskfleet.peers import Peers
from maskfleet.phase_log import PhaseLog
from maskfleet.run_directory import RunDirectory
from maskfleet.sentences import ERROR, is_told_to_stop, out_of_memory, without_error
from maskfleet.text import printable_line
from trainer import cgroup
from trainer.supervision.chief import ChiefServer
from trainer.supervision.fleet import OwnPace
from trainer.supervision.handshake import read_token
from trainer.supervision.reaching import RETRY_SECONDS, Reaching
from trainer.supervision.rendezvous import MAX_REASON, Message, parse_order, serialize
from trainer.supervision.round_trip import acknowledge_at_once
from trainer.supervision.spare import SpareKeeper
from trainer.supervision.training_process import TrainingProcess, start

NAMES_SECONDS = 60.0
"""For the names of workers that have just come to resolve everywhere."""
END_GRACE_SECONDS = 1.0
"""For a training process to leave by itself when all have saved, or the run is over."""
CHECKPOINT_GRACE_SECONDS = 10.0
"""For a checkpoint to be completed that is half on the disk when a peer is lost."""
STOP_GRACE_SECONDS = 25.0
"""For a training process to save and leave after SIGTERM; less than Kubernetes's default of 30 s."""
FAREWELL_SECONDS = 30.0
"""For a chief that is gone to come back, when all training is done here."""
ALIVE_SECONDS = 10.0
"""Between two messages that training makes progress here."""

T = TypeVar("T")


class Supervisor:
    """Runs the training process of one worker through all attempts.

    Args:
        command: the training process's command line.
        spare_command: that of a spare one, without the descriptor of its gate; None: there is none.
        config: for its time-outs and ``max_restarts``.
        peers: this worker's place.
        run: where the run's events go.
        log: the worker's, which nobody else has.
    """

    def __init__(
        self,
        command: Sequence[str],
        config: TrainConfig,
        peers: Peers,
        run: RunDirectory,
        log: BinaryIO,
        spare_command: Sequence[str] | None = None,
    ):
        self._command = command
        self._config = config
        self._peers = peers
        self._run = run
        self._process: asyncio.subprocess.Process | None = None
        self._ended: asyncio.Task[None] | None = None
        self._last_code: int | None = None  # of the training process; None while there is one
        self._last_words = ""
        self._is_ending = False  # the training process, by this one
        self._stopping = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._log = log
        self._memory: cgroup.Memory | None = None
        self._alive_at = 0.0
        self._phases = PhaseLog(run if peers.is_chief else None)
        self._pace = OwnPace()
        self._is_ready = False
        self._together = 0  # workers that trained together last
        self._spares = SpareKeeper(
            config.spare if spare_command else "off",
            lambda: self._started(spare_command or command, is_spare=True),
            peers,
            self._report_line,
            self._spare_ended,
        )

    async def run(self) -> int:
        """Supervises until the run is over, and returns the exit code.

        Raises:
            BadSettings: the run's token can't be read.
            PeerLost: the other workers did not come in time.
        """
        self._phases.take_over(cause=PEERS if self._peers.workers > 1 else STARTUP)
        # Alone, the chief's supervisor talks to itself: any token that nobody else has will do.
        token = read_token() if self._peers.workers > 1 else secrets.token_bytes()
        chief = self._peers.rendezvous_address(0)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        async with contextlib.AsyncExitStack() as stack:
            if self._peers.is_chief:
                server = ChiefServer(self._config, self._peers, self._run, token, self._report_line)
                chief = await stack.enter_async_context(server.serving())
            self._way = Reaching(self._peers, chief, token, self._report_line)
            try:
                return await self._until_over()
            finally:
                await asyncio.gather(self._spares.end(), self._end_process(0))

    async def _until_over(self) -> int:
        """One turn for each connection to the chief's supervisor."""
        while True:
            patience = self._peers.longest_wait(self._config.start_timeout)
            limit = FAREWELL_SECONDS if self._last_code == DONE else patience
            connection = await self._unless_stopping(self._way.connection(limit))
            if connection is None:
                return STOPPED
            _, self._writer = connection
            try:
                code = await self._obey(*connection)
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

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int | None:
        """Does as the chief says until the run is over (an exit code) or the connection is lost (None)."""
        self._say_ready()
        while True:
            acknowledge_at_once(writer)
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
                await self._start_together(message["attempt"], message["workers"])
            elif message["do"] == "wait":
                self._report_line(f"waiting for {message['for']}")
            elif message["do"] == "go on":
                self._alive_at = time.monotonic()
            elif message["do"] == "ping":
                self._send({"is": "pong", "mark": message["mark"]})
                self._send(self._pace.message())
            elif message["do"] == "stop":
                if not self._is_ready:
                    await self._end_process(self._grace_to_stop(message))
                    self._say_ready()
            elif message["do"] == "finish":
                came_late = self._peers.least is not None and self._is_ready
                await self._end_process(END_GRACE_SECONDS)
                self._phases.end()
                if message["code"] == DONE and self._last_code != DONE and not came_late:
                    raise PeerLost(f"worker 0 (the chief) calls the run done, and worker {self._peers.worker} is not")
                if message["reason"] and message["reason"] != self._last_words:
                    self._report_line(ERROR + message["reason"])
                return int(message["code"])

    async def _start_together(self, attempt: int, workers: str) -> None:
        """Starts the training process, if this worker is one of those that train together."""
        try:
            peers = self._peers.among(workers)
        except ValueError:
            return
        self._is_ready, self._together = False, peers.workers
        self._phases.begin_start(STARTUP)
        if self._peers.least is None:
            await self._start_process(attempt)
        elif missing := await self._unless_stopping(self._way.resolved(peers.present, NAMES_SECONDS)):
            self._send({"is": "ended", "attempt": attempt, "code": PEER_LOST, "reason": missing})
        else:
            await self._start_process(attempt, workers)

    async def _start_process(self, attempt: int, present: str = "") -> None:
        self._last_code, self._is_ending = None, False
        self._memory = cgroup.memory()
        training = self._spares.take(present) or await self._started(self._command, present=present)
        self._process = training.process
        self._pace.began(self._process.pid)
        self._ended = asyncio.create_task(self._follow_process(self._process, attempt, training.heartbeat))

    def _started(
        self, command: Sequence[str], *, is_spare: bool = False, present: str = ""
    ) -> Coroutine[Any, Any, TrainingProcess]:
        return start(
            command,
            is_spare=is_spare,
            loopback_only=self._peers.are_local,
            report_line=self._report_line,
            present=present,
        )

    def _spare_ended(self) -> None:
        """The kernel may have killed it for memory: then that says nothing of the training process."""
        now = cgroup.memory()
        if now is not None and self._memory is not None and now.kills > self._memory.kills:
            self._memory = replace(self._memory, kills=self._memory.kills + 1)

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
        elif code < 0 and not self._is_ending:
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
                        if self._pace.has_stepped:
                            self._spares.keep(process.pid)
                        self._alive_at = time.monotonic()
                        limit, what = self._config.stall_timeout, "made no step"
                        if self._alive_at - sent > min(ALIVE_SECONDS, limit / 4):
                            self._send({"is": "alive"})
                            sent = self._alive_at
        finally:
            os.close(heartbeat)
        send_signal(process, signal.SIGKILL)
        reason = f"the training process {what} within {limit} s and was killed"
        self._report_line(f"worker {self._peers.worker}: {reason}")
        return reason

    async def _end_process(self, grace: float) -> None:
        """Ends the training process if there is one; returns when it is gone and its output passed on."""
        if self._process is None or self._ended is None:
            return
        await asyncio.wait([self._ended], timeout=grace)
        deadline = time.monotonic() + CHECKPOINT_GRACE_SECONDS
        while not self._ended.done() and self._is_saving() and time.monotonic() < deadline:
            await asyncio.wait([self._ended], timeout=0.02)
        if not self._ended.done():
            self._is_ending = True
            send_signal(self._process, signal.SIGKILL)
            await self._ended
        self._process = self._ended = None

    def _is_saving(self) -> bool:
        """Whether the training process has a checkpoint half on the disk: the steps up to it are worth the wait."""
        return self._peers.is_chief and self._run.unfinished_checkpoint.exists()

    def _say_ready(self) -> None:
        self._is_ready = True
        if self._peers.least is not None:
            self._phases.hold_up(PEERS)
        self._send({"is": "ready", "of": self._together})

    def _grace_to_stop(self, order: Message) -> float:
        """Of the training process, which saves first if it shall, and has made steps.

        When one was told to stop all save. Who has lost a peer could only wait for TensorFlow to notice.
        """
        if order["save"] and self._pace.has_stepped and self._process is not None:
            send_signal(self._process, signal.SIGTERM)
            return STOP_GRACE_SECONDS
        return END_GRACE_SECONDS if is_told_to_stop(order["reason"]) else 0

    async def _leave(self) -> None:
        """After SIGTERM: lets the training process save its state at a step that all workers agree on."""
        self._send({"is": "stopping"})
        if self._process is not None:
            send_signal(self._process, signal.SIGTERM)
        await self._spares.end()
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


def supervise(
    command: Sequence[str],
    config: TrainConfig,
    peers: Peers,
    run: RunDirectory,
    log: BinaryIO,
    spare_command: Sequence[str] | None = None,
) -> int:
    """Runs ``command`` as this worker's training process until the run is over; returns the exit code."""
    return asyncio.run(Supervisor(command, config, peers, run, log, spare_command).run())
