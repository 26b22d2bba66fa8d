"""How a supervisor gets to its peers: their names resolve, and the chief's supervisor answers and proves itself."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable

from maskfleet.errors import PeerLost
from maskfleet.peers import Peers
from maskfleet.text import format_duration
from trainer.supervision.chief import NOTICE_SECONDS
from trainer.supervision.handshake import HANDSHAKE_SECONDS, Stranger, introduce
from trainer.supervision.silence import end_when_silent

RETRY_SECONDS = 0.2
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Reaching:
    """The way of one worker to the others.

    Args:
        chief: where its supervisor listens.
        token: the run's.
        report_line: prints a line for the user.
    """

    def __init__(self, peers: Peers, chief: tuple[str, int], token: bytes, report_line: Callable[[str], None]):
        self._peers = peers
        self._chief = chief
        self._token = token
        self._report_line = report_line
        self._last_since: float | None = None  # of those that are there; None: another one is

    async def connection(self, limit: float) -> Connection:
        """Resolves every peer and connects to the chief's supervisor, trying for ``limit`` seconds.

        Every name must resolve before TensorFlow starts: its first collective fails at once on one that
        does not. Where not all have to come the chief's is enough.

        Raises:
            PeerLost: it took too long, or the chief has no room and this worker makes some.
        """
        needed = range(self._peers.workers) if self._peers.least is None else range(1)
        started = placed = time.monotonic()
        notice = started + NOTICE_SECONDS
        while True:
            missing = await self._unresolved(needed)
            if missing is None:
                placed = time.monotonic()
                try:
                    return await self._connect()
                except (OSError, Stranger) as error:
                    why = (isinstance(error, OSError) and error.strerror) or str(error) or "it does not answer"
                    missing = f"worker 0 (the chief) at {':'.join(map(str, self._chief))}: {why}"
            now = time.monotonic()
            if now - started > limit:
                raise PeerLost(f"worker {self._peers.worker} waited {limit:.0f} s in vain for {missing}")
            if now > notice:
                self._report_line(f"waiting for {missing}")
                notice += NOTICE_SECONDS
                await self._make_room(now - placed)
            await asyncio.sleep(RETRY_SECONDS)

    async def resolved(self, workers: Iterable[int], limit: float) -> str | None:
        """Waits until the names of these workers resolve; returns what does not after ``limit`` seconds, or None."""
        started = time.monotonic()
        while (missing := await self._unresolved(workers)) is not None and time.monotonic() - started < limit:
            await asyncio.sleep(RETRY_SECONDS)
        return missing

    async def _make_room(self, seconds: float) -> None:
        """Where workers train without those that find no room, the chief has to be one that does.

        Its name does not resolve until it has a node. After a while the last worker that is there gives up its own,
        and another pod of it waits behind the chief's. Who is the last one then waits as long again, since the chief
        may take the place that was made.

        Args:
            seconds: for which the chief's name has not resolved.

        Raises:
            PeerLost: it is this one.
        """
        if self._peers.least is None or seconds < NOTICE_SECONDS:
            return
        for worker in range(self._peers.worker + 1, self._peers.workers):
            if await self._unresolved([worker]) is None:
                self._last_since = None
                return
        now = time.monotonic()
        self._last_since = now if self._last_since is None else self._last_since
        if min(seconds, now - self._last_since) < self._peers.shrink_after:
            return
        raise PeerLost(
            f"worker {self._peers.worker} makes room for worker 0 (the chief), which has found none for "
            f"{format_duration(seconds)}"
        )

    async def _connect(self) -> Connection:
        """A connection over which both sides have proven that they know the run's token.

        Raises:
            OSError, Stranger: there is none to be had now.
        """
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            reader, writer = await asyncio.open_connection(*self._chief)
        try:
            end_when_silent(writer)
            await introduce(reader, writer, self._token, self._peers.worker)
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def _unresolved(self, workers: Iterable[int]) -> str | None:
        """The first of these workers whose name does not resolve, and why."""
        if self._peers.workers == 1:
            return None
        loop = asyncio.get_running_loop()
        for worker in workers:
            host, port = self._peers.rendezvous_address(worker)
            try:
                await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:  # of what can't be a name at all
                return f"worker {worker}: the name {host:.200} does not resolve ({getattr(error, 'strerror', error)})"
        return None
