"""The chief's side of the rendezvous: a server that every worker's supervisor connects to."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

from maskfleet.config import TrainConfig
from maskfleet.errors import PeerLost
from maskfleet.peers import LOOPBACK, Peers
from maskfleet.records import Event, Progress
from maskfleet.run_directory import RunDirectory
from maskfleet.text import format_duration
from trainer.supervision.fleet import LOOK_SECONDS, Fleet
from trainer.supervision.handshake import Stranger, admit
from trainer.supervision.rendezvous import Coordinator, Ended, Message, names_of, parse, serialize
from trainer.supervision.round_trip import round_trip
from trainer.supervision.silence import end_when_silent

NOTICE_SECONDS = 10
"""Between two lines that say who is missing."""
LIFE_SECONDS = 1.0
"""Between two messages to all that one of them is alive."""
SPARE_CONNECTIONS = 64
"""Beside one for each worker, that have not proven themselves yet."""


class ChiefServer:
    """Connects the :class:`~trainer.supervision.rendezvous.Coordinator` with the workers' supervisors.

    Args:
        token: the run's, which who connects must know.
        report_line: prints a line for the user.
    """

    def __init__(
        self, config: TrainConfig, peers: Peers, run: RunDirectory, token: bytes, report_line: Callable[[str], None]
    ):
        self._coordinator = Coordinator(
            peers.workers, config.max_restarts, peers.least, peers.shrink_after, since=time.monotonic()
        )
        self._peers = peers
        self._timeout = peers.longest_wait(config.start_timeout)
        self._run = run
        self._token = token
        self._report_line = report_line
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._unproven: dict[asyncio.StreamWriter, str] = {}
        self._life_time = self._refusal_time = -math.inf
        self._refusals = 0
        self._verdict: Message | None = None
        self._fleet = Fleet(run, report_line)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[str, int]]:
        """Listens on the rendezvous port, and gives the address at which the chief itself connects.

        Without peers any free port of the loopback interface does; where all workers are on this machine, none but the
        loopback interface is listened on.

        Raises:
            PeerLost: another process has the port.
        """
        _, port = self._peers.rendezvous_address(0)
        alone = self._peers.workers == 1
        loopback = alone or self._peers.are_local
        try:
            server = await asyncio.start_server(
                self._serve_worker, "127.0.0.1" if loopback else None, 0 if alone else port
            )
        except OSError as error:
            raise PeerLost(f"worker 0 can't listen on port {port}: {error.strerror or error}") from error
        tasks = [asyncio.create_task(each) for each in (self._notice_missing(), self._look(), self._ask_pace())]
        try:
            yield "127.0.0.1", server.sockets[0].getsockname()[1]
        finally:
            for task in tasks:
                task.cancel()
            for writer in list(self._writers.values()):
                with contextlib.suppress(OSError, asyncio.TimeoutError):
                    await asyncio.wait_for(writer.drain(), 1)
            server.close()

    async def _serve_worker(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = None
        try:
            end_when_silent(writer)
            worker = await self._admit(reader, writer)
            if (earlier := self._writers.pop(worker, None)) is not None:  # nobody has heard yet that it was lost
                earlier.transport.abort()
                self._broadcast(self._coordinator.worker_left(worker, time.monotonic()))
            self._writers[worker] = writer
            self._coordinator.worker_came(worker)
            while (message := parse(await reader.readline())) is not None:
                if message["is"] == "ready":
                    self._worker_ready(worker, message)
                elif message["is"] == "stopping":
                    self._coordinator.worker_told(worker)
                elif message["is"] == "alive":
                    self._pass_on_life()
                elif message["is"] in ("pong", "pace"):
                    self._fleet.hear(worker, message, round_trip(writer))
                elif message["is"] == "ended":
                    end = Ended.of(message)
                    self._broadcast(
                        self._coordinator.process_ended(worker, end.attempt, end.code, end.reason, time.monotonic())
                    )
        except Stranger as error:
            self._report_refusal(writer, error)
        except (OSError, KeyError, ValueError):
            pass  # a lost or nonsensical peer is a peer that left
        except asyncio.CancelledError:
            pass  # the event loop ends with the run; asyncio's streams would print this as an error
        finally:
            if worker is not None and self._writers.get(worker) is writer:
                del self._writers[worker]
                self._broadcast(self._coordinator.worker_left(worker, time.monotonic()))
            writer.close()

    def _worker_ready(self, worker: int, message: Message) -> None:
        if self._verdict is not None:  # it has come too late
            self._writers[worker].write(serialize(self._verdict))
            return
        before = message.get("of", 0)
        if type(before) is not int:
            raise ValueError(f"expected a number of workers, found {before!r:.200}")
        self._broadcast(self._coordinator.worker_ready(worker, time.monotonic(), before))

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """The worker at the other end; raises Stranger.

        Connections that have not proven themselves are bounded. One of the address that has most of them gives way, by
        chance: so nobody else is kept out by a flood from one address, and of that address whoever knows the token gets
        through soon, as it needs milliseconds and tries again.
        """
        if len(self._unproven) >= self._peers.workers + SPARE_CONNECTIONS:
            ((busiest, _),) = Counter(self._unproven.values()).most_common(1)
            unlucky = random.Random().choice([each for each, address in self._unproven.items() if address == busiest])
            del self._unproven[unlucky]
            unlucky.transport.abort()
        self._unproven[writer] = _address(writer)
        try:
            return await admit(
                reader, writer, self._token, self._peers.workers, lambda worker: self._check_address(worker, writer)
            )
        finally:
            self._unproven.pop(writer, None)

    async def _check_address(self, worker: int, writer: asyncio.StreamWriter) -> None:
        """Raises Stranger if ``worker`` does not come from where its name leads to; the chief's own comes from here."""
        host, port = self._peers.rendezvous_address(worker)
        found = _address(writer)
        if worker == 0 and found in LOOPBACK:
            return
        try:
            known = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Stranger(f"the name of worker {worker}, {host:.200}, does not resolve") from error
        expected = {str(address[0]) for *_, address in known}
        if found not in expected:
            raise Stranger(f"worker {worker} is expected from {' or '.join(sorted(expected))} ({host:.200})")

    def _report_refusal(self, writer: asyncio.StreamWriter, error: Stranger) -> None:
        """Of many one now and then: who knocks shall not fill the log."""
        self._refusals += 1
        if time.monotonic() - self._refusal_time > NOTICE_SECONDS:
            count = "" if self._refusals == 1 else f" ({self._refusals} since the last such line)"
            self._report_line(f"refused a connection from {_address(writer)} to the rendezvous port: {error}{count}")
            self._refusal_time, self._refusals = time.monotonic(), 0

    def _pass_on_life(self) -> None:
        """One that is alive counts for all: the others may be waiting for it, and have nothing to show themselves."""
        if time.monotonic() - self._life_time > LIFE_SECONDS:
            self._life_time = time.monotonic()
            self._broadcast({"do": "go on"})

    async def _notice_missing(self) -> None:
        gathering_since = time.monotonic()
        while True:
            await asyncio.sleep(NOTICE_SECONDS)
            if self._coordinator.phase != "gathering":
                gathering_since = time.monotonic()
                continue
            missing = names_of(self._coordinator.missing(), self._peers.addresses)
            waited = time.monotonic() - gathering_since
            if waited > self._timeout:
                self._broadcast(self._coordinator.gathering_timed_out(f"waited {waited:.0f} s in vain for {missing}"))
            else:
                self._broadcast({"do": "wait", "for": missing + self._or_fewer()})

    def _or_fewer(self) -> str:
        """What comes of it if those that are missing do not come."""
        ready, least = len(self._coordinator.ready), self._peers.least
        if least is None:
            return ""
        left = self._peers.shrink_after - (time.monotonic() - self._coordinator.since)
        if ready < least:
            return f"; at least {least} train, {ready} have come"
        return f"; {ready} go on without in {format_duration(left)}"

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LIFE_SECONDS)
            waiting = self._coordinator.phase == "running" and self._coordinator.ready
            progress = Progress.read(self._run) if waiting else None
            trains_on = progress is None or progress.step < progress.steps
            self._broadcast(self._coordinator.look(time.monotonic(), may_grow=trains_on))

    async def _ask_pace(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._coordinator.phase == "running":
                self._broadcast(self._fleet.question())

    def _broadcast(self, message: Message | None) -> None:
        if message is None:
            return
        for writer in list(self._writers.values()):
            writer.write(serialize(message))
        if message["do"] in ("stop", "finish"):
            self._fleet.start_again()
        elif message["do"] == "start" and self._peers.least:
            self._fleet.start(message["workers"])
        with contextlib.suppress(OSError):  # a full disk is the training process's to report
            self._write_down(message)

    def _write_down(self, message: Message) -> None:
        attempt = self._coordinator.attempt
        if message["do"] == "start" and (workers := self._coordinator.beginning):
            kind, begins = ("start", "starts on") if attempt == 1 else ("scale", "goes on with")
            Event.append(self._run, kind, f"training {begins} {workers}")
            if self._peers.least:
                self._report_line(f"training {begins} {workers}")
        elif message["do"] == "stop" and not message["save"]:
            Event.append(self._run, "restart", f"attempt {attempt} ended: {message['reason']}")
        elif message["do"] == "finish":
            self._verdict = message
            Event.append(self._run, "end", message["reason"] or "training is complete")


def _address(writer: asyncio.StreamWriter) -> str:
    """Of the other side; one of IPv4 as such, also where it came in through a socket of both."""
    address = str((writer.get_extra_info("peername") or ("somewhere",))[0])
    return address.removeprefix("::ffff:")
