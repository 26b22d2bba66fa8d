"""A round trip over a network is told apart from a process that answers late."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from trainer.supervision.round_trip import acknowledge_at_once, round_trip

ANSWERS, LATE = 20, 0.02


@pytest.mark.skipif(sys.platform != "linux", reason="not run: only Linux's kernel tells")
def test_who_answers_late_is_not_far_away():
    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(ANSWERS):
            began = time.monotonic()
            writer.write(b"ping\n")
            await reader.readline()
            took.append(time.monotonic() - began)
            await asyncio.sleep(0.25)  # as two questions, further apart than the kernel waits for an acknowledgement
        trips.append(round_trip(writer))
        writer.close()
        await writer.wait_closed()
        acknowledge_at_once(writer)
        trips.append(round_trip(writer))

    async def answer() -> None:
        server = await asyncio.start_server(ask, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        acknowledge_at_once(writer)
        while await reader.readline():
            time.sleep(LATE)
            writer.write(b"pong\n")
            acknowledge_at_once(writer)
        writer.close()
        server.close()

    took: list[float] = []
    trips: list[float | None] = []
    asyncio.run(answer())
    assert min(took) >= LATE
    found, of_a_lost_connection = trips
    assert found is not None
    assert 0 < found < LATE / 4
    assert of_a_lost_connection is None
