"""Supervisors prove to each other that they know the run's token; strangers get nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.peers import Peers
from maskfleet.run_directory import RunDirectory
from trainer.supervision import handshake
from trainer.supervision.chief import SPARE_CONNECTIONS, ChiefServer
from trainer.supervision.handshake import Stranger, introduce, read_token
from trainer.supervision.rendezvous import MAX_REASON, Ended, names_of, parse_order, serialize, start, stop

TOKEN = b"secret"
PEERS = Peers(0, ("127.0.0.1:0", "127.0.0.1:2"))
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Coroutine[Any, Any, Streams]]


class Chief:
    """A chief's server on a free port, with what it has printed."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.run = RunDirectory(path)
        self.lines: list[str] = []
        self.server = ChiefServer(TrainConfig(), PEERS, self.run, TOKEN, self.lines.append)

    def with_clients(
        self, act: Callable[[Callable[[], Coroutine[Any, Any, Streams]]], Coroutine[Any, Any, None]]
    ) -> None:
        async def main() -> None:
            async with self.server.serving() as address:
                await act(lambda: asyncio.open_connection(*address))

        asyncio.run(main())


async def message_of(reader: asyncio.StreamReader) -> dict[str, Any]:
    try:
        line = await asyncio.wait_for(reader.readline(), 5)
    except ConnectionResetError:  # it has left unread what we sent
        return {}
    return json.loads(line) if line else {}


@pytest.fixture
def chief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chief:
    monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 0.5)
    # Any free port does.
    monkeypatch.setattr(Peers, "rendezvous_address", lambda peers, worker: ("127.0.0.1", 0))
    return Chief(tmp_path / "run")


def test_who_knows_the_token_is_told_when_all_have_come(chief: Chief) -> None:
    async def act(connect: Connect) -> None:
        workers = [await connect() for _ in range(2)]
        for number, (reader, writer) in enumerate(workers):
            await introduce(reader, writer, TOKEN, number)
            writer.write(serialize({"is": "ready"}))
        assert [await message_of(reader) for reader, _ in workers] == [start(1, range(2))] * 2

    chief.with_clients(act)
    assert chief.lines == []


