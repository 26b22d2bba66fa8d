"""How a worker comes to the chief, and when it gives up its place for the chief's."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from maskfleet.errors import PeerLost
from maskfleet.peers import Peers
from trainer.supervision import reaching
from trainer.supervision.reaching import Reaching

NOWHERE, HERE = "nowhere.invalid:2222", "127.0.0.1:1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "NOTICE_SECONDS", 0.1)


def end_of(worker: int, *addresses: str, least: int | None = 1, limit: float = 1.0, patience: float = 0.3) -> str:
    peers = Peers(worker, addresses, least=least, shrink_after=patience)
    way = Reaching(peers, peers.rendezvous_address(0), b"token", lambda line: None)
    with pytest.raises(PeerLost) as error:
        asyncio.run(way.connection(limit))
    return str(error.value)


def test_the_last_worker_makes_room_for_a_chief_without_a_node() -> None:
    told = end_of(2, NOWHERE, HERE, HERE, NOWHERE)
    assert told.startswith("worker 2 makes room for worker 0 (the chief), which has found none for ")


@pytest.mark.parametrize(
    ("worker", "addresses", "least"),
    [
        (1, (NOWHERE, HERE, HERE), 1),  # another one does
        (1, (HERE, HERE), 1),  # the chief has a node, and is not ready yet
        (1, (NOWHERE, HERE), None),  # all have to come
    ],
)
def test_no_other_one_does(worker: int, addresses: tuple[str, ...], least: int | None) -> None:
    assert end_of(worker, *addresses, least=least).startswith(f"worker {worker} waited 1 s in vain for worker 0")


def test_the_one_before_waits_as_long_again_for_the_chief_to_take_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    began, patience = time.monotonic(), 1.0

    def resolve(host: str, *_: Any, **__: Any) -> Any:
        if host == "chief" or (host == "last" and time.monotonic() - began > patience):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert "makes room" in end_of(1, "chief:1", "here:1", "last:1", limit=10, patience=patience)
    assert time.monotonic() - began > 2 * patience - 3 * reaching.NOTICE_SECONDS


def test_where_not_all_have_to_come_the_others_names_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def resolve(host: str, *_: Any, **__: Any) -> Any:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    end_of(3, "a:1", "b:1", "c:1", "d:1", limit=0.1)
    assert set(asked) == {"a"}
