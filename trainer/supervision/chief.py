"""The chief's side of the rendezvous: a server that every worker's supervisor connects to."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator

from maskfleet.config import TrainConfig
from maskfleet.errors import PeerLost
from maskfleet.peers import Peers
from maskfleet.run_directory import RunDirectory
from trainer.supervision.rendezvous import Coordinator, Message, parse, serialize

NOTICE_SECONDS = 10
"""Between two lines that say who is missing."""
LIFE_SECONDS = 1.0
"""Between two messages to all that one of them gets on."""


class ChiefServer:
    """Connects the :class:`~trainer.supervision.rendezvous.Coordinator` with the workers' supervisors."""

    def __init__(self, config: TrainConfig, peers: Peers, run: RunDirectory):
        self._coordinator = Coordinator(peers.workers, config.max_restarts)
        self._peers = peers
        self._timeout = config.start_timeout
        self._run = run
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._life_time = -math.inf

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[str, int]]:
        """Listens on the rendezvous port, and gives the address at which the chief itself connects.

        Without peers any free port of the loopback interface does.

        Raises:
            PeerLost: another process has the port.
        """
        _, port = self._peers.rendezvous_address(0)
        alone = self._peers.workers == 1
        try:
            server = await asyncio.start_server(
                self._serve_worker, "127.0.0.1" if alone else None, 0 if alone else port
            )
        except OSError as error:
            raise PeerLost(f"worker 0 can't listen on port {port}: {error.strerror or error}") from None
        notices = asyncio.create_task(self._notice_missing())
        try:
            yield "127.0.0.1", server.sockets[0].getsockname()[1]
        finally:
            notices.cancel()
            for writer in list(self._writers.values()):
                with contextlib.suppress(OSError, asyncio.TimeoutError):
                    await asyncio.wait_for(writer.drain(), 1)
            server.close()

    async def _serve_worker(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = None
        try:
            while (message := parse(await reader.readline())) is not None:
                worker = int(message["worker"])
                self._writers[worker] = writer
                if message["is"] == "ready":
                    self._broadcast(self._coordinator.worker_ready(worker))
                elif message["is"] == "alive":
                    self._pass_on_life()
                elif message["is"] == "ended":
                    self._broadcast(
                        self._coordinator.process_ended(
                            worker, message["attempt"], message["code"], message["reason"], time.monotonic()
                        )
                    )
        except (OSError, KeyError, ValueError):
            pass  # a lost or nonsensical peer is a peer that left
        except asyncio.CancelledError:
            pass  # the event loop ends with the run; asyncio's streams would print this as an error
        finally:
            if worker is not None and self._writers.get(worker) is writer:
                del self._writers[worker]
                self._broadcast(self._coordinator.worker_left(worker, time.monotonic()))
            writer.close()

    def _pass_on_life(self) -> None:
        """One that gets on does so for all: the others may be waiting for it, and have nothing to show themselves."""
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
            missing = ", ".join(
                f"worker {worker} ({self._peers.addresses[worker]})" for worker in self._coordinator.missing()
            )
            waited = time.monotonic() - gathering_since
            if waited > self._timeout:
                self._broadcast(self._coordinator.gathering_timed_out(f"waited {waited:.0f} s in vain for {missing}"))
            else:
                self._broadcast({"do": "wait", "for": missing})

    def _broadcast(self, message: Message | None) -> None:
        if message is None:
            return
        for writer in list(self._writers.values()):
            writer.write(serialize(message))
        attempt = self._coordinator.attempt
        with contextlib.suppress(OSError):  # a full disk is the training process's to report
            if message["do"] == "start" and attempt == 1:
                self._run.append_event("start", f"training starts on {self._peers.workers} worker(s)")
            elif message["do"] == "stop":
                self._run.append_event("restart", f"attempt {attempt} ended: {message['reason']}")
            elif message["do"] == "finish":
                self._run.append_event("end", message["reason"] or "training is complete")