STRANGERS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "nothing": lambda challenge: b"",
    "random bytes": lambda challenge: b"\x00\xff" * 40 + b"\n",
    "a line without end": lambda challenge: b"x" * 200_000,
    "an end at once": lambda challenge: serialize({"worker": 0, "is": "ended", "attempt": 1, "code": 0, "reason": ""}),
    "deep nesting": lambda challenge: b"[" * 30_000 + b"\n",
    "no worker of the run": lambda challenge: serialize({"worker": 2, "nonce": "n", "proof": "p"}),
    "a worker that is no number": lambda challenge: serialize({"worker": True, "nonce": "n", "proof": "p"}),
    "a proof of another kind": lambda challenge: serialize({"worker": 1, "nonce": "n", "proof": 5}),
    "a proof with another token": lambda challenge: serialize(
        {"worker": 1, "nonce": "n", "proof": handshake._proof(b"guess", "worker", 1, challenge["challenge"], "n")}
    ),
    "the chief's own proof": lambda challenge: serialize(
        {"worker": 1, "nonce": "n", "proof": handshake._proof(TOKEN, "chief", 1, challenge["challenge"], "n")}
    ),
    "a proof for another worker": lambda challenge: serialize(
        {"worker": 1, "nonce": "n", "proof": handshake._proof(TOKEN, "worker", 0, challenge["challenge"], "n")}
    ),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_stranger_is_hung_up_on_and_the_workers_go_on(chief: Chief, kind: str) -> None:
    async def act(connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(STRANGERS[kind](await message_of(reader)))
        assert await message_of(reader) == {}
        writer.close()
        workers = [await connect() for _ in range(2)]
        for number, (theirs, ours) in enumerate(workers):
            await introduce(theirs, ours, TOKEN, number)
            ours.write(serialize({"is": "ready"}))
        assert [await message_of(theirs) for theirs, _ in workers] == [start(1, range(2))] * 2

    chief.with_clients(act)
    assert len(chief.lines) == 1
    assert chief.lines[0].startswith("refused a connection from 127.0.0.1 to the rendezvous port: ")


def test_half_open_connections_keep_nobody_out_and_fill_no_log(chief: Chief, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 60)

    async def act(connect: Connect) -> None:
        silent = [await connect() for _ in range(2 * SPARE_CONNECTIONS)]
        reader, writer = await connect()
        await asyncio.wait_for(introduce(reader, writer, TOKEN, 1), 5)
        assert len(chief.server._unproven) <= SPARE_CONNECTIONS + 2
        for _, each in silent:
            each.close()

    chief.with_clients(act)
    assert len(chief.lines) <= 1


@pytest.mark.parametrize(("worker", "here"), [(0, True), (1, False)])
def test_a_worker_comes_from_where_its_name_leads_to(
    chief: Chief, monkeypatch: pytest.MonkeyPatch, worker: int, here: bool
) -> None:
    """The chief's own supervisor comes from the loopback interface, whatever its name."""
    monkeypatch.setattr(Peers, "rendezvous_address", lambda peers, worker: ("192.0.2.7", 0))
    monkeypatch.setattr(Peers, "are_local", True)

    async def act(connect: Connect) -> None:
        reader, writer = await connect()
        with contextlib.nullcontext() if here else pytest.raises(Stranger):
            await introduce(reader, writer, TOKEN, worker)

    chief.with_clients(act)
    refused = (
        "refused a connection from 127.0.0.1 to the rendezvous port: worker 1 is expected from 192.0.2.7 (192.0.2.7)"
    )
    assert chief.lines == ([] if here else [refused])


def test_a_flood_of_connections_keeps_no_worker_out(chief: Chief) -> None:
    """Somebody opens connections as fast as they are taken, and never speaks."""

    async def act(connect: Connect) -> None:
        async def flood() -> None:
            held = []
            while True:
                held.append(await connect())
                held[: -4 * SPARE_CONNECTIONS] = []

        floods = [asyncio.create_task(flood()) for _ in range(8)]
        await asyncio.sleep(0.5)
        for worker in range(2):
            async with asyncio.timeout(300):
                while True:
                    reader, writer = await connect()
                    with contextlib.suppress(Stranger):
                        await introduce(reader, writer, TOKEN, worker)
                        break
        for each in floods:
            each.cancel()
        await asyncio.gather(*floods, return_exceptions=True)

    chief.with_clients(act)


def test_a_worker_that_comes_again_was_lost_before(chief: Chief) -> None:
    """Its supervisor was started again before the chief heard of the end of the first."""

    async def act(connect: Connect) -> None:
        workers = [await connect() for _ in range(2)]
        for number, (reader, writer) in enumerate(workers):
            await introduce(reader, writer, TOKEN, number)
            writer.write(serialize({"is": "ready"}))
        assert [await message_of(reader) for reader, _ in workers] == [start(1, range(2))] * 2
        reader, writer = await connect()
        await introduce(reader, writer, TOKEN, 1)
        assert await message_of(workers[0][0]) == stop("worker 1 was lost")
        assert await message_of(workers[1][0]) == {}
        for each in (workers[0][1], writer):
            each.write(serialize({"is": "ready"}))
        assert [await message_of(each) for each in (workers[0][0], reader)] == [start(2, range(2))] * 2

    chief.with_clients(act)


@pytest.mark.parametrize("line", [
    b"[]\n", b"{}\n", b'{"do": "leave"}\n', b'{"do": ["start"]}\n', b'{"do": "start", "attempt": "1"}\n',
    b'{"do": "start", "attempt": true}\n', b'{"do": "finish", "code": 0}\n', b'{"do": "wait", "for": 1}\n', b"\xff\n",
])  # fmt: skip
def test_an_order_that_is_none_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected|decode"):
        parse_order(line)


def test_a_worker_does_not_obey_a_chief_that_does_not_know_the_token() -> None:
    async def main() -> None:
        async def forge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(serialize({"challenge": "c"}))
            await reader.readline()
            writer.write(serialize({"proof": handshake._proof(b"guess", "chief", 1, "c", "n")}))

        server = await asyncio.start_server(forge, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        with pytest.raises(Stranger, match="does not know this run's token"):
            await introduce(reader, writer, TOKEN, 1)
        server.close()

    asyncio.run(main())


@pytest.mark.parametrize("message", [
    {}, {"attempt": "1", "code": 0, "reason": ""}, {"attempt": 1, "code": 1e9, "reason": ""},
    {"attempt": 1, "code": 300, "reason": ""}, {"attempt": 1, "code": 0, "reason": None},
    {"attempt": True, "code": 0, "reason": ""},
])  # fmt: skip
def test_an_end_that_is_none_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected an attempt, an exit code and a reason"):
        Ended.of(message)


def test_a_reason_is_cut_to_what_a_message_holds() -> None:
    assert len(Ended.of({"attempt": 1, "code": 1, "reason": "y" * 60_000}).reason) == MAX_REASON


@pytest.mark.parametrize("count", [1, 5, 6, 5000])
def test_who_is_missing_is_one_short_line_however_many(count: int) -> None:
    addresses = [f"{'a' * 52}-{worker}.{'a' * 52}:2222" for worker in range(5000)]
    line = names_of(range(count), addresses)
    assert line.startswith("worker 0 (")
    assert line.endswith(f" and {count - 5} more") == (count > 5)
    assert len(line) < 1000


def test_the_token_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    name = "MASKFLEET_TOKEN_FILE"
    with pytest.raises(BadSettings, match=f"{name}: is not set; several workers need a file with a random line"):
        read_token({})
    with pytest.raises(BadSettings, match=f"{name}=.*: No such file or directory; several workers need a file"):
        read_token({name: str(file)})
    file.write_text("\n")
    with pytest.raises(BadSettings, match=f"{name}=.*: is empty; several workers need a file"):
        read_token({name: str(file)})
    file.write_text("abc\n")
    assert read_token({name: str(file)}) == b"abc"
